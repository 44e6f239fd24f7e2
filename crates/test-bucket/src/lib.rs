//! An S3 server for tests, the demonstration and benchmarks, which behaves as S3 does.
//!
//! `s3s` is the front end and checks signatures; the buckets are in memory. A test can look into them, count requests
//! and connections, let requests fail in all the ways that networks and S3 let them fail, slow the line down, and hold
//! requests back. It listens on 127.0.0.1 only.
//!
//! ```
//! use test_bucket::{BucketServer, Fault, FaultRule, Operation, Options};
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
//! # Where it differs from S3
//!
//! - An ETag has 32 hexadecimal digits and depends on the content alone, but is not its MD5, which would take more time
//!   than all the rest (`…-N` for an upload in N parts, as in S3).
//! - Everything is consistent at once, and there are no versions, access lists or lifecycle rules.
//! - Storage classes are labels; but `GLACIER` and `DEEP_ARCHIVE` objects cannot be read, as in S3.
//! - `Content-Length` is believed when memory is reserved. Nothing here is meant for strangers.

mod azure;
mod body;
mod checksum;
mod count;
mod dialect;
mod fault;
mod front;
mod hold;
mod link;
mod listen;
mod operation;
mod s3;
mod server;
mod stored;

pub use azure::{AzureOptions, Sas};
pub use count::{RequestCounts, RequestRecord};
pub use fault::{Fault, FaultRule, Faults, PushedRule};
pub use hold::Hold;
pub use operation::Operation;
pub use s3::Options;
pub use server::BucketServer;
pub use stored::{StoredObject, UnfinishedUpload};
