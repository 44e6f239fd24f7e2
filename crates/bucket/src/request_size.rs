//! The largest request that a server accepts: proxies in front of it limit the bodies of requests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cloud_http::TransportError;

/// The smallest part of an upload that S3 and Google accept, in bytes.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;
/// Number of broken connections after which smaller requests are tried. A proxy that refuses a request for its size may
/// close the connection while the content is being sent, so that its answer is lost.
const BREAKS: usize = 2;
/// Of [`RequestSize::refused`], while nothing was refused.
const NOTHING: u64 = u64::MAX;

/// What is known of the largest request, in bytes.
#[derive(Debug)]
pub(crate) struct RequestSize {
    /// Size of the largest content that was accepted in one request.
    accepted: AtomicU64,
    /// Size of the smallest content that was refused for its size.
    refused: AtomicU64,
}

impl Default for RequestSize {
    fn default() -> Self {
        Self { accepted: AtomicU64::new(0), refused: AtomicU64::new(NOTHING) }
    }
}

impl RequestSize {
    /// Whether to send `size` bytes in one request. After a refusal, nothing is tried that was not accepted before, except
    /// what is too small for parts.
    pub(crate) fn allows(&self, size: u64) -> bool {
        size <= SMALLEST_PART
            || self.refused.load(Ordering::Relaxed) == NOTHING
            || size <= self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn note_accepted(&self, size: u64) {
        self.accepted.fetch_max(size, Ordering::Relaxed);
    }

    /// Records a refusal. Returns whether parts can be smaller than `size`.
    pub(crate) fn note_refused(&self, size: u64) -> bool {
        self.refused.fetch_min(size, Ordering::Relaxed);
        size > SMALLEST_PART
    }

    /// Returns the size of parts: `wanted`, or a half, a quarter, … of it after refusals.
    pub(crate) fn part(&self, wanted: u64) -> u64 {
        let mut size = wanted;
        while !self.allows(size) && size >= self.refused.load(Ordering::Relaxed) {
            size = (size / 2).max(SMALLEST_PART);
        }
        size
    }
}

/// The connections that broke while content was being sent that may be too large for one request.
#[derive(Debug)]
pub(crate) struct Breaks {
    may_be_too_large: bool,
    count: AtomicUsize,
}

impl Breaks {
    pub(crate) fn new(sizes: &RequestSize, size: u64) -> Self {
        let may_be_too_large = size > SMALLEST_PART && size > sizes.accepted.load(Ordering::Relaxed);
        Self { may_be_too_large, count: AtomicUsize::new(0) }
    }

    /// Makes the last break a permanent failure.
    pub(crate) fn count<T>(&self, result: object_store::Result<T>) -> object_store::Result<T> {
        result.map_err(|error| {
            if !matches!(TransportError::find(&error), Some(TransportError::Interrupted { .. })) {
                return error;
            }
            self.count.fetch_add(1, Ordering::Relaxed);
            if !self.are_too_many() {
                return error;
            }
            object_store::Error::Generic { store: "request", source: Box::new(BrokenAgain) }
        })
    }

    pub(crate) fn are_too_many(&self) -> bool {
        self.may_be_too_large && self.count.load(Ordering::Relaxed) >= BREAKS
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the connection broke {BREAKS} times while the content was being sent, which a proxy may do that limits its size"
)]
struct BrokenAgain;

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1024 * 1024;

    #[test]
    fn everything_is_allowed_before_a_refusal() {
        let sizes = RequestSize::default();
        assert!(sizes.allows(u64::MAX - 1));
        assert_eq!(sizes.part(64 * MEBIBYTE), 64 * MEBIBYTE);
    }

    #[test]
    fn refusals_lead_to_smaller_requests() {
        let sizes = RequestSize::default();
        sizes.note_accepted(7 * MEBIBYTE);
        assert!(sizes.note_refused(30 * MEBIBYTE));
        assert!(sizes.allows(7 * MEBIBYTE) && !sizes.allows(7 * MEBIBYTE + 1));
        assert_eq!(sizes.part(64 * MEBIBYTE), 16 * MEBIBYTE);
        assert!(sizes.note_refused(16 * MEBIBYTE));
        assert_eq!(sizes.part(64 * MEBIBYTE), 8 * MEBIBYTE);
        assert!(sizes.note_refused(8 * MEBIBYTE));
        assert_eq!(sizes.part(64 * MEBIBYTE), SMALLEST_PART);
        assert!(!sizes.note_refused(SMALLEST_PART), "parts cannot be smaller");
        assert!(sizes.allows(SMALLEST_PART), "what is too small for parts is still tried");
    }
}
