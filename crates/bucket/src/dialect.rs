//! What a client learns about its server while it makes requests.

use std::fmt::Debug;

/// The knowledge of a server that decides how requests are sent.
pub trait Dialect: Debug + Send + Sync {
    /// The number of changes so far that concern uploads. An upload in parts is sent with what was known when it began; if
    /// it fails after a change, it begins again.
    fn changes(&self) -> usize;

    /// Whether the server may return checksums of objects.
    fn returns_checksums(&self) -> bool;
}
