//! Rehydrations in progress, which Azurite does not have.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use parking_lot::Mutex;

use crate::azure::error;
use crate::dialect::{AnswerBody, Refusal};
use crate::operation::{Operation, Target};

/// Archived blobs that are being moved to another tier, by container and name.
#[derive(Debug, Default)]
pub(crate) struct Rehydrations(Mutex<BTreeMap<(String, String), Rehydration>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rehydration {
    /// The tier that the blob is moved to.
    tier: String,
    is_urgent: bool,
}

impl Rehydration {
    fn of(head: &Parts) -> Self {
        let value = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self {
            tier: value("x-ms-access-tier").to_owned(),
            is_urgent: value("x-ms-rehydrate-priority").eq_ignore_ascii_case("high"),
        }
    }
}

fn refused() -> Refusal {
    let message = "This operation is not permitted because the blob is being rehydrated.";
    Refusal::new(StatusCode::CONFLICT, "BlobBeingRehydrated", message)
}

impl Rehydrations {
    /// Returns the refusal of a Set Blob Tier: only the priority of a blob in progress can be changed, to the higher one.
    pub(crate) fn refusal(&self, head: &Parts, target: &Target) -> Option<Refusal> {
        let pending = self.0.lock().get(&key_of(target)).cloned()?;
        let wanted = Rehydration::of(head);
        let is_faster = wanted.is_urgent && !pending.is_urgent && wanted.tier == pending.tier;
        (!is_faster).then(refused)
    }

    pub(crate) fn begin(&self, head: &Parts, target: &Target) {
        self.0.lock().insert(key_of(target), Rehydration::of(head));
    }

    /// Ends a rehydration. Returns the tier of the blob.
    pub(crate) fn end(&self, bucket: &str, key: &str) -> Option<String> {
        let ended = self.0.lock().remove(&(bucket.to_owned(), key.to_owned()));
        ended.map(|rehydration| rehydration.tier)
    }

    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        let pending = self.0.lock();
        let here = pending.keys().filter(|(container, _)| container == bucket);
        here.map(|(_, key)| key.clone()).collect()
    }

    /// Returns Azure's answer about a blob in progress in place of Azurite's, which is about an archived one.
    pub(crate) fn correct(
        &self,
        mut answer: Response<AnswerBody>,
        head: &Parts,
        target: &Target,
        number: u64,
    ) -> Response<AnswerBody> {
        let Some(pending) = self.0.lock().get(&key_of(target)).cloned() else { return answer };
        let is_read = matches!(target.operation, Operation::GetObject | Operation::GetObjectRange);
        if is_read && answer.status() == StatusCode::CONFLICT {
            return error::answer(head, &refused(), number);
        }
        let status = format!("rehydrate-pending-to-{}", pending.tier.to_lowercase());
        if head.method == Method::HEAD
            && let Ok(status) = HeaderValue::from_str(&status)
        {
            answer.headers_mut().insert("x-ms-archive-status", status);
        }
        answer
    }
}

fn key_of(target: &Target) -> (String, String) {
    (target.bucket.clone(), target.key.clone())
}
