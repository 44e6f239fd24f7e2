//! Reading Orthanc's configuration.

mod common;
mod encryption;
mod network;
mod section;

pub(crate) use common::CommonOptions;
pub(crate) use encryption::EncryptionOptions;
pub use network::NetworkOptions;
pub(crate) use section::describe;
pub use section::{ConfigError, Secret, Section};
