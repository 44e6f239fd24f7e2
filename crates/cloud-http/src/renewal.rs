//! Credentials that the server refuses before they expire: they were revoked, or replaced in a file.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::client::CloudHttp;

/// Credentials that can be loaded again.
pub trait Renewable: fmt::Debug + Send + Sync {
    /// The server refused a request that was sent at `used`. Returns whether other credentials than those of
    /// that moment are there now, so that the request is worth repeating.
    fn refused(&self, used: Instant) -> bool;
}

/// Credentials that are loaded again after a refusal with status 401 or one of some codes.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    pub(crate) credentials: Arc<dyn Renewable>,
    pub(crate) codes: &'static [&'static str],
}

impl CloudHttp {
    /// Returns this client for requests without credentials. That the server refuses them says nothing about the
    /// credentials of other requests, nor about the clock.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        let mut client = self.clone();
        client.renewal = None;
        client.clock = None;
        client
    }
}

impl Renewal {
    /// Whether a refused request that was sent at `used` is worth repeating.
    pub(crate) fn renews(&self, status: StatusCode, code: Option<&str>, used: Instant) -> bool {
        let is_refusal =
            status == StatusCode::UNAUTHORIZED || code.is_some_and(|code| self.codes.contains(&code));
        is_refusal && self.credentials.refused(used)
    }
}
