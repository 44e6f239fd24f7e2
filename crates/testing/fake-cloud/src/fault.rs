//! Faults: rules that make requests fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::odd::Odd;
use crate::operation::{Operation, Target};

/// A way in which one request fails. Numbers of bytes count the body only, without headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server reads the whole request and refuses it; nothing is stored or removed.
    Status {
        /// HTTP status, for example 503. An invalid one becomes 500.
        code: u16,
        /// `Code` in the error document, for example `SlowDown` or `InternalError`.
        s3_code: String,
        /// `Retry-After`, in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// The server reads the whole request, and answers with status 200 and a document about an error with this code;
    /// nothing is stored or removed.
    ErrorInSuccess(String),
    /// The request is carried out, but the connection closes instead of an answer.
    CloseBeforeResponse,
    /// The connection is reset after the server has read at least this many bytes of the request's body; with
    /// 0, after the headers. Nothing is stored.
    CloseAfterRequestBytes(u64),
    /// The server stops reading after this many bytes of the request's body, and never answers.
    StallRequestAfter(u64),
    /// The connection is reset (RST) after this many bytes of the answer's body. A slow client may see fewer.
    /// A body that is not longer is sent unchanged.
    ResetAfterResponseBytes(u64),
    /// The connection is closed in order (FIN) after exactly this many bytes of the answer's body, although
    /// the headers announced more. A body that is not longer is sent unchanged.
    CloseAfterResponseBytes(u64),
    /// The server sends nothing after this many bytes of the answer's body and keeps the connection open. A
    /// body that is not longer is sent unchanged. To stall before the headers, use a long [`Fault::Delay`].
    StallResponseAfter(u64),
    /// The request is carried out at once and answered after this delay.
    Delay(Duration),
    /// The byte at this offset of the answer's body is inverted. Offsets beyond the end have no effect.
    CorruptResponseByte(u64),
    /// The answer has no `ETag` header.
    DropEtag,
    /// The answer is one that other makes of servers and proxies give.
    Odd(Odd),
    /// The same, and the connection is closed in order after this many bytes of the answer's body.
    OddAndCut(Odd, u64),
    /// The object is replaced by this content just before the request is carried out.
    ReplaceObject(Bytes),
    /// The server stores this content in place of that in the request, and answers with its checksums.
    StoreInstead(Bytes),
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

/// A fault, and the requests that meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    operation: Option<Operation>,
    key: Option<String>,
    skip: usize,
    every: usize,
    times: usize,
    fault: Fault,
}

impl FaultRule {
    /// Applies to the next request of any kind, once.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { operation: None, key: None, skip: 0, every: 1, times: 1, fault }
    }

    /// Applies only to this operation. Whole and ranged `GET`s are two operations.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Applies only to keys that contain `text`.
    #[must_use]
    pub fn key(mut self, text: impl Into<String>) -> Self {
        self.key = Some(text.into());
        self
    }

    /// Number of matching requests that pass first.
    #[must_use]
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Applies only to every `requests`-th matching request after those that pass first, beginning with the first of
    /// them; 0 is the same as 1.
    #[must_use]
    pub fn every(mut self, requests: usize) -> Self {
        self.every = requests.max(1);
        self
    }

    /// Number of requests that meet the fault; `usize::MAX` for all.
    #[must_use]
    pub fn times(mut self, requests: usize) -> Self {
        self.times = requests;
        self
    }
}

/// The fault rules of a server, in the order of insertion.
///
/// A request meets at most one rule: the first one that matches and is neither skipping nor used up. Rules
/// before that one count the request as passed; rules after it do not see the request.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<ActiveRule>>,
}

#[derive(Debug)]
struct ActiveRule {
    rule: FaultRule,
    matched: usize,
    fired: Arc<AtomicUsize>,
}

/// The counter of a rule, which remains after the rule was removed.
#[derive(Debug, Clone)]
pub struct PushedRule(Arc<AtomicUsize>);

impl PushedRule {
    /// Returns the number of requests that met the fault.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Faults {
    /// Adds a rule after the others.
    pub fn push(&self, rule: FaultRule) -> PushedRule {
        let fired = Arc::new(AtomicUsize::new(0));
        self.rules.lock().push(ActiveRule { rule, matched: 0, fired: Arc::clone(&fired) });
        PushedRule(fired)
    }

    /// Removes every rule.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// Returns the fault that a request meets.
    pub(crate) fn meet(&self, target: &Target) -> Option<Fault> {
        self.rules.lock().iter_mut().find_map(|active| {
            let FaultRule { operation, key, skip, every, times, fault } = &active.rule;
            let is_other_operation = operation.is_some_and(|operation| operation != target.operation);
            if is_other_operation || key.as_ref().is_some_and(|key| !target.key.contains(key)) {
                return None;
            }
            let passed = active.matched;
            active.matched += 1;
            let number = passed.checked_sub(*skip)?;
            if number % every != 0 || number / every >= *times {
                return None;
            }
            active.fired.fetch_add(1, Ordering::SeqCst);
            Some(fault.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(operation: Operation) -> Target {
        Target { bucket: "bucket".to_owned(), key: "a/key".to_owned(), operation }
    }

    #[test]
    fn rule_skips_then_fires_then_is_used_up() {
        let faults = Faults::default();
        let rule = FaultRule::new(Fault::DropEtag).on(Operation::GetObject).skip(1).times(2);
        let pushed = faults.push(rule);
        assert_eq!(faults.meet(&target(Operation::PutObject)), None);
        let met: Vec<bool> = (0..5).map(|_| faults.meet(&target(Operation::GetObject)).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        assert_eq!(pushed.fired(), 2);
    }

    #[test]
    fn rule_fires_for_a_share_of_the_requests() {
        let faults = Faults::default();
        let pushed = faults.push(FaultRule::new(Fault::DropEtag).skip(1).every(3).times(2));
        let met: Vec<bool> = (0..9).map(|_| faults.meet(&target(Operation::GetObject)).is_some()).collect();
        assert_eq!(met, [false, true, false, false, true, false, false, false, false]);
        assert_eq!(pushed.fired(), 2);
    }

    #[test]
    fn rule_for_a_key_passes_others() {
        let faults = Faults::default();
        let other = faults.push(FaultRule::new(Fault::DropEtag).key("other"));
        let this = faults.push(FaultRule::new(Fault::CloseBeforeResponse).key("key"));
        assert_eq!(faults.meet(&target(Operation::GetObject)), Some(Fault::CloseBeforeResponse));
        assert_eq!([other.fired(), this.fired()], [0, 1]);
    }

    #[test]
    fn request_meets_first_rule_that_is_not_used_up() {
        let faults = Faults::default();
        let first = faults.push(FaultRule::new(Fault::DropEtag));
        let second = faults.push(FaultRule::new(Fault::CloseBeforeResponse).times(usize::MAX));
        let met = [(); 3].map(|()| faults.meet(&target(Operation::GetObject)));
        let expected = [Fault::DropEtag, Fault::CloseBeforeResponse, Fault::CloseBeforeResponse];
        assert_eq!(met, expected.map(Some));
        assert_eq!([first.fired(), second.fired()], [1, 2]);
        faults.clear();
        assert_eq!(faults.meet(&target(Operation::GetObject)), None);
    }
}
