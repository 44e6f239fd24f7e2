//! `POST /object-storage/verify`: checks that each attachment of the index is stored, and can be read.
//!
//! | depth | what is checked of each copy | cost |
//! | --- | --- | --- |
//! | `exists` | that there is one | the first bytes |
//! | `size` | its size, and its form: clear or encrypted, accepted, under a known key | the same |
//! | `checksum` | of objects in clear: the server's MD5, or the ETag, against Orthanc's MD5 | one more request |
//! | `content` | that it can be read, decrypted, and has Orthanc's MD5 | a download |

mod copy;
mod request;
mod schedule;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bucket::{Cause, Operation, Seeker, StorageError, blocking};
use crypto_envelope::RECOGNIZE_LEN;
use futures_util::FutureExt as _;
use hybrid::{HybridStorage, Side, StoredCopy, Version};
use serde_json::{Map, Value, json};

use self::copy::{form_of, sizes};
pub(crate) use self::request::start_verification;
pub(crate) use self::schedule::{Schedule, Scheduler, Window};
use crate::area::encryption::Encryption;
use crate::catalog::Indexed;
use crate::context::Context;
use crate::jobs::{Batch, Finished, Handled, Problem, Turn, Work};

/// How thoroughly attachments are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    Exists,
    Size,
    Checksum,
    Content,
}

impl Depth {
    pub(crate) const ALL: [Self; 4] = [Self::Exists, Self::Size, Self::Checksum, Self::Content];

    /// The depth's name in requests.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Size => "size",
            Self::Checksum => "checksum",
            Self::Content => "content",
        }
    }

    /// The depth with this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|depth| depth.as_str() == name)
    }
}

const VERIFY_AGAIN: &str = "verify it again; its state is not known";

/// How often an attachment is looked for before it is missing.
const LOOKS: usize = 3;

/// Verifies attachments.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    context: Context,
    check: Check,
}

/// What the check of an attachment needs. Tasks must not hold the whole [`Context`]: they would drop the runtime they
/// run on.
#[derive(Debug, Clone)]
struct Check {
    storage: HybridStorage,
    encryption: Option<Arc<Encryption>>,
    /// Of one job: another may begin after the server has been changed.
    e_tags: Arc<ETags>,
}

/// What is known of ETags that look like MD5s.
#[derive(Debug, Default)]
struct ETags {
    /// Whether one was the MD5 of its object.
    are_md5s: AtomicBool,
    /// Number of objects with the right content and another ETag.
    others: AtomicU64,
}

impl ETags {
    /// Number of objects that are read to find out that ETags are no MD5s.
    const ENOUGH: u64 = 16;

    /// Whether a different ETag says nothing about the content.
    fn are_useless(&self) -> bool {
        !self.are_md5s.load(Ordering::Relaxed) && self.others.load(Ordering::Relaxed) >= Self::ENOUGH
    }

    fn note_equal(&self) {
        self.are_md5s.store(true, Ordering::Relaxed);
    }

    fn note_other(&self) {
        if self.others.fetch_add(1, Ordering::Relaxed) + 1 == Self::ENOUGH && self.are_useless() {
            tracing::warn!(
                "the server's ETags are not the MD5s of objects, perhaps because it encrypts them: the depth \"checksum\" \
                 cannot compare them"
            );
        }
    }
}

impl Verifier {
    pub(crate) fn new(context: Context, encryption: Option<Arc<Encryption>>) -> Self {
        let storage = context.storage.clone();
        Self { context, check: Check { storage, encryption, e_tags: Arc::default() } }
    }

    /// The work of a job with this depth.
    pub(crate) fn work(&self, depth: Depth) -> Arc<dyn Work> {
        self.new_work(depth, None)
    }

    /// The work of a job that the plugin starts by itself, for the Orthanc whose database has this id.
    fn scheduled_work(&self, depth: Depth, database: &str) -> Arc<dyn Work> {
        self.new_work(depth, Some(database.to_owned()))
    }

    fn new_work(&self, depth: Depth, scheduled_for: Option<String>) -> Arc<dyn Work> {
        let check = Check { e_tags: Arc::default(), ..self.check.clone() };
        Arc::new(Verification { verifier: Self { check, ..self.clone() }, depth, scheduled_for })
    }

