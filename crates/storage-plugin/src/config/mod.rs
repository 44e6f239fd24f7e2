//! Reads and checks Orthanc's configuration.

mod common;
mod encryption;
mod files;
mod hybrid;
#[cfg(test)]
pub(crate) mod messages;
mod network;
mod section;
mod spelling;
mod state;
mod stow;
mod verification;
mod write_back;

pub(crate) use common::CommonOptions;
pub(crate) use encryption::{EncryptionOptions, KeyServices, OpenKeyService};
pub use files::{describe_file, explain_unreadable};
pub(crate) use hybrid::HybridOptions;
pub use network::NetworkOptions;
pub(crate) use network::PROXY;
pub use section::{ConfigError, Secret, Section};
pub(crate) use spelling::{is_comment, resembles};
pub(crate) use state::StateOptions;
pub(crate) use stow::StowOptions;
