//! A real Orthanc in a temporary folder, and what is needed to exercise it: a REST client, generated DICOM files,
//! C-STORE, and a proxy that plays a broken network.
//!
//! Tests, the demonstration and the benchmark share it. It knows nothing of the plugins but their names.
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
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod dicom;
mod error;
mod orthanc;
mod ports;
mod postgres;
mod process;
mod proxy;
pub mod rest;
mod send;
pub mod workspace;

pub use error::{StartError, StopError};
pub use orthanc::{Builder, Orthanc};
pub use postgres::{POSTGRESQL_INDEX_PLUGIN, Postgres, PostgresError};
pub use proxy::Proxy;
pub use rest::{Answer, Client, RestError, Uploaded};
pub use send::{SendError, dicom_send};
