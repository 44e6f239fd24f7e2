//! Reading Orthanc's configuration.

mod common;
mod section;

pub(crate) use common::CommonOptions;
pub use section::{ConfigError, Secret, Section};