    /// The work of a job that was saved; `None` if what was saved is no such job.
    pub(crate) fn saved_work(&self, saved: &Value) -> Option<Arc<dyn Work>> {
        let depth = Depth::of(saved["Depth"].as_str()?)?;
        if saved["Scheduled"] == true {
            let database = saved["Database"].as_str().unwrap_or_default();
            return Some(self.scheduled_work(depth, database));
        }
        Some(self.work(depth))
    }
}

/// The job's type in Orthanc.
pub(crate) const JOB_TYPE: &str = "VerifyStorage";

/// Verifies attachments to one depth.
#[derive(Debug)]
struct Verification {
    verifier: Verifier,
    depth: Depth,
    /// The id of Orthanc's database, if the plugin has started the job by itself.
    scheduled_for: Option<String>,
}

impl Work for Verification {
    fn job_type(&self) -> &'static str {
        JOB_TYPE
    }

    fn parameters(&self) -> Map<String, Value> {
        let depth = ("Depth".to_owned(), json!(self.depth.as_str()));
        let mut parameters = Map::from_iter([depth]);
        if let Some(database) = &self.scheduled_for {
            parameters.insert("Scheduled".to_owned(), json!(true));
            parameters.insert("Database".to_owned(), json!(database));
        }
        parameters
    }

    fn counters(&self) -> &'static [&'static str] {
        &["VerifiedAttachments", "VerifiedBytes", "NotComparable", "Archived"]
    }

    fn aim(&self) -> String {
        "verify attachments".to_owned()
    }

    fn outcome_of_problem(&self) -> String {
        "verification found a problem".to_owned()
    }

    fn fails_with_problems(&self) -> bool {
        false
    }

    fn needs_report(&self) -> bool {
        true
    }

    fn begin(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        let check = self.verifier.check.clone();
        let depth = self.depth;
        let runtime = self.verifier.context.runtime.handle();
        Batch::spawn(runtime, attachments, at_once, turn, move |indexed| {
            let check = check.clone();
            async move { check.attachment(indexed, depth).await }.boxed()
        })
    }
}

impl Check {
    /// Verifies one attachment. A panic becomes a problem of this attachment.
    async fn attachment(self, indexed: Indexed, depth: Depth) -> Finished {
        let handled = AssertUnwindSafe(self.verify(&indexed, depth)).catch_unwind().await;
        let handled = handled.unwrap_or_else(|_panic| {
            let name = self.storage.objects().object_url(&indexed.attachment);
            Handled::problem(not_checked(&StorageError::new(Operation::Read, name, Cause::Panicked)))
        });
        (indexed, handled)
    }

    async fn verify(&self, indexed: &Indexed, depth: Depth) -> Handled {
        for _ in 0..LOOKS {
            match self.verify_once(indexed, depth).await {
                Ok(Some(handled)) => return handled,
                Ok(None) => {}
                Err(error) => return Handled::problem(not_checked(&error)),
            }
        }
        Handled::problem(self.missing(indexed).await)
    }

    /// `None` if there is no copy, or one was gone before it was read: a move may have passed by.
    async fn verify_once(&self, indexed: &Indexed, depth: Depth) -> Result<Option<Handled>, StorageError> {
        let copies = self.storage.locate(&indexed.attachment, RECOGNIZE_LEN as u64).await?;
        // What is cached can be evicted at any time.
        if copies.iter().all(|copy| copy.side == Side::Cache) {
            return Ok(None);
        }
        let mut handled = Handled::default();
        let mut is_comparable = true;
        for copy in &copies {
            if copy.side != Side::Cache {
                handled.forms.push((form_of(copy), copy.head.size));
            }
            let found = self.copy(indexed, copy, depth).await;
            match found {
                Found::Right => {}
                Found::NotComparable => is_comparable = false,
                Found::Gone if copy.side == Side::Cache => {}
                // Another Orthanc may have re-encrypted the object.
                Found::Problem(problem) if copy.side == Side::Cache && is_of_other_time(&problem) => {
                    self.discard(indexed, copy);
                }
                Found::Gone => return Ok(None),
                Found::Problem(problem) => handled.problems.push(problem),
            }
        }
        if handled.problems.is_empty() {
            handled.counts = vec![("VerifiedAttachments", 1), ("VerifiedBytes", indexed.size)];
            if !is_comparable {
                handled.counts.push(("NotComparable", 1));
            }
        }
        if copies.iter().any(|copy| copy.is_archived()) {
            handled.counts.push(("Archived", 1));
        }
        Ok(Some(handled))
    }

