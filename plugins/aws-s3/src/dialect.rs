//! What a server of S3's protocol understands, learnt from its refusals.
//!
//! Each property costs at most one refused request, since it is remembered as long as the process runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket::Dialect;
use http::StatusCode;
use parking_lot::Mutex;

use crate::request::Kind;

/// Codes of refusals that are not about the dialect, although their texts may name a checksum.
const OTHER_REASONS: [&str; 6] = [
    "BadDigest",
    "InvalidDigest",
    "SignatureDoesNotMatch",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
    "NoSuchUpload",
];
/// The code of a request that was signed with a wrong time.
const SKEWED: &str = "RequestTimeTooSkewed";
/// Clocks that differ by less are not the reason of a refusal. The limit of AWS is 15 minutes.
const TOLERANCE: Duration = Duration::from_secs(4 * 60);

/// Dates of a server that are farther away are not believed, nor can all of them be signed with: 100 years.
const FARTHEST: u64 = 100 * 366 * 24 * 3600;

/// How the content of an upload is protected against damage on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Crc64Nvme,
    Sha256,
    /// `Content-MD5`, which nearly every server knows, and some demand.
    Md5,
    None,
}

impl Protection {
    /// The one to try after a refusal.
    fn next(self) -> Option<Self> {
        match self {
            Self::Crc64Nvme | Self::Sha256 => Some(Self::Md5),
            Self::Md5 => Some(Self::None),
            Self::None => None,
        }
    }

    /// Whether a server's text is about the headers of this one.
    fn is_named_in(self, text: &str) -> bool {
        // `MissingContentMD5` is a code.
        let names_md5 = text.contains("content-md5") || text.contains("contentmd5");
        match self {
            Self::Crc64Nvme | Self::Sha256 => text.contains("checksum") || names_md5,
            Self::Md5 => names_md5,
            Self::None => false,
        }
    }
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) protection: Protection,
    /// Whether reads ask for the object's checksum.
    pub(crate) asks_for_checksum: bool,
    /// Seconds by which the server's clock is ahead of this machine's.
    pub(crate) clock_offset: i64,
}

/// The parts of a server's answer that show why it refuses a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
    /// The server's time.
    pub(crate) date: Option<SystemTime>,
}

/// What to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer stands.
    Final,
    /// A property was learnt: the request is repeated.
    Again,
    /// The property may be the reason. The request is repeated on other terms, which [`ServerDialect::adopt`] makes
    /// permanent if they are accepted.
    Try(Terms),
}

/// What is known of one server, shared by all clients of one bucket.
#[derive(Debug)]
pub(crate) struct ServerDialect {
    bucket: String,
    /// Whether the protection may change.
    auto: bool,
    learnt: Mutex<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    terms: Terms,
    changes: usize,
    /// Whether an upload with this protection was accepted.
    protection_works: bool,
    /// Whether a read that asked for a checksum was accepted.
    asking_works: bool,
    /// The protection of uploads in parts, which is fixed when they begin.
    uploads: HashMap<String, Protection>,
}

/// The dialects that are known, by bucket and configuration. They outlive `POST /tools/reset`.
static KNOWN: Mutex<BTreeMap<String, Arc<ServerDialect>>> = Mutex::new(BTreeMap::new());

impl ServerDialect {
    /// Returns what is known of the server at the URL `bucket`. `fixed` is the configured protection, `None` for the best
    /// one that the server understands.
    pub(crate) fn of(bucket: &str, fixed: Option<Protection>) -> Arc<Self> {
        let key = format!("{bucket} {fixed:?}");
        Arc::clone(KNOWN.lock().entry(key).or_insert_with(|| Arc::new(Self::new(bucket, fixed))))
    }

    fn new(bucket: &str, fixed: Option<Protection>) -> Self {
        let terms = Terms {
            protection: fixed.unwrap_or(Protection::Crc64Nvme),
            asks_for_checksum: fixed != Some(Protection::None),
            clock_offset: 0,
        };
        let learnt = Learnt {
            terms,
            changes: 0,
            protection_works: false,
            asking_works: false,
            uploads: HashMap::new(),
        };
        Self { bucket: bucket.to_owned(), auto: fixed.is_none(), learnt: Mutex::new(learnt) }
    }

