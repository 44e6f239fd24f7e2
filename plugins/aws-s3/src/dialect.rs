//! What a server of S3's protocol understands, learnt from its refusals.
//!
//! Each property costs at most one refused request, since it is remembered as long as the process runs. It changes only
//! when a request that is sent otherwise is accepted: many refusals have texts that only look as if they were about it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket::Dialect;
use cloud_http::Clock;
use http::{StatusCode, Uri};
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
/// Maximum number of uploads in parts whose protection is remembered: more than are made at the same time.
const MOST_UPLOADS: usize = 1000;

/// How the content of an upload is protected against damage on its way, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
    /// As in [`Terms`], if the request was signed with another one.
    pub(crate) clock_offset: Option<i64>,
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Time,
    Checksums,
    Other,
}

/// What is known of one server, shared by all clients of one bucket.
#[derive(Debug)]
pub(crate) struct ServerDialect {
    bucket: String,
    /// Whether the protection may change.
    auto: bool,
    clock: Clock,
    /// Whether a permanent redirect was reported.
    moved: AtomicBool,
    learnt: Mutex<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    protection: Protection,
    asks_for_checksum: bool,
    changes: usize,
    /// Whether an upload with this protection was accepted.
    protection_works: bool,
    /// Whether a read that asked for a checksum was accepted, or was refused without asking too.
    asking_works: bool,
    /// The ids and protections of the latest uploads in parts. The protection is fixed when they begin.
    uploads: VecDeque<(String, Protection)>,
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
        let learnt = Learnt {
            protection: fixed.unwrap_or(Protection::Crc64Nvme),
            asks_for_checksum: fixed != Some(Protection::None),
            changes: 0,
            protection_works: false,
            asking_works: false,
            uploads: VecDeque::new(),
        };
        Self {
            bucket: bucket.to_owned(),
            auto: fixed.is_none(),
            clock: Clock::default(),
            moved: AtomicBool::new(false),
            learnt: Mutex::new(learnt),
        }
    }

    /// The terms for the next request.
    pub(crate) fn terms(&self, kind: &Kind) -> Terms {
        let learnt = self.learnt.lock();
        Terms {
            protection: learnt.bound(kind).unwrap_or(learnt.protection),
            asks_for_checksum: learnt.asks_for_checksum,
            clock_offset: self.clock.offset(),
        }
    }

    /// Records that an upload in parts has begun on these terms.
    pub(crate) fn upload_began(&self, id: String, terms: Terms) {
        if self.auto {
            let uploads = &mut self.learnt.lock().uploads;
            uploads.truncate(MOST_UPLOADS - 1);
            uploads.push_front((id, terms.protection));
        }
    }

    /// Reports that the server redirects to `target` for good.
    pub(crate) fn moved(&self, target: &Uri) {
        if let (Some(scheme), Some(server)) = (target.scheme(), target.authority())
            && !self.moved.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{} permanently redirects requests, so that each one is sent twice: set \"Endpoint\" to \
                 {scheme}://{server}",
                self.bucket
            );
        }
    }

    /// Judges the answer to a request that was sent on `terms`. Returns the terms on which the request may be accepted:
    /// callers try them, and report the outcome to [`conclude`](Self::conclude).
    pub(crate) fn judge(&self, kind: &Kind, terms: Terms, reply: &Reply) -> Option<Terms> {
        if !matches!(reply.status.as_u16(), 400 | 401 | 403 | 501) {
            self.note_acceptance(kind, terms, reply.status);
            return None;
        }
        // Servers use several codes for a wrong time, and `HEAD` has none.
        if let Some(clock_offset) = reply.clock_offset.filter(|_| reply.status != StatusCode::NOT_IMPLEMENTED)
        {
            return Some(Terms { clock_offset, ..terms });
        }
        if reply.code == SKEWED {
            // The request waited for a connection after it had been signed.
            return Some(terms);
        }
        if OTHER_REASONS.contains(&reply.code.as_str()) || reply.text().contains("not match") {
            return None;
        }
        match kind {
            Kind::Upload { .. } | Kind::Begin | Kind::Completion { .. } if self.auto => {
                self.judge_protection(kind, terms, reply)
            }
            Kind::Read { head } if terms.asks_for_checksum => self.judge_asking(*head, terms, reply),
            _ => None,
        }
    }

    /// Makes terms permanent that were tried after refusals, if `last`, the final answer, shows that they were the reason.
    pub(crate) fn conclude(&self, tried: &[(Terms, Reply)], last: &Reply) {
        for (terms, refused) in tried {
            if refused.is_mended_by(last) {
                self.adopt(*terms, refused);
            } else if !terms.asks_for_checksum && last.status.is_client_error() {
                self.learnt.lock().asking_works = true;
            }
        }
    }

    fn adopt(&self, terms: Terms, refused: &Reply) {
        self.clock.correct(terms.clock_offset);
        let mut learnt = self.learnt.lock();
        let stops_asking = learnt.asks_for_checksum && !terms.asks_for_checksum;
        learnt.asks_for_checksum &= terms.asks_for_checksum;
        drop(learnt);
        if stops_asking {
            warn_of_reads(&self.bucket, refused);
        }
        if self.auto {
            self.change_protection(terms.protection, refused);
        }
    }

    fn note_acceptance(&self, kind: &Kind, terms: Terms, status: StatusCode) {
        let mut learnt = self.learnt.lock();
        match kind {
            Kind::Upload { .. } if status.is_success() => {
                learnt.protection_works |= terms.protection == learnt.protection;
            }
            Kind::Read { .. } if !status.is_server_error() => learnt.asking_works = true,
            _ => {}
        }
    }

    fn judge_protection(&self, kind: &Kind, terms: Terms, reply: &Reply) -> Option<Terms> {
        let learnt = self.learnt.lock();
        let current = learnt.protection;
        let works = learnt.protection_works;
        let is_bound = learnt.bound(kind).is_some();
        drop(learnt);
        let next = terms.protection.next()?;
        let is_named = terms.protection.is_named_in(&reply.text());
        if is_bound {
            // Parts have the checksum that was announced when their upload began. The whole upload is repeated instead.
            if is_named && current == terms.protection {
                self.change_protection(next, reply);
            }
            return None;
        }
        let protection = next.max(current);
        (is_named || (reply.names_some_header() && !works)).then_some(Terms { protection, ..terms })
    }

    fn change_protection(&self, next: Protection, reply: &Reply) {
        let mut learnt = self.learnt.lock();
        // Of several uploads that are refused at once, the first one gets here.
        if learnt.protection.next() != Some(next) {
            return;
        }
        let refused = std::mem::replace(&mut learnt.protection, next);
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

    fn judge_asking(&self, head: bool, terms: Terms, reply: &Reply) -> Option<Terms> {
        let works = self.learnt.lock().asking_works;
        // The answer to `HEAD` has no body that could name the header.
        let may_be_about_it = (head || reply.names_some_header()) && !works;
        let is_about_it = may_be_about_it || reply.text().contains("checksum");
        is_about_it.then_some(Terms { asks_for_checksum: false, ..terms })
    }
}

