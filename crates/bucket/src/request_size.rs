//! The largest request that a server accepts: proxies in front of it limit the bodies of requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use cloud_http::TransportError;
use parking_lot::Mutex;

use crate::error::{Cause, StorageError};
use crate::throughput::FORGET_AFTER;

/// The smallest part of an upload that S3 and Google accept, in bytes.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;
/// Number of broken connections after which smaller requests are tried. A proxy that refuses a request for its size may
/// close the connection while the content is being sent, so that its answer is lost.
const BREAKS: usize = 2;

/// What is known of the largest request.
#[derive(Debug, Default)]
pub(crate) struct RequestSize(Mutex<Sizes>);

/// Sizes in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Sizes {
    /// The largest content that was accepted in one request.
    accepted: u64,
    /// The smallest content that was refused for its size.
    refused: Option<u64>,
    /// The smallest content whose connections broke, for which there are other reasons.
    suspected: Option<u64>,
    /// The number of uploads in parts since then.
    uploads: u32,
}

impl Sizes {
    /// The smallest content that must not be sent.
    fn limit(&self) -> u64 {
        self.refused.unwrap_or(u64::MAX).min(self.suspected.unwrap_or(u64::MAX))
    }

    /// See [`RequestSize::allows`].
    fn allow(&self, size: u64) -> bool {
        size <= SMALLEST_PART || self.limit() == u64::MAX || size <= self.accepted
    }
}

impl RequestSize {
    /// Whether to send `size` bytes in one request. After a refusal, nothing is tried that was not accepted before, except
    /// what is too small for parts.
    pub(crate) fn allows(&self, size: u64) -> bool {
        self.0.lock().allow(size)
    }

    pub(crate) fn note_accepted(&self, size: u64) {
        let mut sizes = self.0.lock();
        sizes.accepted = sizes.accepted.max(size);
    }

    /// Records an upload in parts of `size` bytes.
    pub(crate) fn note_upload_in_parts(&self, size: u64) {
        self.note_accepted(size);
        let mut sizes = self.0.lock();
        sizes.uploads += u32::from(sizes.suspected.is_some());
        if sizes.uploads >= FORGET_AFTER {
            *sizes = Sizes { suspected: None, uploads: 0, ..*sizes };
        }
    }

    /// Records a refusal: the limit may be lower than before.
    fn note_refused(&self, size: u64) {
        let mut sizes = self.0.lock();
        sizes.accepted = sizes.accepted.min(size.saturating_sub(1));
        sizes.refused = Some(sizes.refused.unwrap_or(size).min(size));
    }

    /// Records that connections broke, which is believed for [`FORGET_AFTER`] uploads.
    fn note_suspected(&self, size: u64) {
        let mut sizes = self.0.lock();
        *sizes = Sizes { suspected: Some(sizes.suspected.unwrap_or(size).min(size)), uploads: 0, ..*sizes };
    }

    /// Returns the size of parts: `wanted`, or a half, a quarter, … of it after refusals.
    pub(crate) fn part(&self, wanted: u64) -> u64 {
        let sizes = *self.0.lock();
        let mut size = wanted;
        while !sizes.allow(size) && size >= sizes.limit() {
            size = (size / 2).max(SMALLEST_PART);
        }
        size
    }
}

/// The connections that broke while content was being sent that may be too large for one request.
#[derive(Debug)]
pub(crate) struct Breaks<'a> {
    sizes: &'a RequestSize,
    size: u64,
    may_be_too_large: bool,
    count: AtomicUsize,
}

impl<'a> Breaks<'a> {
    pub(crate) fn new(sizes: &'a RequestSize, size: u64) -> Self {
        let may_be_too_large = size > SMALLEST_PART && size > sizes.0.lock().accepted;
        Self { sizes, size, may_be_too_large, count: AtomicUsize::new(0) }
    }

    /// Records the size if it may be the reason of `error`. Returns whether smaller requests may help.
    pub(crate) fn note(&self, error: &StorageError) -> bool {
        let is_refused = error.cause == Cause::TooLarge;
        if is_refused {
            self.sizes.note_refused(self.size);
        } else if self.are_too_many() {
            self.sizes.note_suspected(self.size);
        }
        self.size > SMALLEST_PART && (is_refused || self.are_too_many())
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

    fn are_too_many(&self) -> bool {
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
        sizes.note_refused(30 * MEBIBYTE);
        assert!(sizes.allows(7 * MEBIBYTE) && !sizes.allows(7 * MEBIBYTE + 1));
        assert_eq!(sizes.part(64 * MEBIBYTE), 16 * MEBIBYTE);
        sizes.note_refused(16 * MEBIBYTE);
        assert_eq!(sizes.part(64 * MEBIBYTE), 8 * MEBIBYTE);
        sizes.note_refused(8 * MEBIBYTE);
        assert_eq!(sizes.part(64 * MEBIBYTE), SMALLEST_PART);
        sizes.note_refused(SMALLEST_PART);
        assert!(sizes.allows(SMALLEST_PART), "what is too small for parts is still tried");
        assert_eq!(sizes.part(64 * MEBIBYTE), SMALLEST_PART, "parts cannot be smaller");
    }

    #[test]
    fn limit_may_become_lower() {
        let sizes = RequestSize::default();
        sizes.note_accepted(100 * MEBIBYTE);
        sizes.note_refused(50 * MEBIBYTE);
        assert!(sizes.allows(50 * MEBIBYTE - 1) && !sizes.allows(50 * MEBIBYTE));
        sizes.note_refused(16 * MEBIBYTE);
        assert_eq!(sizes.part(16 * MEBIBYTE), 8 * MEBIBYTE);
    }

    #[test]
    fn only_breaks_are_forgotten() {
        let sizes = RequestSize::default();
        sizes.note_suspected(30 * MEBIBYTE);
        for _ in 1..FORGET_AFTER {
            sizes.note_upload_in_parts(SMALLEST_PART);
            assert!(!sizes.allows(30 * MEBIBYTE));
        }
        sizes.note_upload_in_parts(SMALLEST_PART);
        assert!(sizes.allows(30 * MEBIBYTE));
        sizes.note_refused(30 * MEBIBYTE);
        for _ in 0..2 * FORGET_AFTER {
            sizes.note_upload_in_parts(SMALLEST_PART);
        }
        assert!(!sizes.allows(30 * MEBIBYTE));
    }
}
