//! Archive tiers with S3's rules. Restores end when the test says so.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use s3s::dto::{
    ArchiveStatus, GlacierJobParameters, HeadObjectOutput, RestoreRequest, StorageClass, Tier,
    TimestampFormat,
};
use s3s::{S3Result, s3_error};

const DAY: Duration = Duration::from_hours(24);
/// From the slowest to the fastest.
const TIERS: [&str; 3] = [Tier::BULK, Tier::STANDARD, Tier::EXPEDITED];
const MOVING: &str = StorageClass::INTELLIGENT_TIERING;

/// An object in an archive tier.
#[derive(Debug, Clone)]
pub(crate) struct Archived {
    class: String,
    restore: Restore,
}

#[derive(Debug, Clone)]
enum Restore {
    None,
    InProgress { days: i32, tier: usize },
    Done { until: SystemTime },
}

impl Archived {
    /// Returns an object that was stored with this class.
    pub(crate) fn new(class: Option<&str>) -> Self {
        let class = class.filter(|class| [StorageClass::DEEP_ARCHIVE, MOVING].contains(class));
        Self { class: class.unwrap_or(StorageClass::GLACIER).to_owned(), restore: Restore::None }
    }

    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.restore, Restore::Done { .. })
    }

    pub(crate) fn is_in_progress(&self) -> bool {
        matches!(self.restore, Restore::InProgress { .. })
    }

    /// Begins a restore, or extends the life of the copy. Returns the status of the answer.
    pub(crate) fn restore(&mut self, request: Option<RestoreRequest>) -> S3Result<StatusCode> {
        let request = request.ok_or_else(|| s3_error!(MalformedXML, "The XML is not well-formed"))?;
        let tier = request.glacier_job_parameters.map(|GlacierJobParameters { tier }| tier);
        let tier = tier.as_ref().map_or(Tier::STANDARD, Tier::as_str);
        let speed = TIERS.iter().position(|known| *known == tier);
        let speed = speed.ok_or_else(|| s3_error!(MalformedXML, "The tier is not known"))?;
        if self.class == StorageClass::DEEP_ARCHIVE && tier == Tier::EXPEDITED {
            let message = "Retrieval option is not supported by this storage class";
            return Err(s3_error!(InvalidArgument, "{message}"));
        }
        let days = match request.days {
            Some(days) if self.class != MOVING && days > 0 => days,
            None if self.class == MOVING => 0,
            _ => return Err(s3_error!(MalformedXML, "The days are missing or not permitted")),
        };
        match &self.restore {
            Restore::InProgress { tier, .. } if *tier >= speed => {
                Err(s3_error!(RestoreAlreadyInProgress, "Object restore is already in progress"))
            }
            Restore::Done { .. } => {
                self.restore = Restore::Done { until: expiry(days) };
                Ok(StatusCode::OK)
            }
            Restore::None | Restore::InProgress { .. } => {
                self.restore = Restore::InProgress { days, tier: speed };
                Ok(StatusCode::ACCEPTED)
            }
        }
    }

    /// Ends a restore. Returns whether the object is still archived.
    pub(crate) fn end_restore(&mut self) -> bool {
        match self.restore {
            Restore::InProgress { .. } if self.class == MOVING => return false,
            Restore::InProgress { days, .. } => self.restore = Restore::Done { until: expiry(days) },
            Restore::None | Restore::Done { .. } => {}
        }
        true
    }

    /// Adds the headers of an archived object.
    pub(crate) fn describe(&self, output: &mut HeadObjectOutput) {
        output.storage_class = Some(self.class());
        if self.class == MOVING {
            output.archive_status = Some(ArchiveStatus::from_static(ArchiveStatus::ARCHIVE_ACCESS));
        }
        output.restore = self.restore_header();
    }

    /// Returns `x-amz-storage-class`.
    pub(crate) fn class(&self) -> StorageClass {
        StorageClass::from(self.class.clone())
    }

    /// Returns `x-amz-restore`.
    pub(crate) fn restore_header(&self) -> Option<String> {
        match &self.restore {
            Restore::None => None,
            Restore::InProgress { .. } => Some("ongoing-request=\"true\"".to_owned()),
            Restore::Done { until } => {
                let mut date = Vec::new();
                // Fails only for dates beyond the year 9999.
                let _ = s3s::dto::Timestamp::from(*until).format(TimestampFormat::HttpDate, &mut date);
                let date = String::from_utf8_lossy(&date);
                Some(format!("ongoing-request=\"false\", expiry-date=\"{date}\""))
            }
        }
    }
}

/// Returns the midnight after these days.
fn expiry(days: i32) -> SystemTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = u32::try_from(now.as_secs() / DAY.as_secs()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + DAY * (today + days.unsigned_abs() + 1)
}
