//! The HTTP client that carries the requests of `object_store` to a cloud.
//!
//! `object_store` speaks the protocol of each cloud and leaves the connection to an [`HttpService`]; [`CloudHttp`] is
//! ours, made of `reqwest`. It adds what a storage of patients' images needs beyond a plain client:
//!
//! - at most so many connections at once, first come, first served;
//! - an exchange in which nothing moves is given up (a stall), however long a large transfer may take as a whole;
//! - a payload that is lent by its owner can be taken back at any moment (see [`with_lent_payload`]);
//! - what the server answered (status, error code, request id, `Retry-After`, [`Checksum`]) is kept for whoever made the
//!   request (see [`observe`]), since `object_store` passes on only a part of it.
//!
//! It does not retry, and knows nothing of attachments, buckets or credentials.
//!
//! [`HttpService`]: object_store::client::HttpService

mod checksum;
mod client;
mod download;
mod error;
mod error_body;
mod exchange;
mod stall;
mod upload;

pub use checksum::{Checksum, Verifier};
pub use client::{CloudHttp, HttpOptions, no_retries};
pub use error::{CredentialError, HttpConfigError, TransportError};
pub use exchange::{Exchange, Refusal, observe, observe_nested};
pub use upload::with_lent_payload;
