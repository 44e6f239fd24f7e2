//! Faults: what goes wrong with which requests, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::operation::{Operation, Target};

/// Something that goes wrong with one request. Bytes are those of the body, without headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is read to its end and refused; nothing is stored or removed.
    Status {
        /// HTTP status, for example 503. An impossible one becomes 500.
        code: u16,
        /// `Code` in the error document, for example `SlowDown` or `InternalError`.
        s3_code: String,
        /// `Retry-After`, in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// The request is carried out, but the connection closes instead of an answer.
    CloseBeforeResponse,
    /// The connection is reset when at least so many bytes of the request's body were read; with 0, when the headers
    /// were. Nothing is stored.
    CloseAfterRequestBytes(u64),
    /// The server stops to read when it has so many bytes of the request's body, and never answers.
    StallRequestAfter(u64),
    /// The connection is reset (RST) after so many bytes of the answer's body. A client that lags may see fewer. A
    /// body that is not longer is sent as it is.
    ResetAfterResponseBytes(u64),
    /// The connection is closed in order (FIN) after exactly so many bytes of the answer's body, of which more were
    /// promised. A body that is not longer is sent as it is.
    CloseAfterResponseBytes(u64),
    /// Nothing comes after so many bytes of the answer's body, but the connection stays open. A body that is not
    /// longer is sent as it is; to stall before the headers, use a long [`Fault::Delay`].
    StallResponseAfter(u64),
    /// The request is carried out at once and answered so much later.
    Delay(Duration),
    /// The byte at this offset of the answer's body is flipped. Beyond its end nothing is.
    CorruptResponseByte(u64),
    /// The answer has no `ETag` header.
    DropEtag,
    /// The object has this content when the request is carried out, as if someone else had just put it.
    ReplaceObject(Bytes),
}

impl Fault {
    /// 503 `SlowDown` without `Retry-After`.
    #[must_use]
    pub fn slow_down() -> Self {
        Self::status(503, "SlowDown")
    }

    /// A status with an error code and without `Retry-After`.
    #[must_use]
    pub fn status(code: u16, s3_code: &str) -> Self {
        Self::Status { code, s3_code: s3_code.to_owned(), retry_after_seconds: None }
    }
}

/// Which requests meet a fault. [`FaultRule::new`] means the next request of any kind, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// Only this operation. Note that whole and ranged `GET`s are two.
    pub operation: Option<Operation>,
    /// Only keys that contain this.
    pub key_contains: Option<String>,
    /// So many matching requests pass first.
    pub skip: usize,
    /// So many requests after those meet the fault; `usize::MAX` for all.
    pub times: usize,
    /// What they meet.
    pub fault: Fault,
}

impl FaultRule {
    /// The next request, once.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { operation: None, key_contains: None, skip: 0, times: 1, fault }
    }

    /// Only requests for this operation.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only keys that contain this.
    #[must_use]
    pub fn key_contains(mut self, part: impl Into<String>) -> Self {
        self.key_contains = Some(part.into());
        self
    }

    /// Lets so many matching requests pass first.
    #[must_use]
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// How many requests meet the fault; `usize::MAX` for all.
    #[must_use]
    pub fn times(mut self, requests: usize) -> Self {
        self.times = requests;
        self
    }
}

/// The rules of a server, in the order they were pushed.
///
/// A request meets at most one rule: the first that matches it and is neither skipping nor spent. Rules before that
/// one count it as passed, rules after it do not see it.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Arc<Armed>>>,
}

#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    matched: AtomicUsize,
    fired: AtomicUsize,
}

/// Tells how often a rule fired, even after it was removed.
#[derive(Debug, Clone)]
pub struct PushedRule(Arc<Armed>);

impl PushedRule {
    /// Requests that met the fault.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.0.fired.load(Ordering::SeqCst)
    }
}

impl Faults {
    /// Adds a rule after the others.
    pub fn push(&self, rule: FaultRule) -> PushedRule {
        let armed = Arc::new(Armed { rule, matched: AtomicUsize::new(0), fired: AtomicUsize::new(0) });
        self.rules.lock().push(Arc::clone(&armed));
        PushedRule(armed)
    }

    /// Removes one rule, fired or not.
    pub fn remove(&self, pushed: &PushedRule) {
        self.rules.lock().retain(|rule| !Arc::ptr_eq(rule, &pushed.0));
    }

    /// Removes every rule.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// The fault that a request meets.
    pub(crate) fn meet(&self, target: &Target) -> Option<Fault> {
        // The lock is held so that requests at the same time are counted one after the other.
        let rules = self.rules.lock();
        rules.iter().find_map(|armed| {
            let rule = &armed.rule;
            if !matches(target, rule.operation, rule.key_contains.as_deref()) {
                return None;
            }
            let passed = armed.matched.fetch_add(1, Ordering::SeqCst);
            if passed < rule.skip || passed - rule.skip >= rule.times {
                return None;
            }
            armed.fired.fetch_add(1, Ordering::SeqCst);
            Some(rule.fault.clone())
        })
    }
}

/// Whether a request is of an operation and has a part in its key, as far as either is asked for.
pub(crate) fn matches(target: &Target, operation: Option<Operation>, key_contains: Option<&str>) -> bool {
    operation.is_none_or(|operation| operation == target.operation)
        && key_contains.is_none_or(|part| target.key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(operation: Operation, key: &str) -> Target {
        Target { bucket: "bucket".to_owned(), key: key.to_owned(), operation }
    }

    #[test]
    fn a_rule_skips_then_fires_then_is_spent() {
        let faults = Faults::default();
        let rule =
            FaultRule::new(Fault::DropEtag).on(Operation::GetObject).key_contains("a").skip(1).times(2);
        let pushed = faults.push(rule);
        let get = target(Operation::GetObject, "bar");
        assert_eq!(faults.meet(&target(Operation::PutObject, "bar")), None);
        assert_eq!(faults.meet(&target(Operation::GetObject, "foo")), None);
        let met: Vec<bool> = (0..5).map(|_| faults.meet(&get).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        assert_eq!(pushed.fired(), 2);
    }

    #[test]
    fn a_request_meets_the_first_rule_that_is_not_spent() {
        let faults = Faults::default();
        let first = faults.push(FaultRule::new(Fault::DropEtag));
        let second = faults.push(FaultRule::new(Fault::CloseBeforeResponse).times(usize::MAX));
        let get = target(Operation::GetObject, "k");
        assert_eq!(faults.meet(&get), Some(Fault::DropEtag));
        assert_eq!(faults.meet(&get), Some(Fault::CloseBeforeResponse));
        assert_eq!(faults.meet(&get), Some(Fault::CloseBeforeResponse));
        assert_eq!((first.fired(), second.fired()), (1, 2));
        faults.remove(&second);
        assert_eq!(faults.meet(&get), None);
    }
}
