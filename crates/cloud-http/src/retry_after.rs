//! The header `Retry-After`.

use std::time::{Duration, SystemTime};

/// The longest pause that a server may ask for (`Retry-After`).
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Parses `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|letter| letter.is_ascii_digit());
    let pause = if is_number {
        value.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let later = SystemTime::now() + Duration::from_secs(60);
        let parsed = retry_after(&httpdate::fmt_http_date(later)).unwrap();
        assert!((58..=60).contains(&parsed.as_secs()), "{parsed:?}");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        for other in ["soon", "", "-1", "1.5"] {
            assert_eq!(retry_after(other), None, "{other}");
        }
    }

    #[test]
    fn retry_after_is_capped() {
        for huge in
            ["3601", "9999999999999999999", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(retry_after(huge), Some(LONGEST_RETRY_AFTER), "{huge}");
        }
    }
}
