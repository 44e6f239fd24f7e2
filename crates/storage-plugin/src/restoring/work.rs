//! What a job does with each attachment.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket::{ArchiveState, Cause, Operation, Restoration, RestoreOptions, StorageError};
use futures_util::FutureExt as _;
use hybrid::HybridStorage;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use storage_layout::AttachmentUuid;

use crate::catalog::Indexed;
use crate::jobs::{Batch, Finished, Handled, Host, Problem, Tally, Turn, Work};
use crate::runtime::Runtime;

/// The job's type in Orthanc.
pub(crate) const JOB_TYPE: &str = "RestoreStorage";
const BEGUN: &str = "RestoresBegun";
const RESTORING: &str = "AlreadyRestoring";
const EXTENDED: &str = "CopiesExtended";
const READABLE: &str = "AlreadyReadable";
const NOT_IN_BUCKET: &str = "NotInBucket";
const READABLE_NOW: &str = "ReadableNow";
const STILL_ARCHIVED: &str = "StillArchived";

/// How many times an attachment is looked at that the server cannot describe, although it answers other requests.
const TRIES: u32 = 12;

/// Restores attachments from archive tiers.
#[derive(Debug, Clone)]
pub(crate) struct Restorer {
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) host: Host,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) options: RestoreOptions,
    /// Whether the job ends when everything can be read, not when everything is asked for.
    pub(super) waits: bool,
}

impl Restorer {
    /// The work of a job.
    pub(super) fn work(&self, wanted: Wanted) -> Arc<dyn Work> {
        Arc::new(Restoring { restorer: self.clone(), wanted: Ok(wanted), second: Arc::default() })
    }

    /// The work of a saved job; `None` if what was saved is none.
    pub(crate) fn saved_work(&self, saved: &Value) -> Option<Arc<dyn Work>> {
        let wanted = super::request::wanted(self, saved.as_object()?);
        Some(Arc::new(Restoring { restorer: self.clone(), wanted, second: Arc::default() }))
    }

    /// Whether the parameter `Days` has a meaning.
    fn makes_copies(&self) -> bool {
        self.storage.objects().restore_client().is_some_and(|client| client.makes_copies())
    }
}

/// Restores attachments.
#[derive(Debug)]
struct Restoring {
    restorer: Restorer,
    /// An error if the configuration was changed after the job had been saved.
    wanted: Result<Wanted, String>,
    second: Arc<SecondPass>,
}

/// What is known in the second pass.
#[derive(Debug, Default)]
struct SecondPass {
    /// Whether restores were refused, so that archived objects are no news.
    has_failures: AtomicBool,
    /// The number of failed looks at each attachment in progress.
    failed: Mutex<HashMap<AttachmentUuid, u32>>,
}

impl SecondPass {
    /// Notes that the server could not describe an attachment. Returns whether to look again.
    fn look_failed(&self, uuid: AttachmentUuid) -> bool {
        let mut failed = self.failed.lock();
        let times = failed.entry(uuid).or_default();
        *times += 1;
        *times < TRIES
    }

    /// Forgets an attachment that is not looked at again, or when the server does not work at all.
    fn forget(&self, uuid: &AttachmentUuid) {
        self.failed.lock().remove(uuid);
    }
}

impl Work for Restoring {
    fn job_type(&self) -> &'static str {
        JOB_TYPE
    }

    fn parameters(&self) -> Map<String, Value> {
        let mut parameters = Map::new();
        if let Ok(Wanted { options: RestoreOptions { days, tier }, waits }) = self.wanted {
            parameters.insert("Tier".to_owned(), json!(tier));
            parameters.insert("Wait".to_owned(), json!(waits));
            if self.restorer.makes_copies() {
                parameters.insert("Days".to_owned(), json!(days));
            }
        }
        parameters
    }

    fn counters(&self) -> &'static [&'static str] {
        &[BEGUN, RESTORING, EXTENDED, READABLE, NOT_IN_BUCKET, READABLE_NOW, STILL_ARCHIVED]
    }

    fn aim(&self) -> String {
        "restore attachments from the archive tier".to_owned()
    }

    fn outcome_of_problem(&self) -> String {
        "not restored".to_owned()
    }

    fn fails_with_problems(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        self.wanted.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn waiting_for(&self) -> String {
        "the server is restoring objects".to_owned()
    }

    fn begin(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        let Ok(Wanted { options, .. }) = self.wanted else { return self.look(attachments, at_once, turn) };
        let storage = self.restorer.storage.clone();
        let runtime = self.restorer.runtime.handle();
        Batch::spawn(runtime, attachments, at_once, turn, move |indexed| {
            let storage = storage.clone();
            async move { ask(&storage, indexed, options).await }.boxed()
        })
    }

    fn has_second_pass(&self, tally: &Tally) -> bool {
        self.second.has_failures.store(tally.failures > 0, Ordering::Relaxed);
        let waits = self.wanted.as_ref().is_ok_and(|wanted| wanted.waits);
        waits && [BEGUN, RESTORING].iter().any(|name| tally.count(name) > 0)
    }

    fn begin_again(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        self.look(attachments, at_once, turn)
    }
}

