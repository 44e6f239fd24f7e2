//! Credentials that the server refuses before they expire: they were revoked, or replaced in a file.

use std::fmt;
use std::time::Instant;

use http::StatusCode;

/// The codes of such refusals. S3 has no status of its own for them.
const CODES: [&str; 4] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"];

/// Credentials that can be loaded again.
pub trait Renewable: fmt::Debug + Send + Sync {
    /// The server refused a request that was sent at `used`. Returns whether other credentials than those of
    /// that moment are there now, so that the request is worth repeating.
    fn refused(&self, used: Instant) -> bool;
}

/// Whether the server refuses the credentials, rather than what they may do.
pub(crate) fn is_refusal(status: StatusCode, code: Option<&str>) -> bool {
    status == StatusCode::UNAUTHORIZED || code.is_some_and(|code| CODES.contains(&code))
}
