//! The common part of the plugins: from Orthanc's configuration to a storage area in a bucket.
//!
//! A plugin crate implements [`Provider`] for its cloud and exports `StoragePlugin<ItsProvider>` with
//! `orthanc_ffi::export_plugin!`. This crate reads the options that all clouds share, checks the bucket, and
//! registers the storage area, routes and jobs.
//!
//! | module | contents |
//! | --- | --- |
//! | `plugin` | life cycle: initialization, start and stop |
//! | `start` | the steps of the start: section, storage, check, background work |
//! | `config` | options and their errors |
//! | `area` | the storage area's callbacks: create, read (`area/read`), remove; encryption |
//! | `jobs` | jobs over many attachments: what all kinds share |
//! | `moving` | `/move-storage`: request, moves |
//! | `verifying` | `/object-storage/verify`: checks of all copies |
//! | `audit` | `/object-storage/audit`: what it measures, what it asks the server |
//! | `stow` | the STOW-RS gateway |
//! | `operations` | `/object-storage/…`: status, locations, metrics |
//!
//! The plugin of another cloud:
//!
//! ```no_run
//! use orthanc_ffi::InitializeError;
//! use std::{ffi::CStr, sync::Arc};
//! use storage_plugin::{Connection, Provider, ProviderContext, Section, StoragePlugin};
//!
//! struct Memory;
//!
//! impl Provider for Memory {
//!     const NAME: &'static CStr = c"memory-storage";
//!     const DESCRIPTION: &'static str = "Stores attachments in memory";
//!     const SECTION: &'static str = "MemoryStorage";
//!     const SERVER: &'static str = "a memory";
//!     const READ_PERMISSIONS: &'static str = "none";
//!     const WRITE_PERMISSIONS: &'static str = "none";
//!     const DELETE_PERMISSIONS: &'static str = "none";
//!
//!     fn connect(section: &mut Section<'_>, context: &ProviderContext<'_>) -> Result<Connection, InitializeError> {
//!         let url = format!("memory://{}", section.required("BucketName")?);
//!         let store = Arc::new(object_store::memory::InMemory::new());
//!         let endpoint = "memory://localhost/".parse().map_err(|_| section.error("BucketName", "has no endpoint"))?;
//!         Ok(context.bucket(store, url, &endpoint, Default::default(), u64::MAX, "none"))
//!     }
//! }
//!
//! orthanc_ffi::export_plugin!(StoragePlugin<Memory>);
//! # fn main() {}
//! ```

mod area;
mod audit;
mod bucket_name;
mod catalog;
mod config;
mod context;
mod credentials;
mod endpoint;
mod jobs;
mod machine;
#[cfg(test)]
mod messages;
mod moving;
mod operations;
mod orphans;
mod plugin;
mod post;
mod provider;
mod reencrypting;
mod restoring;
mod runtime;
mod start;
mod stop;
mod stow;
mod verifying;
mod walk;

pub use audit::{BucketAudit, Reply, anonymous};
pub use bucket_name::bucket_name;
pub use config::{ConfigError, NetworkOptions, Secret, Section, describe_file, explain_unreadable};
pub use credentials::{NamedCredentials, Reloading, TokenService};
pub use endpoint::{endpoint_option, parse_endpoint, warn_if_exposed};
pub use machine::CloudMachine;
pub use plugin::StoragePlugin;
pub use provider::{Connection, Provider, ProviderContext, c_str, client_error, connect, connection};
pub use security_audit::{Anonymous, Answer, PublicAccess, Versions};
