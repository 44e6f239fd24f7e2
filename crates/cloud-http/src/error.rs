//! What can go wrong on the way to a server, apart from its own answer.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

/// Why no complete answer came from the server.
///
/// It is the innermost source of the errors that `object_store` makes of it: see [`TransportError::find`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: refused, unknown host, unreachable network, connection timeout.
    #[error("cannot connect: {reason}")]
    Connect {
        /// The cause, without the address.
        reason: String,
    },
    /// The server's certificate is not one to trust. Retrying does not help.
    #[error("the server's TLS certificate is not trusted: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The connection ended in the middle of an exchange.
    #[error("the connection broke: {reason}")]
    Interrupted {
        /// The cause.
        reason: String,
    },
    /// Nothing was sent or received for so long.
    #[error("nothing moved for {} s", limit.as_secs_f32())]
    Stalled {
        /// The longest time that an exchange may stand still.
        limit: Duration,
    },
    /// The request could not be made, or the answer is no HTTP.
    #[error("{reason}")]
    Protocol {
        /// The cause.
        reason: String,
    },
}

impl TransportError {
    /// The transport error among the sources of `error`, if that is where it came from.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        sources(error).find_map(|source| source.downcast_ref())
    }

    /// Whether the same request may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Interrupted { .. } | Self::Stalled { .. } => true,
            Self::Certificate { .. } | Self::Protocol { .. } => false,
        }
    }

    /// Sorts an error of `reqwest` by what its sources say.
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Self {
        let reason = innermost(error);
        if is_certificate_error(&reason) {
            Self::Certificate { reason }
        } else if error.is_connect() {
            Self::Connect { reason }
        } else if error.is_timeout() || is_broken_connection(error) {
            Self::Interrupted { reason }
        } else {
            Self::Protocol { reason }
        }
    }

    /// As `object_store` wants it. The kind is unused there, since its retries are off.
    pub(crate) fn into_http(self) -> HttpError {
        let kind = match self {
            Self::Connect { .. } => HttpErrorKind::Connect,
            Self::Interrupted { .. } => HttpErrorKind::Interrupted,
            Self::Stalled { .. } => HttpErrorKind::Timeout,
            Self::Certificate { .. } | Self::Protocol { .. } => HttpErrorKind::Unknown,
        };
        HttpError::new(kind, self)
    }
}

/// There are no credentials to sign a request with. To be given by credential providers as the source of their
/// `object_store` error.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CredentialError {
    /// Why, without any part of a credential.
    pub reason: String,
    /// Whether it may pass by itself, as a metadata service that does not answer.
    pub transient: bool,
}

impl CredentialError {
    /// The credential error among the sources of `error`, if that is where it came from.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        sources(error).find_map(|source| source.downcast_ref())
    }
}

/// The client could not be made from its options.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// The file of additional root certificates is no PEM file.
    #[error("no certificates in PEM format")]
    Certificates,
    /// The proxy is no URL.
    #[error("not the address of a proxy")]
    Proxy,
    /// TLS could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

impl HttpConfigError {
    /// What lies inside of the PEM format is only looked at when the client is made.
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Self {
        let reason = innermost(error);
        if is_certificate_error(&reason) { Self::Certificates } else { Self::Client(reason) }
    }
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The text of the last source: the cause, without the URLs of the errors around it.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

fn is_certificate_error(reason: &str) -> bool {
    // rustls' error type is not among `reqwest`'s public ones; its text begins so.
    reason.contains("invalid peer certificate")
}

fn is_broken_connection(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof,
    };
    if error.is_body() || error.is_request() || error.is_decode() {
        return sources(error).any(|source| {
            let broken_io = source.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(
                    error.kind(),
                    BrokenPipe
                        | ConnectionAborted
                        | ConnectionReset
                        | NotConnected
                        | TimedOut
                        | UnexpectedEof
                )
            });
            let text = source.to_string();
            // hyper's error is not among `reqwest`'s public ones either.
            broken_io
                || text.contains("connection closed")
                || text.contains("connection was not ready")
                || text.contains("end of file")
        });
    }
    false
}
