//! The conformance suite: tests that the plugin of every cloud must pass.
//!
//! The tests have five levels: the bucket client on the cloud's protocol (`client`), the built plugin in a
//! fake Orthanc (`plugin`), the same with master keys (`encryption`), the plugin in a real Orthanc
//! (`orthanc`), and there with attachments both on the disk and in the bucket (`hybrid`). `write_back` has the tests of
//! that mode at both levels, `operating` those of the jobs that operate an archive, and `stow` those of the STOW-RS
//! gateway. `page` opens the page at `/object-storage/app/` in a browser.
//! The module `servers` has tests for servers that other people have made, see [`run_on_servers`].
//!
//! A plugin's tests implement [`Cloud`] and pass the type to [`run`], the `main` of a test binary without the
//! standard harness. Each test is a private function that is generic over the cloud. The macro `tests!` of
//! its module lists it and says for which clouds and in which runs it is needed; an unlisted test is dead
//! code, which the compiler reports.
//!
//! ```ignore
//! fn main() {
//!     conformance::run::<cloud::S3>();
//! }
//! ```

#![expect(clippy::missing_errors_doc, reason = "an error fails the test")]

#[macro_use]
mod registry;

mod client;
mod cloud;
mod encryption;
mod fixture;
mod hybrid;
mod key_server;
mod machine;
mod operating;
mod orthanc;
mod page;
mod plugin;
mod servers;
mod small_disk;
mod small_server;
mod stow;
mod write_back;

pub use cloud::{Cloud, OptionKind, Refusal};
pub use fixture::codes;
pub use fixture::{
    DICOM, KEY, Keys, LoadedPlugin, Trials, UUID, configuration, content, done, eventually, library, load,
    own_lines, section, uuid, with, without,
};
pub use key_server::KeyServer;
pub use machine::{Machine, Outcome, child};
pub use registry::run;
pub use servers::run_on_servers;
pub use small_server::{Answer, METADATA_LIFETIME, Request, SmallServer};

modules![client, plugin, encryption, orthanc, hybrid, write_back, operating, stow, page];
