//! What a job has done so far.

use serde_json::{Map, Value, json};

use super::mover::{Failure, MoveError, Tally};

/// Number of failures that are kept.
const KEPT: usize = 100;
/// Bytes kept of the name of an attachment.
const NAME: usize = 60;
/// Bytes kept of each failure's error.
const ERROR: usize = 300;
/// Bytes kept of the first failure's error, which becomes that of the job.
const FIRST_ERROR: usize = 2000;

/// The counts of a job, and the first attachments that could not be moved.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Number of attachments that could not be moved.
    pub(crate) failures: u64,
    failed: Vec<FailedAttachment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FailedAttachment {
    uuid: String,
    name: String,
    /// The path of the resource in the REST API: `instances/…`.
    resource: String,
    error: String,
}

impl Report {
    pub(crate) fn add(&mut self, tally: Tally, failures: &[Failure]) {
        self.tally.add(tally);
        self.failures += failures.len() as u64;
        for failure in failures.iter().take(KEPT - self.failed.len()) {
            let indexed = &failure.indexed;
            let limit = if self.failed.is_empty() { FIRST_ERROR } else { ERROR };
            self.failed.push(FailedAttachment {
                uuid: indexed.attachment.uuid.to_string(),
                name: shortened(&indexed.name, NAME),
                resource: indexed.resource.to_string(),
                error: shortened(&failure.reason(), limit),
            });
        }
    }

    /// The error of a job that has ended; `None` if everything was moved.
    pub(crate) fn error(&self) -> Option<MoveError> {
        let FailedAttachment { uuid, name, resource, error } = self.failed.first()?;
        let first = format!("attachment {uuid} ({name}) of {resource}: {error}");
        Some(MoveError::Several { count: self.failures, first })
    }

    /// Adds the fields to the content of the job.
    pub(crate) fn show(&self, content: &mut Map<String, Value>) {
        let Tally { moved, bytes, already_there, deleted } = self.tally;
        let failed = self.failed.iter().map(|FailedAttachment { uuid, name, resource, error }| {
            json!({"Uuid": uuid, "Name": name, "Resource": resource, "Error": error})
        });
        for (field, value) in [
            ("MovedAttachments", json!(moved)),
            ("MovedBytes", json!(bytes)),
            ("AlreadyThere", json!(already_there)),
            ("DeletedMeanwhile", json!(deleted)),
            ("Failures", json!(self.failures)),
            ("FailedAttachments", failed.collect()),
        ] {
            content.insert(field.to_owned(), value);
        }
    }

    /// Reads what [`show`](Self::show) wrote.
    pub(crate) fn read(content: &Value) -> Self {
        let count = |field: &str| content[field].as_u64().unwrap_or_default();
        let failed = content["FailedAttachments"].as_array().into_iter().flatten().take(KEPT).map(|failed| {
            let text = |field: &str| failed[field].as_str().unwrap_or_default().to_owned();
            FailedAttachment {
                uuid: text("Uuid"),
                name: text("Name"),
                resource: text("Resource"),
                error: text("Error"),
            }
        });
        Self {
            tally: Tally {
                moved: count("MovedAttachments"),
                bytes: count("MovedBytes"),
                already_there: count("AlreadyThere"),
                deleted: count("DeletedMeanwhile"),
            },
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
