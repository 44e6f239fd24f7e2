//! Archive tiers, whose objects must be restored before they can be read, as reported in answers about an object.
//!
//! | cloud | header | meaning |
//! | --- | --- | --- |
//! | S3 | `x-amz-storage-class: GLACIER` or `DEEP_ARCHIVE` | archived; a restore makes a copy for some days |
//! | S3 | `x-amz-archive-status`, of `INTELLIGENT_TIERING` | archived; a restore moves the object to another tier |
//! | S3 | `x-amz-restore: ongoing-request="true"` | being restored |
//! | S3 | `x-amz-restore: ongoing-request="false", expiry-date="…"` | restored until then |
//! | Azure | `x-ms-access-tier: Archive` | archived; a restore moves the blob to another tier |
//! | Azure | `x-ms-archive-status: rehydrate-pending-to-…` | being restored |
//!
//! Google's archive class can be read at once.

use std::time::SystemTime;

use http::HeaderMap;

/// S3's classes whose objects cannot be read at once.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Whether an object can be read, as far as archive tiers are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArchiveState {
    /// The object is in no archive tier.
    #[default]
    Online,
    /// The object must be restored before it can be read.
    Archived {
        /// Whether a restore makes a copy for some days. Otherwise, it moves the object to another tier.
        makes_copy: bool,
    },
    /// The object is being restored and cannot be read yet.
    Restoring,
    /// The object is archived, and a copy can be read.
    Restored {
        /// When the copy is deleted, if the server says so.
        until: Option<SystemTime>,
    },
}

impl ArchiveState {
    /// Whether the object can be read now.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Online | Self::Restored { .. })
    }

    /// Returns the state in the headers of an answer.
    pub(crate) fn of_answer(headers: &HeaderMap) -> Self {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_moved = value("x-amz-archive-status").is_some_and(|status| !status.is_empty());
        let is_copied = value("x-amz-storage-class").is_some_and(|class| ARCHIVES.contains(&class));
        let is_archived = value("x-ms-access-tier").is_some_and(|tier| tier.eq_ignore_ascii_case("archive"));
        let restore = value("x-amz-restore").unwrap_or_default();
        let rehydration = value("x-ms-archive-status").unwrap_or_default();
        if restore.contains("ongoing-request=\"true\"") || rehydration.starts_with("rehydrate-pending") {
            Self::Restoring
        } else if is_copied && restore.contains("ongoing-request=\"false\"") {
            Self::Restored { until: expiry(restore) }
        } else if is_copied || is_moved || is_archived {
            Self::Archived { makes_copy: is_copied }
        } else {
            Self::Online
        }
    }
}

/// Returns the date in S3's `x-amz-restore`.
fn expiry(restore: &str) -> Option<SystemTime> {
    let (_, rest) = restore.split_once("expiry-date=\"")?;
    let (date, _) = rest.split_once('"')?;
    httpdate::parse_http_date(date).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_of_each_cloud_give_the_state() {
        let date = "Fri, 21 Dec 2012 00:00:00 GMT";
        let until = httpdate::parse_http_date(date).ok();
        let restored = format!("ongoing-request=\"false\", expiry-date=\"{date}\"");
        let class = |class| ("x-amz-storage-class", class);
        let restore = |restore| ("x-amz-restore", restore);
        let ongoing = "ongoing-request=\"true\"";
        let copied = ArchiveState::Archived { makes_copy: true };
        let moved = ArchiveState::Archived { makes_copy: false };
        for (headers, expected) in [
            (vec![], ArchiveState::Online),
            (vec![class("STANDARD_IA")], ArchiveState::Online),
            (vec![class("GLACIER_IR")], ArchiveState::Online),
            (vec![class("GLACIER")], copied),
            (vec![class("DEEP_ARCHIVE")], copied),
            (vec![class("GLACIER"), restore(ongoing)], ArchiveState::Restoring),
            (vec![class("GLACIER"), restore(&restored)], ArchiveState::Restored { until }),
            (
                vec![class("GLACIER"), restore("ongoing-request=\"false\"")],
                ArchiveState::Restored { until: None },
            ),
            (vec![class("INTELLIGENT_TIERING")], ArchiveState::Online),
            (vec![class("INTELLIGENT_TIERING"), restore("ongoing-request=\"false\"")], ArchiveState::Online),
            (vec![class("INTELLIGENT_TIERING"), ("x-amz-archive-status", "ARCHIVE_ACCESS")], moved),
            (vec![("x-amz-archive-status", "ARCHIVE_ACCESS"), restore(ongoing)], ArchiveState::Restoring),
            (vec![("x-ms-access-tier", "Cold")], ArchiveState::Online),
            (vec![("x-ms-access-tier", "Archive")], moved),
            (
                vec![("x-ms-access-tier", "Archive"), ("x-ms-archive-status", "rehydrate-pending-to-hot")],
                ArchiveState::Restoring,
            ),
            (vec![("x-goog-storage-class", "ARCHIVE")], ArchiveState::Online),
        ] {
            let map = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            assert_eq!(ArchiveState::of_answer(&map.collect()), expected, "{headers:?}");
        }
    }
}
