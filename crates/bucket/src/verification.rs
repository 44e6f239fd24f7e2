//! What the bytes of a download are compared with.

use std::sync::Arc;

use cloud_http::{Checksum, Exchange, Hasher, Verifier};
use object_store::GetResult;
use parking_lot::Mutex;

use crate::error::StorageError;
use crate::throughput::LARGE;

/// Number of objects that do not fit their ETag in two equal downloads, after which no more are doubted: a server that
/// encrypts objects can have ETags that look like MD5s and are something else.
const OTHERS: usize = 3;

/// Which checksums a download of a whole object is compared with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verification {
    /// The one in the answer.
    pub(crate) in_answer: bool,
    /// If a range turns out to be the whole object, and the answer has none: the one that the server sends when asked for
    /// it.
    pub(crate) on_request: bool,
    /// If the answer has none: the `ETag` if it is an MD5.
    pub(crate) e_tags: Option<Arc<ETags>>,
    /// Whether to ask for the whole object instead of a range that begins with its first byte, because the answer has the
    /// checksum: see [`Beginnings`](crate::beginnings::Beginnings).
    pub(crate) asks_for_whole: bool,
}

/// What reads have shown of the `ETag`s of a bucket.
#[derive(Debug, Default)]
pub(crate) struct ETags {
    /// The objects that do not fit an `ETag` that looks like an MD5, at most [`OTHERS`].
    others: Mutex<Vec<String>>,
}

impl ETags {
    /// Whether to doubt bytes that do not fit an `ETag` that looks like an MD5.
    pub(crate) fn may_be_md5s(&self) -> bool {
        self.others.lock().len() < OTHERS
    }

    /// Notes that two equal downloads of `object` do not fit its `ETag`. Damaged objects are like that as well, so each
    /// object counts once, with a warning.
    pub(crate) fn note_other(&self, object: &str) {
        let mut others = self.others.lock();
        if others.len() >= OTHERS || others.iter().any(|other| other == object) {
            return;
        }
        others.push(object.to_owned());
        let is_last = others.len() == OTHERS;
        drop(others);
        tracing::warn!(
            "two downloads of {object} have the same bytes, and not the MD5 that its ETag seems to be: either the ETag is \
             not an MD5, or the object is damaged; verify it with POST /object-storage/verify, depth \"content\""
        );
        if is_last {
            tracing::info!(
                "{OTHERS} objects do not fit ETags that look like MD5s: until Orthanc restarts, objects without checksums \
                 are not downloaded a second time"
            );
        }
    }
}

/// The comparison of an object with its checksum, taken out of a [`Download`](crate::Download).
#[derive(Debug)]
pub struct Comparison(pub(crate) Check);

impl Comparison {
    /// Whether it takes more time than it takes to receive the bytes: it computes an MD5, or may need a further request.
    pub fn is_costly(&self) -> bool {
        self.0.is_costly()
    }

    /// Adds the next bytes of the object.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// Result of the comparison of a whole object.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing shows that the bytes are wrong.
    Right,
    /// The bytes are wrong.
    Wrong(StorageError),
    /// The server must be asked: see [`Download::settle`](crate::Download::settle).
    Open(Comparison),
}

/// Result of a [`Check`] if no request is needed.
pub(crate) enum Judgement {
    Right,
    /// The bytes do not have this checksum.
    Wrong(&'static str),
    Open,
}

/// A comparison with a checksum.
#[derive(Debug)]
pub(crate) enum Check {
    /// There is no checksum, or none is wanted.
    Off,
    /// The bytes were not found to be right.
    Failed,
    /// With that in the answer.
    Known(Box<Verifier>),
    /// At the end, with the `ETag` if it is an MD5, or else with what the server is asked for.
    Late {
        hasher: Box<Hasher>,
        /// Whether to ask the server for a checksum.
        asks: bool,
        e_tags: Arc<ETags>,
    },
}

impl Check {
    /// `is_range` says whether the request had a range.
    pub(crate) fn new(
        verification: &Verification,
        answer: &GetResult,
        exchange: &Exchange,
        is_range: bool,
    ) -> Self {
        if answer.range != (0..answer.meta.size) {
            return Self::Off;
        }
        match (exchange.checksum, &verification.e_tags) {
            (Some(checksum), _) if verification.in_answer => Self::Known(Box::new(checksum.verifier())),
            (None, Some(e_tags)) => {
                // For a large object, a request costs less than its MD5.
                let with_md5 = answer.meta.size < LARGE && !exchange.has_other_e_tag;
                let hasher = Hasher::new(answer.meta.e_tag.as_deref(), with_md5);
                // The answer to a whole read would have the checksum.
                let asks = is_range && verification.on_request;
                if !asks && hasher.md5().is_none() {
                    return Self::Off;
                }
                Self::Late { hasher: Box::new(hasher), asks, e_tags: Arc::clone(e_tags) }
            }
            _ => Self::Off,
        }
    }

    /// See [`Comparison::is_costly`].
    pub(crate) fn is_costly(&self) -> bool {
        match self {
            Self::Off | Self::Failed => false,
            Self::Known(verifier) => matches!(verifier.expected(), Checksum::Md5(_)),
            Self::Late { .. } => true,
        }
    }

    pub(crate) fn judge(&self) -> Judgement {
        match self {
            Self::Off => Judgement::Right,
            Self::Failed => Judgement::Wrong("server's"),
            Self::Known(verifier) if verifier.is_right() => Judgement::Right,
            Self::Known(verifier) => Judgement::Wrong(verifier.expected().name()),
            Self::Late { hasher, .. } if hasher.fits_e_tag() => Judgement::Right,
            Self::Late { hasher, asks, e_tags } => {
                let is_in_doubt = *asks || (hasher.md5().is_some() && e_tags.may_be_md5s());
                if is_in_doubt { Judgement::Open } else { Judgement::Right }
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Off | Self::Failed => {}
            Self::Known(verifier) => verifier.update(bytes),
            Self::Late { hasher, .. } => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_does_not_end_the_doubt() {
        let e_tags = ETags::default();
        (0..5).for_each(|_| e_tags.note_other("s3://bucket/a"));
        assert!(e_tags.may_be_md5s());
        e_tags.note_other("s3://bucket/b");
        assert!(e_tags.may_be_md5s());
        e_tags.note_other("s3://bucket/c");
        assert!(!e_tags.may_be_md5s());
    }
}
