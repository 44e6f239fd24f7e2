//! How servers of S3's protocol differ from AWS.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, DATE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use parking_lot::{Mutex, MutexGuard};

use crate::dialect::{AnswerBody, Refusal, full};
use crate::operation::Operation;

/// The quirks of a server, which can be changed while it runs. Clones are the same quirks.
#[derive(Debug, Clone, Default)]
pub struct Quirks(Arc<Mutex<QuirkSettings>>);

impl Quirks {
    /// Returns the quirks for a change.
    pub fn set(&self) -> MutexGuard<'_, QuirkSettings> {
        self.0.lock()
    }
}

/// The differences from AWS, none by default.
#[derive(Debug, Clone, Default)]
pub struct QuirkSettings {
    /// The refusal of requests that have a header for checksums (`x-amz-checksum-…`).
    pub refused_checksums: Option<RefusedChecksums>,
    /// Whether uploads without `Content-MD5` are refused, as in buckets with object lock.
    pub demands_md5: bool,
    /// Whether uploads with `Content-MD5` are refused.
    pub refuses_md5: bool,
    /// Whether reads return checksums that do not belong to the content.
    pub wrong_checksums: bool,
    /// Whether conditional uploads (`If-None-Match`) are refused.
    pub refuses_conditions: bool,
    /// Maximum size of the body of a request, in bytes. Larger ones are refused as by nginx, before they are read.
    pub largest_body: Option<u64>,
    /// The server's clock is this many seconds ahead.
    pub clock_ahead: i64,
}

/// How checksums are refused.
#[derive(Debug, Clone)]
pub struct RefusedChecksums {
    /// The operations that refuse them.
    pub operations: Vec<Operation>,
    /// The HTTP status.
    pub status: u16,
    /// The error code.
    pub code: String,
    /// The message, in which `{}` stands for the header.
    pub message: String,
}

/// The difference of clocks that AWS accepts.
const TOLERANCE: Duration = Duration::from_secs(15 * 60);
const PAGE: &str = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 \
                    Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";

impl QuirkSettings {
    /// Returns the answer to a request that is too large.
    pub(crate) fn too_large(&self, head: &Parts) -> Option<Response<AnswerBody>> {
        let size: u64 = head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        (size > self.largest_body?).then(|| {
            let mut answer = Response::new(full(PAGE));
            *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            answer
        })
    }

    /// Refuses a request. `body` is that of a completion, empty for others.
    pub(crate) fn check(&self, operation: Operation, head: &Parts, body: &[u8]) -> Result<(), Refusal> {
        self.check_clock(head)?;
        let uploads = matches!(operation, Operation::PutObject | Operation::UploadPart);
        let has_md5 = head.headers.contains_key("content-md5");
        if let Some(refused) = &self.refused_checksums
            && refused.operations.contains(&operation)
            && let Some(header) = checksum_header(head, body)
        {
            let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
            return Err(Refusal::new(status, &refused.code, &refused.message.replace("{}", &header)));
        }
        if uploads && self.demands_md5 && !has_md5 {
            return Err(refusal(
                400,
                "InvalidRequest",
                "Missing required header for this request: Content-MD5",
            ));
        }
        if uploads && self.refuses_conditions && head.headers.contains_key("if-none-match") {
            return Err(refusal(501, "NotImplemented", "Conditional writes are not implemented"));
        }
        if uploads && self.refuses_md5 && has_md5 {
            return Err(refusal(501, "NotImplemented", "The header Content-MD5 is not supported"));
        }
        Ok(())
    }

    fn check_clock(&self, head: &Parts) -> Result<(), Refusal> {
        // Requests without a signature are refused later.
        let date = head.headers.get("x-amz-date").and_then(|date| seconds(date.to_str().ok()?));
        let Some(signed) = date else { return Ok(()) };
        let now = self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if signed.abs_diff(now) <= TOLERANCE.as_secs() {
            return Ok(());
        }
        let message = "The difference between the request time and the current time is too large.";
        Err(refusal(403, "RequestTimeTooSkewed", message))
    }

    fn now(&self) -> SystemTime {
        let difference = Duration::from_secs(self.clock_ahead.unsigned_abs());
        if self.clock_ahead < 0 { SystemTime::now() - difference } else { SystemTime::now() + difference }
    }

    /// Adds the server's time.
    pub(crate) fn date(&self, answer: &mut Response<AnswerBody>) {
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(self.now())) {
            answer.headers_mut().insert(DATE, date);
        }
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Refusal {
    Refusal::new(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), code, message)
}

fn checksum_header(head: &Parts, body: &[u8]) -> Option<String> {
    let is_checksum = |name: &&str| name.starts_with("x-amz-checksum-");
    let header = head.headers.keys().map(http::HeaderName::as_str).find(is_checksum).map(str::to_owned);
    let in_body = || {
        let text = String::from_utf8_lossy(body);
        text.contains("<Checksum").then(|| "x-amz-checksum".to_owned())
    };
    header.or_else(in_body)
}

/// Returns the seconds from 1970 to a date like `20261126T120000Z`.
fn seconds(date: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<u64>().ok();
    // Years that begin in March, so that the leap day is the last one.
    let months = number(0..4)? * 12 + number(4..6)? - 3;
    let (year, month) = (months / 12, months % 12);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + number(6..8)? - 1;
    // From March of the year 0 to 1970.
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + number(9..11)?) * 60 + number(11..13)?) * 60 + number(13..15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_from_1970() {
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20240229T235959Z"), Some(1_709_251_199));
        assert_eq!(seconds("20261126T120000Z"), Some(1_795_694_400));
        assert_eq!(seconds("soon"), None);
    }
}
