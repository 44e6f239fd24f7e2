//! Requests that delete several objects, and whether a server supports them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use cloud_http::{BatchAnswer, Refusal};
use object_store::path::Path;
use parking_lot::Mutex;

use crate::error::{Answer, StorageError};

/// Number of bulk requests that fail with 500, one after the other, after which single requests are tried:
/// some servers answer so to a request that they do not know.
const FAILURES: usize = 3;

/// Number of bulk requests that are replaced by single ones after a refusal that need not be permanent.
const PAUSE: usize = 20;

/// Number of times that the size of bulk requests is halved for a slow server.
const HALVINGS: usize = 5;
/// Number of answered bulk requests after which their size is doubled again.
const ANSWERS: usize = 4;

/// A client that can delete several objects with one request.
#[async_trait]
pub trait BulkDelete: Send + Sync {
    /// Maximum number of objects in one request.
    fn limit(&self) -> usize;

    /// Sends one request. Returns a result for each name, in their order.
    ///
    /// # Errors
    ///
    /// If the request as a whole fails.
    async fn delete_many(&self, names: &[Path]) -> object_store::Result<Vec<Deletion>>;
}

impl fmt::Debug for dyn BulkDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkDelete")
    }
}

/// What the answer to a bulk request says about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// The object is deleted, or there was none.
    Done,
    /// The server refuses to delete the object.
    Refused(Answer),
    /// The answer leaves it open. A request for this object alone follows.
    Unclear,
}

impl Deletion {
    /// Converts the answers in a batch for `count` objects, which have the numbers from 0. `is_missing` tells a
    /// missing object from a missing bucket.
    pub fn of_batch(count: usize, answers: Vec<BatchAnswer>, is_missing: fn(&Refusal) -> bool) -> Vec<Self> {
        let mut deletions = vec![Self::Unclear; count];
        for BatchAnswer { id, status, refusal } in answers {
            let Some(deletion) = id.and_then(|id| deletions.get_mut(id)) else { continue };
            *deletion = match status {
                200..300 => Self::Done,
                404 if is_missing(&refusal) => Self::Done,
                404 => Self::Unclear,
                _ => {
                    let Refusal { code, message, request_id } = refusal;
                    Self::Refused(Answer { status, code, message, request_id })
                }
            };
        }
        deletions
    }
}

/// What is known about a server's support of bulk requests.
#[derive(Debug, Default)]
pub(crate) struct BulkSupport {
    /// Number of bulk requests to replace by single ones, `usize::MAX` for all.
    replaced: AtomicUsize,
    /// Whether the log says that bulk requests are replaced.
    is_logged: AtomicBool,
    /// Number of bulk requests that failed with 500 since the last one that did not.
    failures: AtomicUsize,
    pace: Mutex<Pace>,
}

/// The size of bulk requests. A server that takes too long for the largest ones would never answer.
#[derive(Debug, Default)]
struct Pace {
    halvings: usize,
    answers: usize,
}

impl BulkSupport {
    /// Returns the number of objects in the next request, at most `limit`.
    pub(crate) fn size(&self, limit: usize) -> usize {
        (limit >> self.pace.lock().halvings).max(2)
    }

    /// Records whether the server took too long for a request.
    pub(crate) fn note_pace(&self, too_slow: bool) {
        let mut pace = self.pace.lock();
        if too_slow {
            *pace = Pace { halvings: (pace.halvings + 1).min(HALVINGS), answers: 0 };
            return;
        }
        pace.answers += 1;
        if pace.answers == ANSWERS {
            *pace = Pace { halvings: pace.halvings.saturating_sub(1), answers: 0 };
        }
    }

    /// Whether to send single requests instead of the next bulk request.
    pub(crate) fn replaces_next(&self) -> bool {
        let one_less = |left| if left == usize::MAX { Some(left) } else { usize::checked_sub(left, 1) };
        self.replaced.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Records that single requests succeed where a bulk request failed: `forever` if the server does not know bulk
    /// requests. Returns whether this is new.
    pub(crate) fn replace(&self, forever: bool) -> bool {
        self.replaced.fetch_max(if forever { usize::MAX } else { PAUSE }, Ordering::Relaxed);
        !self.is_logged.swap(true, Ordering::Relaxed)
    }

    /// Records the failure of a bulk request, if it failed. Returns whether bulk requests may never succeed.
    pub(crate) fn fails_always(&self, error: Option<&StorageError>) -> bool {
        if error.and_then(StorageError::status) != Some(500) {
            self.failures.store(0, Ordering::Relaxed);
            return false;
        }
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_requests_are_tried_again_unless_they_are_unknown() {
        let support = BulkSupport::default();
        assert!(!support.replaces_next());
        assert!(support.replace(false));
        for _ in 0..PAUSE {
            assert!(support.replaces_next());
        }
        assert!(!support.replaces_next());
        assert!(!support.replace(true));
        for _ in 0..=PAUSE {
            assert!(support.replaces_next());
        }
    }

    #[test]
    fn answers_of_a_batch_belong_to_objects_by_their_numbers() {
        let answer = |id, status, code: &str| {
            let refusal = Refusal { code: Some(code.to_owned()), ..Refusal::default() };
            BatchAnswer { id, status, refusal }
        };
        let refused = |status, code: &str| {
            Deletion::Refused(Answer { status, code: Some(code.to_owned()), ..Answer::default() })
        };
        let answers = vec![
            answer(Some(4), 412, "LeaseIdMissing"),
            answer(Some(0), 202, ""),
            answer(Some(1), 404, "BlobNotFound"),
            answer(Some(2), 404, "ContainerNotFound"),
            answer(Some(3), 503, "ServerBusy"),
            answer(Some(9), 202, ""),
            answer(None, 202, ""),
        ];
        let expected = [
            Deletion::Done,
            Deletion::Done,
            Deletion::Unclear,
            refused(503, "ServerBusy"),
            refused(412, "LeaseIdMissing"),
            Deletion::Unclear,
        ];
        let is_missing = |refusal: &Refusal| refusal.code.as_deref() == Some("BlobNotFound");
        assert_eq!(Deletion::of_batch(6, answers, is_missing), expected);
    }
}