impl Learnt {
    /// The protection of the upload in parts that a request belongs to.
    fn bound(&self, kind: &Kind) -> Option<Protection> {
        let id = kind.upload_id()?;
        self.uploads.iter().find(|(known, _)| known == id).map(|(_, protection)| *protection)
    }
}

impl Dialect for ServerDialect {
    fn changes(&self) -> usize {
        self.learnt.lock().changes
    }

    fn returns_checksums(&self) -> bool {
        self.learnt.lock().asks_for_checksum
    }
}

impl Reply {
    /// Whether the server may have refused the request because of the dialect, or failed.
    fn is_refusal(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 401 | 403 | 500..)
    }

    /// Whether the reason of this refusal is gone: `reply`, the answer on other terms, has none or a different one.
    fn is_mended_by(&self, reply: &Self) -> bool {
        let subject = self.subject();
        let is_different = || subject != Subject::Other && subject != reply.subject();
        !reply.is_refusal() || (reply.status.is_client_error() && is_different())
    }

    fn subject(&self) -> Subject {
        let text = self.text();
        if self.code == SKEWED {
            Subject::Time
        } else if Protection::Crc64Nvme.is_named_in(&text) {
            Subject::Checksums
        } else {
            Subject::Other
        }
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

#[cfg(test)]
mod tests;
