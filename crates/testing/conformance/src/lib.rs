//! The tests that the plugin of every cloud must pass, at five levels: the engine on the cloud's protocol (`client`), the
//! built plugin in an Orthanc that is played (`plugin`), with keys (`encryption`), in a real Orthanc (`orthanc`), and there with
//! files beside the bucket (`hybrid`).
//!
//! A plugin's tests implement [`Cloud`] and hand it to [`run`], which is the whole of a test binary without a harness of
//! its own. Every test is a private function that is generic over the cloud, and is listed by the macro `tests!` in its
//! module: one that is not listed is dead code, which CI refuses. So no cloud can leave one out.
//!
//! ```ignore
//! fn main() {
//!     conformance::run::<cloud::S3>();
//! }
//! ```

#[macro_use]
mod registry;

mod client;
mod cloud;
mod encryption;
mod fixture;
mod hybrid;
mod machine;
mod orthanc;
mod plugin;
mod small_server;

pub use cloud::{Cloud, OptionKind, Refusal};
pub use fixture::codes;
pub use fixture::{
    DICOM, KEY, Keys, Setup, Trials, UUID, configuration, content, done, eventually, library, load,
    own_lines, section, uuid, with, without,
};
pub use machine::{Machine, Outcome, child};
pub use registry::run;
pub use small_server::{Request, SmallServer};

modules![client, plugin, encryption, orthanc, hybrid];