    /// The terms for the next request.
    pub(crate) fn terms(&self, kind: &Kind) -> Terms {
        let learnt = self.learnt.lock();
        let bound = kind.upload_id().and_then(|id| learnt.uploads.get(id));
        Terms { protection: *bound.unwrap_or(&learnt.terms.protection), ..learnt.terms }
    }

    /// Records that an upload in parts has begun on these terms.
    pub(crate) fn upload_began(&self, id: String, terms: Terms) {
        if self.auto {
            self.learnt.lock().uploads.insert(id, terms.protection);
        }
    }

    /// Records that an upload in parts has ended.
    pub(crate) fn upload_ended(&self, id: &str) {
        self.learnt.lock().uploads.remove(id);
    }

    /// Judges the answer to a request that was sent on `terms` at `sent`.
    pub(crate) fn judge(&self, kind: &Kind, terms: Terms, reply: &Reply, sent: SystemTime) -> Verdict {
        if !matches!(reply.status.as_u16(), 400 | 401 | 403 | 501) {
            self.note_acceptance(kind, terms, reply.status);
            return Verdict::Final;
        }
        if let Some(verdict) = self.judge_clock(terms, reply, sent) {
            return verdict;
        }
        if OTHER_REASONS.contains(&reply.code.as_str()) || reply.text().contains("not match") {
            return Verdict::Final;
        }
        match kind {
            Kind::Upload { .. } | Kind::Begin | Kind::Completion { .. } if self.auto => {
                self.judge_protection(kind, terms, reply)
            }
            Kind::Read { head } if terms.asks_for_checksum => self.judge_asking(*head, terms, reply),
            _ => Verdict::Final,
        }
    }

    /// Makes terms permanent that were tried after `refused`, and are accepted.
    pub(crate) fn adopt(&self, terms: Terms, refused: &Reply) {
        if let Some(offset) = self.set_clock(terms.clock_offset) {
            warn_of_clock(&self.bucket, offset);
        }
        let mut learnt = self.learnt.lock();
        let stops_asking = learnt.terms.asks_for_checksum && !terms.asks_for_checksum;
        learnt.terms.asks_for_checksum &= terms.asks_for_checksum;
        let changed = learnt.terms.protection.next() == Some(terms.protection);
        drop(learnt);
        if stops_asking {
            warn_of_reads(&self.bucket, refused);
        }
        if changed && self.auto {
            self.change_protection(terms.protection, refused);
        }
    }

    fn note_acceptance(&self, kind: &Kind, terms: Terms, status: StatusCode) {
        let mut learnt = self.learnt.lock();
        match kind {
            Kind::Upload { .. } if status.is_success() => {
                learnt.protection_works |= terms.protection == learnt.terms.protection;
            }
            Kind::Read { .. } if !status.is_server_error() => learnt.asking_works = true,
            _ => {}
        }
    }

    /// Whether the clock is the reason of a refusal. Servers use several codes for it, and `HEAD` has none.
    fn judge_clock(&self, terms: Terms, reply: &Reply, sent: SystemTime) -> Option<Verdict> {
        let offset = seconds_between(sent, reply.date?);
        let error = Duration::from_secs(offset.abs_diff(terms.clock_offset));
        if error < TOLERANCE || offset.unsigned_abs() > FARTHEST {
            return None;
        }
        if reply.code != SKEWED {
            return Some(Verdict::Try(Terms { clock_offset: offset, ..terms }));
        }
        if let Some(offset) = self.set_clock(offset) {
            warn_of_clock(&self.bucket, offset);
        }
        Some(Verdict::Again)
    }

    /// Returns the offset if it is news.
    fn set_clock(&self, offset: i64) -> Option<i64> {
        let mut learnt = self.learnt.lock();
        let change = Duration::from_secs(learnt.terms.clock_offset.abs_diff(offset));
        if change < TOLERANCE {
            return None;
        }
        learnt.terms.clock_offset = offset;
        Some(offset)
    }

