//! Cloud storage for tests, the demonstration and benchmarks, which behaves as that of S3, Azure and Google does.
//!
//! A test can look into the buckets, count requests and connections, let requests fail in all the ways that networks
//! and clouds let them fail, slow the line down, and hold requests back, in the same way for every cloud. Behind that,
//!
//! - [`BucketServer::start`] has `s3s`, which checks signatures, and buckets in memory;
//! - [`BucketServer::start_azure`] has Azurite, Microsoft's emulator, in a process of its own;
//! - [`BucketServer::start_google`] has the buckets of S3, with Google's tokens, headers and errors before them.
//!
//! It listens on 127.0.0.1 only.
//!
//! ```
//! use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options};
//!
//! # fn main() -> std::io::Result<()> {
//! let server = BucketServer::start(Options::default())?;
//! server.insert("bucket", "key", "content");
//! let rule = server.faults().push(FaultRule::new(Fault::slow_down()).on(Operation::GetObject).times(2));
//! // … a client of server.endpoint() reads the key, is told twice to slow down, and succeeds …
//! # let _ = rule.fired();
//! # Ok(())
//! # }
//! ```
//!
//! Faults are given by the names of S3; each cloud answers in its own words: see `src/azure/error.rs` and
//! `src/google/error.rs`.
//!
//! # Where it differs from S3
//!
//! - An ETag has 32 hexadecimal digits and depends on the content alone, but is not its MD5, which would take more time
//!   than all the rest (`…-N` for an upload in N parts, as in S3).
//! - Everything is consistent at once, and there are no versions, access lists or lifecycle rules.
//! - Storage classes are labels; but `GLACIER` and `DEEP_ARCHIVE` objects cannot be read, as in S3.
//! - `Content-Length` is believed when memory is reserved. Nothing here is meant for strangers.
//!
//! # Where it differs from Azure
//!
//! - In whatever Azurite does, but for two answers that are corrected: ranges behind the end of a blob are refused
//!   (Azurite: 206 without bytes), and a wrong or expired signature is `AuthenticationFailed` (`AuthorizationFailure`).
//! - Whole blobs have a `Content-MD5` even where none was stored, and `Put Blob` answers without a CRC-64.
//! - An account that does not exist is 404 `ResourceNotFound`; Azure's have host names, which are not found at all.
//! - Batches with a shared access signature in place of the key are refused with HTTP 500.
//! - Azurite keeps what is deleted or replaced in memory for some minutes.
//!
//! # Where it differs from Google Cloud Storage
//!
//! - As from S3. Generations are the time of the put in microseconds, metagenerations are always 1.
//! - A token may do everything or, for [`GoogleOptions::without_access`], nothing; there are no roles.
//! - There are no signed addresses, resumable uploads or customer-supplied keys.

mod azure;
mod body;
mod checksum;
mod count;
mod dialect;
mod fault;
mod front;
mod google;
mod hold;
mod link;
mod listen;
mod operation;
mod s3;
mod server;
mod stored;

pub use azure::{AzureOptions, AzuriteOverTls, Sas};
pub use count::{RequestCounts, RequestRecord};
pub use fault::{Fault, FaultRule, Faults, PushedRule};
pub use google::{AuthorizedUser, GoogleOptions, Interceptor, ServiceAccount, Tokens};
pub use hold::Hold;
pub use operation::Operation;
pub use s3::Options;
pub use server::BucketServer;
pub use stored::{StoredObject, UnfinishedUpload};
