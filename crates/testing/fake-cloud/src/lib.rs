//! Cloud storage servers for tests, the demonstration and benchmarks, with the behaviour of S3, Azure and
//! Google.
//!
//! A test can access the buckets directly, count requests and connections, inject the faults of networks and
//! clouds, limit the bandwidth, and hold requests, in the same way for every cloud:
//!
//! - [`BucketServer::start`] serves S3 with `s3s`, which checks signatures, from buckets in memory.
//! - [`BucketServer::start_azure`] forwards to Azurite, Microsoft's emulator, in a separate process.
//!   [`SharedAzurite`] is Azurite alone, for clients that are compared with each other.
//! - [`BucketServer::start_google`] serves the same buckets as S3, with Google's tokens, headers and errors.
//!
//! [`KeyVault`] is Azure Key Vault with Entra ID.
//!
//! All servers listen on 127.0.0.1 only, and implement only the operations that the plugins use.
//!
//! ```
//! use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options};
//!
//! # fn main() -> std::io::Result<()> {
//! let server = BucketServer::start(Options::default())?;
//! server.insert("bucket", "key", "content");
//! let rule = server.faults().push(FaultRule::new(Fault::slow_down()).on(Operation::GetObject).times(2));
//! // Let a client of `server.endpoint()` read the key. It is refused twice and retries, then:
//! // assert_eq!(rule.fired(), 2);
//! # let _ = rule.fired();
//! # Ok(())
//! # }
//! ```
//!
//! Faults have the names of S3. Each cloud answers with its own error code.
//!
//! # Where it differs from S3
//!
//! - [`Quirks`] make it refuse what servers of other makes do not know.
//! - The `ETag` of an object of 16 MiB or more has 32 hexadecimal digits and depends on the content alone, but is not
//!   its MD5, which would be too slow. That of an upload in N parts ends with `-N`, as in S3.
//! - Lists are those of version 2. There are no copies, versions, access lists or lifecycle rules; [`BucketSettings`] is
//!   what a client is told about them.
//! - Storage classes, tags and encryption are labels without effect.
//! - The server holds whole requests in memory, so it must not serve untrusted clients.
//!
//! # Where it differs from Azure
//!
//! - Everything that Azurite does differently, except for three corrections: a range beyond the end of a blob
//!   is refused (Azurite: 206 without bytes), the code for a wrong or expired signature is
//!   `AuthenticationFailed` (Azurite: `AuthorizationFailure`), and the answers to uploads have the CRC-64 of the
//!   request's body (Azurite: none).
//! - Whole blobs have a `Content-MD5` even if the client sent none.
//! - The answer for a missing account is 404 `ResourceNotFound`. In Azure, the account's host name does not
//!   exist.
//! - Batches with a shared access signature of the account fail with HTTP 500.
//! - Azurite keeps deleted and replaced blobs in memory for some minutes.
//!
//! # Where it differs from Google Cloud Storage
//!
//! - The differences from S3 apply, except for tags and encryption, which do not exist.
//! - Of the JSON interface, there are only the bucket's settings, and batches, which can only delete objects.
//! - A token gives all permissions or, for [`GoogleOptions::without_access`], none.
//! - Of Cloud KMS, which is at the same address, there are only `encrypt` and `decrypt`. Versions of keys are enabled
//!   or disabled.
//! - There are no generations, signed URLs, resumable uploads or customer-supplied keys.

mod azure;
mod body;
mod checksum;
mod count;
mod dialect;
mod fault;
mod front;
mod google;
mod hold;
mod key_vault;
mod link;
mod listen;
mod odd;
mod operation;
mod s3;
mod serve;
mod server;
mod settings;
mod stored;
mod tls;

pub use azure::{AzureOptions, AzuriteOverTls, Sas, SharedAzurite};
pub use count::{RequestCounts, RequestRecord};
pub use fault::{Fault, FaultRule, Faults, PushedRule};
pub use google::{AuthorizedUser, CryptoKeys, GoogleOptions, Interceptor, ServiceAccount, Tokens};
pub use hold::Hold;
pub use key_vault::{KeyVault, VaultClient, VaultFault, VaultOperation, VaultRequest};
pub use odd::Odd;
pub use operation::Operation;
pub use s3::{Options, QuirkSettings, Quirks, RefusedChecksums};
pub use serve::{BUCKET, CRYPTO_KEY, serve};
pub use server::BucketServer;
pub use settings::BucketSettings;
pub use stored::StoredObject;