    fn judge_protection(&self, kind: &Kind, terms: Terms, reply: &Reply) -> Verdict {
        let Some(next) = terms.protection.next() else { return Verdict::Final };
        let learnt = self.learnt.lock();
        let is_current = learnt.terms.protection == terms.protection;
        // Parts have the checksum that was announced when their upload began. The whole upload is repeated instead.
        let is_bound = kind.upload_id().is_some_and(|id| learnt.uploads.contains_key(id));
        let works = learnt.protection_works;
        drop(learnt);
        if terms.protection.is_named_in(&reply.text()) {
            if is_current {
                self.change_protection(next, reply);
            }
            return if is_bound { Verdict::Final } else { Verdict::Again };
        }
        if reply.names_some_header() && !works && !is_bound {
            Verdict::Try(Terms { protection: next, ..terms })
        } else {
            Verdict::Final
        }
    }

    fn change_protection(&self, next: Protection, reply: &Reply) {
        let mut learnt = self.learnt.lock();
        // Of several uploads that are refused at once, the first one gets here.
        if learnt.terms.protection.next() != Some(next) {
            return;
        }
        let refused = std::mem::replace(&mut learnt.terms.protection, next);
        learnt.protection_works = false;
        learnt.changes += 1;
        drop(learnt);
        let refused = match refused {
            Protection::Crc64Nvme => "CRC-64/NVME",
            Protection::Sha256 => "SHA-256",
            Protection::Md5 | Protection::None => "MD5",
        };
        let (now, value) = match next {
            Protection::None => ("uploads have no checksum", "none"),
            _ => ("uploads are protected by Content-MD5", "md5"),
        };
        tracing::warn!(
            "{} does not accept uploads with {refused} checksums ({reply}): from now on, {now}; set \"Checksum\": \
             \"{value}\" to begin with that",
            self.bucket
        );
    }

    fn judge_asking(&self, head: bool, terms: Terms, reply: &Reply) -> Verdict {
        let without = Terms { asks_for_checksum: false, ..terms };
        if reply.text().contains("checksum") {
            let mut learnt = self.learnt.lock();
            let is_news = std::mem::replace(&mut learnt.terms.asks_for_checksum, false);
            drop(learnt);
            if is_news {
                warn_of_reads(&self.bucket, reply);
            }
            return Verdict::Again;
        }
        let works = self.learnt.lock().asking_works;
        // The answer to `HEAD` has no body that could name the header.
        if (head || reply.names_some_header()) && !works { Verdict::Try(without) } else { Verdict::Final }
    }
}

impl Dialect for ServerDialect {
    fn changes(&self) -> usize {
        self.learnt.lock().changes
    }

    fn is_known(&self) -> bool {
        !self.auto || self.learnt.lock().protection_works
    }
}

impl Reply {
    /// Whether the server may have refused the request because of the dialect, or failed.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 401 | 403 | 500..)
    }

    /// Whether the refusal is about a header that it does not name. These are AWS' words.
    fn names_some_header(&self) -> bool {
        self.status == StatusCode::NOT_IMPLEMENTED && self.text().contains("a header you provided")
    }

    /// Everything that the server says about the reason, in small letters.
    fn text(&self) -> String {
        format!("{} {}", self.code, self.message).to_ascii_lowercase()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status.as_u16())?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

fn warn_of_reads(bucket: &str, reply: &Reply) {
    tracing::warn!(
        "{bucket} does not return checksums ({reply}): from now on, reads do not ask for them, and the content that the \
         server sends cannot be verified"
    );
}

fn warn_of_clock(bucket: &str, offset: i64) {
    let direction = if offset > 0 { "behind" } else { "ahead of" };
    tracing::warn!(
        "this machine's clock is {} s {direction} that of {bucket}: requests are signed with the server's time from now \
         on; correct this machine's clock",
        offset.unsigned_abs()
    );
}

/// Returns the seconds from one time to another.
fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(later) => seconds(later),
        Err(earlier) => -seconds(earlier.duration()),
    }
}

/// Returns the server's time at `now`.
pub(crate) fn server_time(now: SystemTime, offset: i64) -> SystemTime {
    let difference = Duration::from_secs(offset.unsigned_abs());
    let shifted = if offset < 0 { now.checked_sub(difference) } else { now.checked_add(difference) };
    shifted.unwrap_or(now)
}

#[cfg(test)]
mod tests;