    async fn missing(&self, indexed: &Indexed) -> Problem {
        let attachment = indexed.attachment;
        let object = self.storage.objects().object_name(&attachment);
        let local = self.storage.local().cloned();
        // What is pending elsewhere is not in the bucket yet.
        let elsewhere = match local {
            Some(_) => {
                "if other Orthancs have the same index, call POST /object-storage/flush of each, and verify again; "
            }
            None => "",
        };
        let advice = format!(
            "{elsewhere}restore the object from a version, a soft-deleted copy or a backup of the bucket; if it is lost, \
             delete the resource in Orthanc and ask its source to send it again"
        );
        let missing = Problem { object: Some(object), advice: Some(advice), ..Problem::missing() };
        let damaged = blocking(move || local.and_then(|local| local.quarantined_file(&attachment))).await;
        if let Some(path) = damaged {
            let error = format!("it was found damaged before it was uploaded, and is in {}", path.display());
            return Problem { error, ..missing };
        }
        if let Some(path) = self.cached_file(indexed).await {
            let error = format!("{}, and a copy is in the cache: {path}", missing.error);
            let advice = "copy this file to another folder now, before it is evicted; then store it in the bucket under \
                          the object's name, or restore the object from a version or a backup of the bucket";
            return Problem { error, advice: Some(advice.to_owned()), ..missing };
        }
        match self.storage.objects().hint(&attachment, Seeker::Verification).await {
            Some(hint) => Problem { error: format!("{}, but {hint}", missing.error), ..missing },
            None => missing,
        }
    }

    /// The file of an attachment in the cache, which may be the last copy.
    async fn cached_file(&self, indexed: &Indexed) -> Option<String> {
        let copies = self.storage.locate(&indexed.attachment, RECOGNIZE_LEN as u64).await.ok()?;
        copies.into_iter().find(|copy| copy.side == Side::Cache).map(|copy| copy.head.name)
    }

    /// Verifies one copy.
    async fn copy(&self, indexed: &Indexed, copy: &StoredCopy, depth: Depth) -> Found {
        if depth == Depth::Exists {
            return Found::Right;
        }
        if let Err(problem) = sizes(self.encryption.as_deref(), indexed, copy) {
            return Found::Problem(problem);
        }
        match depth {
            Depth::Exists | Depth::Size => Found::Right,
            Depth::Checksum if copy.side == Side::ObjectStorage => self.checksum(indexed, copy).await,
            // Files have no checksum but their content, which is read from the disk.
            Depth::Checksum => self.content(indexed, copy).await,
            Depth::Content if copy.is_archived() => Found::NotComparable,
            Depth::Content => self.content(indexed, copy).await,
        }
    }

    /// Compares the server's checksum of an object with Orthanc's MD5, without its content.
    async fn checksum(&self, indexed: &Indexed, copy: &StoredCopy) -> Found {
        let (Some(md5), true) = (indexed.md5, form_of(copy).is_clear()) else { return Found::NotComparable };
        let described = match self.storage.objects().describe(&indexed.attachment).await {
            Ok(Some(described)) => described,
            Ok(None) => return Found::Gone,
            Err(error) => return Found::Problem(not_checked(&error)),
        };
        // A re-encryption may replace it.
        let is_replaced = described.name != copy.head.name
            || Version::Object(described.version.as_deref().map(Arc::from)) != copy.head.version;
        if described.md5.is_some_and(|other| other != md5) {
            if is_replaced {
                return Found::Gone;
            }
            return Found::Problem(copy::wrong_md5(copy, "the checksum that the server has of it"));
        }
        if described.md5.is_some() {
            return Found::Right;
        }
        if described.possible_md5 == Some(md5) {
            self.e_tags.note_equal();
            return Found::Right;
        }
        if described.possible_md5.is_none() || copy.is_archived() || self.e_tags.are_useless() {
            return Found::NotComparable;
        }
        // Either the object is another one, or the server's ETags are no MD5s, which only the content can tell.
        let found = self.content(indexed, copy).await;
        if found == Found::Right && !is_replaced {
            self.e_tags.note_other();
        }
        found
    }

