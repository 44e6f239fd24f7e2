//! Safe Rust over Orthanc's C plugin interface: entry points, storage area, REST routes, jobs, changes,
//! metrics and logs.
//!
//! A plugin is a `cdylib` with a type that implements [`Plugin`] and one line [`export_plugin!`]. Orthanc's
//! callbacks arrive as calls to the traits and closures that the plugin registers with its [`Orthanc`],
//! which also offers Orthanc's services.
//!
//! ```
//! use std::ffi::CStr;
//!
//! use orthanc_ffi::{InitializeError, Method, Orthanc, Plugin, RestAnswer, RestFailure};
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     const NAME: &'static CStr = c"Hello";
//!     const VERSION: &'static CStr = c"1.0";
//!
//!     fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
//!         let configuration = orthanc.configuration()?;
//!         let greeting = configuration["Hello"]["Greeting"].as_str().unwrap_or("hello").to_owned();
//!         orthanc.register_rest("/hello", move |request| match request.method() {
//!             Method::Get => Ok(RestAnswer::bytes("text/plain", greeting.as_str())),
//!             _ => Err(RestFailure::MethodNotAllowed { allow: "GET" }),
//!         })?;
//!         Ok(Self)
//!     }
//! }
//!
//! orthanc_ffi::export_plugin!(Hello);
//! ```
//!
//! Guarantees:
//!
//! - No panic crosses the C boundary: it becomes an error code and one log line with its place in the source.
//! - An [`Orthanc`] may be kept and used from any thread. After Orthanc has finalized the plugin, calls
//!   fail without touching Orthanc's memory.
//! - The library may be finalized and initialized again without being unloaded: finalize empties the one
//!   cell that holds all state. The library pins itself in memory, so that threads which called it can end
//!   at any time.
//! - Log lines never contain content, configuration or headers.
//!
//! The crate starts no threads.

#![allow(unsafe_code)]

#[doc(hidden)]
pub mod abi;
mod change;
mod chunked;
#[doc(hidden)]
pub mod entry;
mod error;
mod job;
mod loan;
mod log;
mod metrics;
mod orthanc;
mod panic;
mod pin;
mod rest;
mod storage;
mod target;
mod threads;
mod version;

pub use chunked::BodyReader;
pub use entry::{InitializeError, Plugin};
pub use error::{ContentType, ErrorCode, OrthancError};
pub use job::{Job, JobStep, StopReason};
pub use log::{OrthancLayer, install_tracing, set_verbose_targets};
pub use orthanc::{Level, Orthanc};
pub use rest::{Method, RestAnswer, RestFailure, RestRequest};
pub use storage::{Ranges, StorageArea};
pub use target::{Target, TargetOverflow, WholeTarget};
pub use version::OrthancVersion;
