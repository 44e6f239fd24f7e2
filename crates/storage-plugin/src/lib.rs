//! What the plugins have in common: from Orthanc's configuration to a storage area in a bucket.
//!
//! A plugin crate implements [`Provider`] for its cloud, and exports [`StoragePlugin`] of it with
//! `orthanc_ffi::export_plugin!`. This crate reads the options that all clouds share, checks the bucket, registers the
//! storage area, routes and jobs, and brings Orthanc's threads, which wait, together with the engine, which does not.

mod area;
mod catalog;
mod config;
mod credentials;
mod endpoint;
mod moving;
mod offload;
mod operations;
mod plugin;
mod provider;
mod runtime;

pub use config::{ConfigError, NetworkOptions, Secret, Section};
pub use credentials::NamedCredentials;
pub use endpoint::{endpoint_option, parse_endpoint, warn_if_exposed};
pub use plugin::StoragePlugin;
pub use provider::{Provider, ProviderContext, c_str, client_error, connect};
