//! Safe Rust over Orthanc's C plugin interface: entry points, storage area, REST routes, jobs, logs.
//!
//! A plugin is a `cdylib` with a type that implements [`Plugin`] and one line `orthanc_ffi::export_plugin!(TheType);`.
//! What Orthanc calls arrives as calls to the traits and closures that the plugin registered on its [`Orthanc`]; what the
//! plugin wants of Orthanc goes through the [`Orthanc`].
//!
//! What this crate promises:
//!
//! - No panic crosses the C boundary: it becomes an error code and one log line with its place in the source.
//! - A [`Orthanc`] may be kept and used from any thread for ever. Once Orthanc has finalised the plugin its calls fail
//!   and touch nothing of Orthanc.
//! - The library may be finalised and initialised again without being unloaded: all state hangs on one cell that
//!   finalise empties. It pins itself in memory, so that threads which it has touched may end whenever they like.
//! - It never logs what it carries: no content, no configuration, no header.
//!
//! It is the only crate of the workspace with `unsafe` (beside one module of `crypto-envelope`). It knows nothing of
//! clouds, encryption, configuration options or object names, and has no threads of its own.

#![allow(unsafe_code)]

#[doc(hidden)]
pub mod abi;
mod change;
#[doc(hidden)]
pub mod entry;
mod error;
mod job;
mod loan;
mod log;
mod orthanc;
mod panic;
mod pin;
mod rest;
mod storage;
mod target;
mod version;

pub use change::Change;
pub use entry::{InitializeError, Plugin};
pub use error::{ContentType, ErrorCode, OrthancError};
pub use job::{Job, JobStep, StopReason};
pub use log::{OrthancLayer, install_tracing, set_verbose_targets};
pub use orthanc::{Level, Orthanc};
pub use rest::{Method, RestAnswer, RestFailure, RestRequest};
pub use storage::{Ranges, StorageArea};
pub use target::{Target, TargetOverflow, WholeTarget};
pub use version::OrthancVersion;
