//! What is wrong now, for `GET /object-storage/status`, in sentences.

use std::time::Duration;

use hybrid::WriteBackTotals;
use serde_json::{Value, json};

use super::metrics::Failing;
use super::verifications::Overview;

/// How long an attachment may be pending, in addition to `UploadDelay`.
pub(super) const LONGEST_PENDING: Duration = Duration::from_secs(600);
/// How long a deletion may be pending, in addition to `DeletionDelay`.
pub(super) const LONGEST_DELETION: Duration = Duration::from_secs(24 * 60 * 60);
/// Free space below which a disk is almost full, whatever `KeepFreeMB` says.
const LEAST_FREE: u64 = 100 << 20;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Ok,
    /// Nothing is lost or refused yet.
    Warning,
    /// Attachments cannot be stored or read, or are damaged or missing.
    Error,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One problem.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// For programs.
    id: &'static str,
    severity: State,
    /// For people: what is wrong, and what to do.
    text: String,
}

impl Problem {
    pub(super) fn to_json(&self) -> Value {
        json!({"Id": self.id, "Severity": self.severity.as_str(), "Text": self.text})
    }
}

/// What is known about the plugin's work now.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The last store, if it has failed.
    pub(super) store: Option<Failing>,
    /// The last read, if it has failed and that was not long ago.
    pub(super) read: Option<Failing>,
    /// Why the last request to a key service failed, unless that was long ago.
    pub(super) key_service: Option<String>,
    /// Whether there is a state directory.
    pub(super) has_state: bool,
    /// What is pending and cached in it.
    pub(super) local: Option<WriteBackTotals>,
    /// `UploadDelay`.
    pub(super) upload_delay: Duration,
    /// `KeepFreeMB`, in bytes.
    pub(super) keep_free: u64,
    /// How long the oldest deletion could have been done.
    pub(super) deletion_overdue: Duration,
    pub(super) verification: Overview,
    pub(super) uptime: Duration,
}

impl Observed {
    /// Whether the bucket does not work for stores or reads, as far as they were tried.
    pub(super) fn is_outage(&self) -> bool {
        let is_about_bucket = |failing: &Failing| !failing.is_about_one;
        self.local.as_ref().is_some_and(|local| local.is_outage)
            || [&self.store, &self.read].into_iter().flatten().any(is_about_bucket)
    }

    /// All problems, the worst ones first.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.of_requests();
        if let Some(local) = &self.local {
            problems.extend(self.of_files(local));
        }
        if !self.has_state {
            problems.push(warning(
                "StateDirectoryNotWritable",
                "The folder StateDirectory cannot be written to, so deletions are lost if the bucket cannot be reached, and \
                 jobs have no reports. Make it writable and restart Orthanc."
                    .to_owned(),
            ));
        }
        if self.deletion_overdue > LONGEST_DELETION {
            let text = format!(
                "Deleted attachments have been waiting for {} to be deleted from the bucket. The log says why.",
                span(self.deletion_overdue)
            );
            problems.push(warning("DeletionsStuck", text));
        }
        problems.extend(self.of_verification());
        // Stable, so problems of one severity keep their order.
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems
    }

    fn of_requests(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(Failing { time, error, .. }) = &self.store {
            let text = format!("The last attempt to store an attachment failed on {time}: {error}");
            problems.push(problem("StoreFailed", State::Error, text));
        }
        if let Some(Failing { time, error, is_about_one }) = &self.read {
            let severity = if *is_about_one { State::Warning } else { State::Error };
            let text = format!("The last attempt to read an attachment failed on {time}: {error}");
            problems.push(problem("ReadFailed", severity, text));
        }
        if let Some(error) = &self.key_service {
            let text = format!("The last request to the key service failed: {error}");
            problems.push(problem("KeyServiceFailed", State::Error, text));
        }
        problems
    }

    fn of_files(&self, local: &WriteBackTotals) -> Vec<Problem> {
        let mut problems = Vec::new();
        if local.is_outage {
            let reason = local.last_error.as_deref().unwrap_or("the reason is in the log");
            let text = format!(
                "The bucket does not work: {reason}. New attachments are kept on the disk, and uploaded when the bucket \
                 works again."
            );
            problems.push(problem("BucketOutage", State::Error, text));
        }
        let pending = local.oldest.map(|oldest| oldest.elapsed().unwrap_or_default()).unwrap_or_default();
        if pending > LONGEST_PENDING + self.upload_delay {
            let text = format!(
                "{} not in the bucket yet, and the oldest has been waiting for {}. If the disk is lost, they are lost.",
                count(local.pending, "attachment is", "attachments are"),
                span(pending)
            );
            problems.push(warning("PendingTooLong", text));
        }
        if local.quarantined > 0 {
            let text = format!(
                "{} found damaged on the disk, and not uploaded. Look at the folder \"quarantine\" in StateDirectory, \
                 and have the images sent again.",
                count(local.quarantined, "attachment was", "attachments were")
            );
            problems.push(problem("Quarantined", State::Error, text));
        }
        let abandoned = local.abandoned.iter().map(|folder| folder.attachments).sum();
        if abandoned > 0 {
            let text = format!(
                "{} on the disk of an Orthanc that no longer runs, and in no bucket. Start an Orthanc with the bucket and \
                 root path that they belong to.",
                count(abandoned, "attachment is", "attachments are")
            );
            problems.push(problem("Abandoned", State::Error, text));
        }
        if let Some(free) = local.free.filter(|free| *free < (self.keep_free / 2).max(LEAST_FREE)) {
            let text = format!(
                "The disk of StateDirectory is almost full: {} MB are free. Free some space.",
                free / 1_000_000
            );
            problems.push(warning("DiskAlmostFull", text));
        }
        problems
    }

    fn of_verification(&self) -> Option<Problem> {
        let Overview { last, every, .. } = &self.verification;
        if let Some(last) = last
            && last.failures > 0
        {
            let text = format!(
                "The last verification of the archive, which ended on {}, found {}. Its report lists each, with advice.",
                last.ended,
                count(last.failures, "damaged or missing attachment", "damaged or missing attachments")
            );
            return Some(problem("VerificationFailures", State::Error, text));
        }
        let every = (*every)?;
        let age = last.as_ref().map_or(self.uptime, |last| last.age);
        (age > every * 2).then(|| {
            let text = format!(
                "No verification of the whole archive has been completed for {}, although one is scheduled every {}. \
                 Look at the jobs, and make the time of the day longer in which it runs.",
                span(age),
                span(every)
            );
            warning("VerificationOverdue", text)
        })
    }
}

/// The worst of all problems.
pub(super) fn state(problems: &[Problem]) -> State {
    problems.iter().map(|problem| problem.severity).max().unwrap_or(State::Ok)
}

fn problem(id: &'static str, severity: State, text: String) -> Problem {
    Problem { id, severity, text }
}

fn warning(id: &'static str, text: String) -> Problem {
    problem(id, State::Warning, text)
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// In the largest unit of which there are two.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("days", 86400), ("hours", 3600), ("minutes", 60)];
    let unit = units.into_iter().find(|(_, unit)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} seconds"), |(name, unit)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests;
