//! A real Orthanc in a temporary folder, for tests, the demonstration and the benchmark: a REST client,
//! generated DICOM files, C-STORE, and a proxy that simulates a broken network.
//!
//! ```no_run
//! use real_orthanc::{Orthanc, dicom};
//!
//! let mut orthanc = Orthanc::builder().section("StorageCompression", false).start()?;
//! for file in dicom::ct_series(3, 256, 256) {
//!     let uploaded = orthanc.rest().upload(&file?)?;
//!     println!("{}", uploaded.id);
//! }
//! orthanc.stop()?;
//! # Ok::<(), anyhow::Error>(())
//! ```

mod complete;
pub mod dicom;
mod error;
mod orthanc;
mod ports;
mod postgres;
mod process;
mod proxy;
mod release;
mod resources;
pub mod rest;
mod send;
pub mod workspace;

pub use error::StartError;
pub use orthanc::{Builder, Orthanc};
pub use orthanc_roots::{Release, tested};
pub use ports::free_port;
pub use postgres::{POSTGRESQL_INDEX_PLUGIN, Postgres};
pub use process::Process;
pub use proxy::Proxy;
pub use release::{configuration_of_debian, plugin_of_debian, use_release};
pub use rest::{Answer, Client, Method, Uploaded};
pub use send::{NO_DELAY, SendError, dicom_send, dicom_send_folder};
