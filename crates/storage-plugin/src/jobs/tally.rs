//! What a job has done so far: the counts in its content, and the first attachments with problems.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::error::JobError;
use super::work::{Failure, Handled};

/// Number of failures that are kept in the content of a job. The report has all of them.
const KEPT: usize = 100;
/// Bytes kept of the name of an attachment.
const NAME: usize = 60;
/// Bytes kept of each failure's error.
const ERROR: usize = 300;
/// Bytes kept of the first failure's error, which becomes that of the job.
const FIRST_ERROR: usize = 2000;
/// The count of attachments that Orthanc deleted in the meantime, which all jobs have.
pub(crate) const DELETED: &str = "DeletedMeanwhile";
/// Forms that are counted one by one. A bucket has a few; hostile headers could name any number of keys.
const MOST_FORMS: usize = 100;

/// The form in which an attachment is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    /// `clear`, `A1`, `A2`, `key-vault-cbc`, or `archived` if the content cannot be read.
    pub(crate) format: String,
    /// The id of the master key, or the key service; empty if neither is known.
    pub(crate) key: String,
}

impl Form {
    /// The format of content that is not encrypted.
    pub(crate) const CLEAR: &str = "clear";

    pub(crate) fn new(format: impl Into<String>, key: String) -> Self {
        Self { format: format.into(), key }
    }

    pub(crate) fn is_clear(&self) -> bool {
        self.format == Self::CLEAR
    }
}

/// The counts of a job, and the first attachments with problems.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    counts: BTreeMap<String, u64>,
    /// Number of copies and stored bytes in each form.
    forms: BTreeMap<Form, (u64, u64)>,
    /// Attachments that Orthanc deleted in the meantime.
    deleted: u64,
    /// Number of attachments with problems.
    pub(crate) failures: u64,
    failed: Vec<FailedAttachment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FailedAttachment {
    uuid: String,
    name: String,
    /// The path of the resource in the REST API: `instances/…`.
    resource: String,
    problem: String,
    error: String,
}

impl Tally {
    /// Counts of which all are 0.
    pub(crate) fn new(counters: &[&str]) -> Self {
        Self { counts: counters.iter().map(|name| ((*name).to_owned(), 0)).collect(), ..Self::default() }
    }

    /// One of the counts.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Adds what became of an attachment, without its problems.
    pub(crate) fn add(&mut self, handled: &Handled) {
        for (name, count) in &handled.counts {
            match *name {
                DELETED => self.deleted += count,
                name => *self.counts.entry(name.to_owned()).or_default() += count,
            }
        }
        for (form, bytes) in &handled.forms {
            if self.forms.len() < MOST_FORMS || self.forms.contains_key(form) {
                let (copies, stored) = self.forms.entry(form.clone()).or_default();
                *copies += 1;
                *stored += bytes;
            }
        }
    }

    /// Adds attachments that Orthanc has deleted in the meantime.
    pub(crate) fn add_deleted(&mut self, deleted: u64) {
        self.deleted += deleted;
    }

    /// Adds attachments with problems.
    pub(crate) fn add_failures(&mut self, failures: &[Failure]) {
        self.failures += failures.len() as u64;
        for failure in failures.iter().take(KEPT - self.failed.len()) {
            let indexed = &failure.indexed;
            let limit = if self.failed.is_empty() { FIRST_ERROR } else { ERROR };
            let errors: Vec<&str> = failure.problems.iter().map(|problem| problem.error.as_str()).collect();
            let problem = failure.problems.first().map_or("", |problem| problem.kind);
            self.failed.push(FailedAttachment {
                uuid: indexed.attachment.uuid.to_string(),
                name: shortened(&indexed.name, NAME),
                resource: indexed.resource.to_string(),
                problem: problem.to_owned(),
                error: shortened(&errors.join("; "), limit),
            });
        }
    }

    /// The error of a job that has ended; `None` if there were no problems.
    pub(crate) fn error(&self) -> Option<JobError> {
        let FailedAttachment { uuid, name, resource, error, .. } = self.failed.first()?;
        let first = format!("attachment {uuid} ({name}) of {resource}: {error}");
        Some(JobError::Several { count: self.failures, first })
    }

    /// Adds the fields to the content of the job.
    pub(crate) fn show(&self, content: &mut Map<String, Value>) {
        content.extend(self.counts.iter().map(|(name, count)| (name.clone(), json!(count))));
        if !self.forms.is_empty() {
            content.insert("Forms".to_owned(), self.forms());
        }
        let failed = self.failed.iter().map(|FailedAttachment { uuid, name, resource, problem, error }| {
            json!({"Uuid": uuid, "Name": name, "Resource": resource, "Problem": problem, "Error": error})
        });
        for (field, value) in [
            (DELETED, json!(self.deleted)),
            ("Failures", json!(self.failures)),
            ("FailedAttachments", failed.collect()),
        ] {
            content.insert(field.to_owned(), value);
        }
    }

    /// The forms, with their counts.
    fn forms(&self) -> Value {
        let forms = self.forms.iter().map(|(Form { format, key }, (copies, bytes))| {
            json!({"Format": format, "Key": key, "Copies": copies, "Bytes": bytes})
        });
        forms.collect()
    }

    /// Reads what [`show`](Self::show) wrote.
    pub(crate) fn read(counters: &[&str], content: &Value) -> Self {
        let count = |field: &str| content[field].as_u64().unwrap_or_default();
        let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let failed = content["FailedAttachments"].as_array().into_iter().flatten().take(KEPT);
        let failed = failed.map(|failed| FailedAttachment {
            uuid: text(failed, "Uuid"),
            name: text(failed, "Name"),
            resource: text(failed, "Resource"),
            problem: text(failed, "Problem"),
            error: text(failed, "Error"),
        });
        let forms = content["Forms"].as_array().into_iter().flatten().take(MOST_FORMS).map(|form| {
            let number = |field: &str| form[field].as_u64().unwrap_or_default();
            let counts = (number("Copies"), number("Bytes"));
            (Form { format: text(form, "Format"), key: text(form, "Key") }, counts)
        });
        Self {
            counts: counters.iter().map(|name| ((*name).to_owned(), count(name))).collect(),
            forms: forms.collect(),
            deleted: count(DELETED),
            failures: count("Failures"),
            failed: failed.collect(),
        }
    }
}

/// The beginning of a text.
fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(limit)])
}
