//! The difference between this machine's clock and a server's.
//!
//! Signatures contain the time, and servers refuse those that are more than some minutes old or in the future.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::DATE;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

/// The smallest difference in seconds that matters. No cloud refuses less.
const TOLERANCE: i64 = 240;
/// Dates of a server that are farther away are not believed, nor can all of them be signed with: 100 years in seconds.
const FARTHEST: i64 = 100 * 366 * 24 * 3600;

/// The clock that signatures are made with: this machine's, corrected by what the server said when it refused one.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Correction>);

#[derive(Debug, Default, Clone, Copy)]
struct Correction {
    /// Seconds to add to this machine's time.
    offset: i64,
    /// When the offset was learnt.
    at: Option<Instant>,
}

impl Correction {
    fn set(&mut self, offset: i64) {
        if !differ(offset, self.offset) {
            return;
        }
        *self = Self { offset, at: Some(Instant::now()) };
        if offset != 0 {
            tracing::warn!("{}; signing requests with the server's time", describe(offset));
        }
    }
}

impl Clock {
    /// Returns the number of seconds by which this machine's clock is behind the server's; 0 unless that matters.
    pub fn offset(&self) -> i64 {
        self.0.lock().offset
    }

    /// Returns the server's time.
    pub fn now(&self) -> SystemTime {
        server_time(self.offset())
    }

    /// Signs with `offset` from now on, which [`correction`] returned and the server accepted.
    pub fn correct(&self, offset: i64) {
        self.0.lock().set(offset);
    }

    /// Takes the server's time from the refusal of a request that was sent at `used`. Returns whether that is a reason to
    /// sign it again.
    pub(crate) fn refused(&self, status: StatusCode, headers: &HeaderMap, used: Instant) -> bool {
        if !is_refusal(status) {
            return false;
        }
        let Some(measured) = measure(headers) else { return false };
        let mut correction = self.0.lock();
        if !differ(measured, correction.offset) {
            // Others were refused with the same former offset.
            return correction.at.is_some_and(|at| at > used);
        }
        correction.set(measured);
        true
    }
}

/// Returns the time of a server whose clock is `offset` seconds ahead of this machine's.
pub fn server_time(offset: i64) -> SystemTime {
    let distance = Duration::from_secs(offset.unsigned_abs());
    let now = SystemTime::now();
    let time = if offset < 0 { now.checked_sub(distance) } else { now.checked_add(distance) };
    time.unwrap_or(now)
}

/// Returns the offset of a server whose answer has just arrived, if the request was signed with another one.
pub fn correction(headers: &HeaderMap, used: i64) -> Option<i64> {
    measure(headers).filter(|offset| differ(*offset, used))
}

fn differ(first: i64, second: i64) -> bool {
    (first - second).abs() >= TOLERANCE
}

/// Returns the difference to the server's clock as part of a message about a refusal, if it may be the cause.
pub(crate) fn advice(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let offset = correction(headers, 0).filter(|_| is_refusal(status))?;
    Some(describe(offset))
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Returns the number of seconds by which this machine's clock is behind the time in `Date`; 0 unless that matters.
fn measure(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let seconds = |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok();
    let offset = seconds(date)?.checked_sub(seconds(SystemTime::now())?)?;
    (offset.abs() <= FARTHEST).then_some(if differ(offset, 0) { offset } else { 0 })
}

fn describe(offset: i64) -> String {
    let minutes = offset.unsigned_abs() / 60;
    let (days, hours, rest) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    let time = match (days, hours) {
        (0, 0) => format!("{rest} min"),
        (0, hours) => format!("{hours} h {rest} min"),
        (days, hours) => format!("{days} d {hours} h"),
    };
    let direction = if offset > 0 { "behind" } else { "ahead of" };
    format!("this machine's clock is {time} {direction} the server's")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(offset: i64) -> HeaderMap {
        let distance = Duration::from_secs(offset.unsigned_abs());
        let time = if offset < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance };
        HeaderMap::from_iter([(DATE, httpdate::fmt_http_date(time).parse().unwrap())])
    }

    #[test]
    fn offset_follows_refusals() {
        let clock = Clock::default();
        let refused = |status, headers| clock.refused(status, &headers, Instant::now());
        let forbidden = StatusCode::FORBIDDEN;
        assert!(!refused(forbidden, HeaderMap::new()));
        assert!(!refused(forbidden, date(100)));
        assert!(!refused(StatusCode::NOT_FOUND, date(7300)));
        assert_eq!(clock.offset(), 0);
        let before = Instant::now();
        assert!(refused(forbidden, date(7300)));
        assert!(clock.refused(forbidden, &date(7300), before), "signed with the former offset");
        assert!(!refused(forbidden, date(7300)), "the time is not the reason any more");
        assert!((7298..=7301).contains(&clock.offset()), "{}", clock.offset());
        let ahead = clock.now().duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((7298..=7301).contains(&ahead), "{ahead}");
        assert!(refused(StatusCode::UNAUTHORIZED, date(-90_000)));
        assert!(clock.now() < SystemTime::now());
        // The machine's clock was set.
        assert!(refused(forbidden, date(0)));
        assert_eq!(clock.offset(), 0);
    }

    #[test]
    fn absurd_dates_are_harmless() {
        for text in ["Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "soon"] {
            let clock = Clock::default();
            let headers = HeaderMap::from_iter([(DATE, text.parse().unwrap())]);
            clock.refused(StatusCode::FORBIDDEN, &headers, Instant::now());
            assert!(clock.offset().abs() <= FARTHEST, "{text}");
            clock.now();
        }
    }

    #[test]
    fn difference_is_described() {
        let text = |offset| advice(StatusCode::FORBIDDEN, &date(offset));
        assert_eq!(text(100), None);
        assert_eq!(text(7330).unwrap(), "this machine's clock is 2 h 2 min behind the server's");
        assert_eq!(text(-310).unwrap(), "this machine's clock is 5 min ahead of the server's");
        assert_eq!(text(-90_100).unwrap(), "this machine's clock is 1 d 1 h ahead of the server's");
        assert_eq!(advice(StatusCode::NOT_FOUND, &date(7330)), None);
    }
}