    /// Reads a copy to its end, decrypts it and compares it with Orthanc's MD5. Once more if an object seems to be damaged:
    /// its bytes may have been damaged on the way.
    async fn content(&self, indexed: &Indexed, copy: &StoredCopy) -> Found {
        let found = self.content_once(indexed, copy).await;
        match &found {
            Found::Problem(problem)
                if copy.side == Side::ObjectStorage && may_be_due_to_the_answer(problem) =>
            {
                tracing::info!("cannot verify {}: {}; reading it once more", copy.head.name, problem.error);
                self.storage.objects().count_retry();
                self.content_once(indexed, copy).await
            }
            _ => found,
        }
    }

    async fn content_once(&self, indexed: &Indexed, copy: &StoredCopy) -> Found {
        let Indexed { attachment, md5, size, .. } = *indexed;
        let read = self.storage.read_copy(&attachment, copy.side, copy.head.size.max(size)).await;
        let whole = match read {
            Ok(Some(whole)) => whole,
            Ok(None) => return Found::Gone,
            Err(error) => return Found::Problem(self.unreadable(copy, &error)),
        };
        let encryption = self.encryption.clone();
        let checked = blocking(move || {
            let result = copy::plaintext(encryption.as_deref(), &attachment, whole.content)
                .map(|plaintext| copy::fits(&plaintext, md5));
            drop(whole.memory);
            result
        });
        match checked.await {
            Ok(Some(true)) => Found::Right,
            Ok(None) => Found::NotComparable,
            Ok(Some(false)) => {
                self.discard(indexed, copy);
                Found::Problem(copy::wrong_md5(copy, "its content"))
            }
            Err(problem) => {
                if !problem.concerns_storage {
                    self.discard(indexed, copy);
                }
                let advice = problem.advice.clone().unwrap_or_else(|| match problem.kind {
                    copy::NOT_CHECKED => VERIFY_AGAIN.to_owned(),
                    copy::UNKNOWN_KEY => copy::ADD_KEY.to_owned(),
                    _ => copy::advice(copy).to_owned(),
                });
                Found::Problem(Problem {
                    object: Some(copy.head.name.clone()),
                    advice: Some(advice),
                    ..problem
                })
            }
        }
    }

    /// A damaged copy in the cache is of no use.
    fn discard(&self, indexed: &Indexed, copy: &StoredCopy) {
        if let Some(local) = self.storage.local().filter(|_| copy.side == Side::Cache) {
            local.discard_cached(&indexed.attachment);
        }
    }

    fn unreadable(&self, copy: &StoredCopy, error: &StorageError) -> Problem {
        match error.cause {
            Cause::Damaged(_) | Cause::CopyDamaged => {
                Problem { advice: Some(copy::advice(copy).to_owned()), ..Problem::of(copy::DAMAGED, error) }
            }
            Cause::WrongChecksum(_) => Problem {
                advice: Some(copy::advice(copy).to_owned()),
                ..Problem::of(copy::WRONG_CHECKSUM, error)
            },
            _ => not_checked(error),
        }
    }
}

/// Whether the copy may be right, and its bytes were damaged on the way.
fn may_be_due_to_the_answer(problem: &Problem) -> bool {
    matches!(problem.kind, copy::DAMAGED | copy::WRONG_CHECKSUM)
}

/// What was found of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Right,
    /// It has been moved, uploaded, evicted or deleted meanwhile.
    Gone,
    /// Nothing is wrong, but there is less to compare than the depth asks for.
    NotComparable,
    Problem(Problem),
}

/// Whether a copy is right, but cannot be read with the present keys and formats.
fn is_of_other_time(problem: &Problem) -> bool {
    matches!(problem.kind, copy::UNKNOWN_KEY | copy::NOT_READABLE)
}

/// An attachment of which nothing is known.
fn not_checked(error: &StorageError) -> Problem {
    Problem { advice: Some(VERIFY_AGAIN.to_owned()), ..Problem::of(copy::NOT_CHECKED, error) }
}
