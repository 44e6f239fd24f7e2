//! Errors other than responses of the server: transport, credentials, options.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use reqwest::Url;

use crate::tls;

/// No complete response arrived from the server.
///
/// `object_store` wraps this error in its own: use [`TransportError::find`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The connection could not be opened: it was refused or timed out, or the host or network is
    /// unreachable.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// Host and port, also if a proxy is in between.
        server: String,
        /// The cause.
        reason: String,
    },
    /// The server's certificate is not trusted. Retrying does not help.
    #[error("the server's TLS certificate is not trusted: {reason}")]
    Certificate {
        /// The cause.
        reason: String,
    },
    /// The server does not speak TLS, and was addressed as `https://`. Retrying does not help.
    #[error("the server does not speak TLS on this port: use http://, or the port for https://")]
    NoTls,
    /// The server speaks nothing but TLS, and was addressed as `http://`. Retrying does not help.
    #[error("the server speaks only TLS on this port: use https://")]
    OnlyTls,
    /// The connection ended during an exchange.
    #[error("the connection broke: {reason}")]
    Interrupted {
        /// The cause.
        reason: String,
    },
    /// No data was sent or received for `limit`.
    #[error("no data transferred for {} s", limit.as_secs_f32())]
    Stalled {
        /// Maximum time without any data.
        limit: Duration,
    },
    /// The request could not be sent, or the response is not HTTP.
    #[error("{reason}")]
    Protocol {
        /// The cause.
        reason: String,
    },
}

impl TransportError {
    /// Returns the transport error among the sources of `error`, if there is one.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        sources(error).find_map(|source| source.downcast_ref())
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Interrupted { .. } | Self::Stalled { .. } => true,
            Self::Certificate { .. } | Self::NoTls | Self::OnlyTls | Self::Protocol { .. } => false,
        }
    }

    /// Classifies an error of `reqwest` by its sources.
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Self {
        let reason = innermost(error);
        let tls = tls_error(error);
        if let Some(reason) = tls.and_then(tls::refusal) {
            Self::Certificate { reason }
        } else if tls.is_some_and(tls::is_not_tls) {
            Self::NoTls
        } else if error.is_connect() {
            Self::connect(error, reason)
        } else if error.is_timeout() || is_broken_connection(error) {
            Self::Interrupted { reason }
        } else {
            Self::Protocol { reason }
        }
    }

    /// The error of a connection that could not be opened.
    pub(crate) fn connect(error: &reqwest::Error, reason: String) -> Self {
        Self::Connect { server: server(error.url()), reason }
    }

    /// Converts the error for `object_store`, which ignores the kind because its retries are off.
    pub(crate) fn into_http(self) -> HttpError {
        let kind = match self {
            Self::Connect { .. } => HttpErrorKind::Connect,
            Self::Interrupted { .. } => HttpErrorKind::Interrupted,
            Self::Stalled { .. } => HttpErrorKind::Timeout,
            Self::Certificate { .. } | Self::NoTls | Self::OnlyTls | Self::Protocol { .. } => {
                HttpErrorKind::Unknown
            }
        };
        HttpError::new(kind, self)
    }
}

/// A credential provider could not return credentials to sign a request with.
///
/// Providers wrap this error in an error of `object_store`: use [`CredentialError::find`].
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CredentialError {
    /// The cause, without any part of a credential.
    pub reason: String,
    /// Whether the same request may succeed later, for example if a metadata service did not respond.
    pub transient: bool,
}

impl CredentialError {
    /// Returns the credential error among the sources of `error`, if there is one.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        sources(error).find_map(|source| source.downcast_ref())
    }
}

/// The options of the client are invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// The additional certificates are not PEM.
    #[error("no certificates in PEM format")]
    Certificates,
    /// The proxy's address is invalid.
    #[error("not the address of a proxy")]
    Proxy,
    /// TLS could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// Host and port of a URL, whose path and query may contain a signature.
fn server(url: Option<&Url>) -> String {
    let address = |url: &Url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?));
    url.and_then(address).unwrap_or_else(|| "the server".to_owned())
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Returns the message of the last source: the cause, without the URLs in the errors that wrap it.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    sources(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Returns the error of TLS, if that is the cause.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    sources(error).find_map(|source| {
        // An `io::Error` does not name the error that it wraps as its source.
        let mut inner = source;
        while let Some(wrapped) = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            inner = wrapped;
        }
        inner.downcast_ref()
    })
}

fn is_broken_connection(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof,
    };
    const BROKEN: [io::ErrorKind; 6] =
        [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof];
    if error.is_body() || error.is_request() || error.is_decode() {
        return sources(error).any(|source| {
            let broken_io =
                source.downcast_ref().is_some_and(|error: &io::Error| BROKEN.contains(&error.kind()));
            let text = source.to_string();
            // `reqwest` does not expose the error type of `hyper` either.
            broken_io
                || text.contains("connection closed")
                || text.contains("connection was not ready")
                || text.contains("end of file")
        });
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let reason = || "connection refused".to_owned();
        let transport_errors = [
            TransportError::Connect { server: "host:443".to_owned(), reason: reason() },
            TransportError::Certificate { reason: reason() },
            TransportError::NoTls,
            TransportError::OnlyTls,
            TransportError::Interrupted { reason: reason() },
            TransportError::Stalled { limit: Duration::from_secs(30) },
            TransportError::Protocol { reason: reason() },
        ];
        let config_errors =
            [HttpConfigError::Certificates, HttpConfigError::Proxy, HttpConfigError::Client(reason())];
        // Add new variants to the matches and to the lists above.
        let transport = transport_errors.iter().map(|error| {
            let variant = match error {
                TransportError::Connect { .. } => "Connect",
                TransportError::Certificate { .. } => "Certificate",
                TransportError::NoTls => "NoTls",
                TransportError::OnlyTls => "OnlyTls",
                TransportError::Interrupted { .. } => "Interrupted",
                TransportError::Stalled { .. } => "Stalled",
                TransportError::Protocol { .. } => "Protocol",
            };
            format!("TransportError::{variant}: {error}")
        });
        let config = config_errors.iter().map(|error| {
            let variant = match error {
                HttpConfigError::Certificates => "Certificates",
                HttpConfigError::Proxy => "Proxy",
                HttpConfigError::Client(_) => "Client",
            };
            format!("HttpConfigError::{variant}: {error}")
        });
        let text = transport.chain(config).collect::<Vec<_>>().join("\n");
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("cloud-http", text) });
    }
}
