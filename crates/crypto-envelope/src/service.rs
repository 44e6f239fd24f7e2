//! Services that wrap file keys with a master key that never leaves them.

use std::fmt;

use futures_util::future::{BoxFuture, ready};

use crate::a2::header::Service;
use crate::a2::opener::FileKey;
use crate::error::PrimitiveFailed;

/// A key service, with one key that wraps, and possibly more keys that unwrap.
///
/// The implementation does the I/O: it authenticates, and repeats requests that may succeed later.
pub trait KeyService: fmt::Debug + Send + Sync {
    /// Which service this is.
    fn service(&self) -> Service;

    /// Whether a file key that was wrapped with this key may be sent here to be unwrapped. The name comes from the header
    /// of an envelope, which anyone who can write to the bucket can alter: names of other services must be refused.
    fn has_key(&self, key: &str) -> bool;

    /// Wraps a new file key.
    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>>;

    /// Unwraps a file key that was wrapped with `key`, which is empty for AWS.
    fn unwrap<'a>(
        &'a self,
        key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>>;

    /// Whether a file key, wrapped with `key`, was wrapped with the key that wraps new file keys, and with the version of
    /// it that does so now, as far as the service says. Called if [`has_key`](Self::has_key) is true, which is all there is
    /// to know of a service whose keys have no versions.
    fn is_current<'a>(
        &'a self,
        _key: &'a str,
        _wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, KeyServiceError>> {
        Box::pin(ready(Ok(true)))
    }
}

/// A file key as a service has wrapped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The name of the key for the header: see [`ServiceWrap::key`](crate::ServiceWrap::key).
    pub key: String,
    /// The service's ciphertext.
    pub wrapped: Vec<u8>,
}

/// A file key could not be wrapped or unwrapped. The messages contain neither keys nor credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyServiceError {
    /// The service does not answer, or asks to come back later, also after repeated attempts.
    #[error("{0}")]
    Unavailable(String),
    /// The service refuses: a permission is missing, or the key is disabled, unknown or another one.
    #[error("{0}")]
    Refused(String),
    /// No service is configured that has the key.
    #[error(
        "the file key is wrapped by {service}{}, which is not configured; configure it in MasterKey or \
         PreviousMasterKeys", crate::error::with_key(.key)
    )]
    NotConfigured {
        /// The service.
        service: Service,
        /// The name of its key; empty for AWS.
        key: String,
    },
    /// The service's answer does not fit in an envelope.
    #[error("{0} returned a wrapped key that cannot be stored: it is empty or too long")]
    Unusable(Service),
    /// The cryptographic library failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

impl KeyServiceError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