impl Restoring {
    /// Looks whether attachments can be read.
    fn look(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        let second = Arc::clone(&self.second);
        let storage = self.restorer.storage.clone();
        let runtime = self.restorer.runtime.handle();
        Batch::spawn(runtime, attachments, at_once, turn, move |indexed| {
            let storage = storage.clone();
            let second = Arc::clone(&second);
            async move { look(&storage, indexed, &second).await }.boxed()
        })
    }
}

/// Asks the server to restore one attachment.
async fn ask(storage: &HybridStorage, indexed: Indexed, options: RestoreOptions) -> Finished {
    let objects = storage.objects();
    let restore = objects.restore(&indexed.attachment, options);
    let handled = match caught(storage, &indexed, restore).await {
        Ok(Some(Restoration::Begun)) => {
            tracing::info!("restoring {}", objects.object_url(&indexed.attachment));
            Handled::counted(BEGUN)
        }
        Ok(Some(Restoration::Restoring)) => Handled::counted(RESTORING),
        Ok(Some(Restoration::Extended)) => Handled::counted(EXTENDED),
        Ok(Some(Restoration::Readable)) => Handled::counted(READABLE),
        Ok(None) => Handled::counted(NOT_IN_BUCKET),
        Err(error) => {
            let advice = objects.restore_client().and_then(|client| client.advice(&error)).map(str::to_owned);
            Handled::problem(Problem { advice, ..Problem::of("not-restored", &error) })
        }
    };
    (indexed, handled)
}

/// Looks whether one attachment can be read.
async fn look(storage: &HybridStorage, indexed: Indexed, second: &SecondPass) -> Finished {
    let uuid = indexed.attachment.uuid;
    let describe = storage.objects().describe(&indexed.attachment);
    let handled = match caught(storage, &indexed, describe).await {
        Ok(None) => Handled::default(),
        Ok(Some(described)) => match described.archive {
            ArchiveState::Online | ArchiveState::Restored { .. } => Handled::counted(READABLE_NOW),
            ArchiveState::Restoring => Handled::later(),
            ArchiveState::Archived { .. } => {
                // A job must not succeed if something cannot be read, and fails already if a restore was refused.
                let has_failures = second.has_failures.load(Ordering::Relaxed);
                let problems =
                    if has_failures { Vec::new() } else { vec![still_archived(storage, &indexed)] };
                Handled { problems, ..Handled::counted(STILL_ARCHIVED) }
            }
        },
        // The wait may take days, in which no outage of the server matters.
        Err(error) if error.transient && !answers(storage).await => {
            tracing::info!("{error}; looking again later");
            second.forget(&uuid);
            Handled::later()
        }
        Err(error) if error.transient && second.look_failed(uuid) => {
            tracing::info!("{error}, although the server answers other requests; looking again later");
            Handled::later()
        }
        Err(error) => {
            let advice = error.transient.then(|| {
                "the server answers other requests: see its log about this object, and repeat the request"
                    .to_owned()
            });
            Handled::problem(Problem { advice, ..Problem::of("not-looked-at", &error) })
        }
    };
    if !handled.later {
        second.forget(&uuid);
    }
    (indexed, handled)
}

/// Whether the server answers a request for an object that need not exist.
async fn answers(storage: &HybridStorage) -> bool {
    let objects = storage.objects();
    !objects.read_note("absent", objects.retry()).await.is_err_and(|error| error.transient)
}

fn still_archived(storage: &HybridStorage, indexed: &Indexed) -> Problem {
    let object = storage.objects().object_url(&indexed.attachment);
    let error = format!("{object} is still archived");
    let advice = "its copy was deleted before the other objects could be read, or it was archived again: repeat the \
                  request, on S3 with more Days";
    let advice = Some(advice.to_owned());
    Problem { object: Some(object), advice, ..Problem::new("still-archived", error) }
}

/// Makes a panic an error of this attachment, so that it does not cancel the others.
async fn caught<T>(
    storage: &HybridStorage,
    indexed: &Indexed,
    work: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    AssertUnwindSafe(Box::pin(work)).catch_unwind().await.unwrap_or_else(|_panic| {
        let object = storage.objects().object_url(&indexed.attachment);
        Err(StorageError::new(Operation::Restore, object, Cause::Panicked))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_one_attachment_are_limited() {
        let uuid = |number: u32| AttachmentUuid::new(&format!("{number:08x}-0000-4000-8000-000000000000"));
        let [one, other] = [1, 2].map(|number| uuid(number).unwrap());
        let second = SecondPass::default();
        assert!((1..TRIES).all(|_| second.look_failed(one)));
        // The whole server did not work meanwhile.
        second.forget(&one);
        assert!((1..TRIES).all(|_| second.look_failed(one)));
        assert!(second.look_failed(other));
        assert!(!second.look_failed(one));
        second.forget(&one);
        second.forget(&other);
        assert!(second.failed.lock().is_empty());
    }
}
