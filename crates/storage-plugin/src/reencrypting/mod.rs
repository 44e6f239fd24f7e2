//! `POST /object-storage/reencrypt` and its job: brings all attachments into the format and under the key of new ones.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bucket::{Cause, Operation, Seeker, StorageError};
use futures_util::FutureExt as _;
use hybrid::{HybridStorage, RewriteOutcome, Rewritten, StoredForm};
use orthanc_ffi::{Orthanc, RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value, json};

use crate::catalog::Indexed;
use crate::jobs::{
    Batch, DELETED, Finished, Form, Handled, Host, JobRequest, Problem, Scope, StorageJob, Turn, Work,
    bad_request, resume, start_job,
};
use crate::post::only_post;
use crate::runtime::Runtime;

/// The job's type in Orthanc.
pub(crate) const JOB_TYPE: &str = "ReencryptStorage";
/// Why there is nothing to do.
const OFF: &str = "client-side encryption is off; set StorageEncryption, with the format and the key that all attachments are \
     to have, or with \"Enable\": false and \"ReadEncrypted\": true to decrypt them";

/// Rewrites attachments in the form of new ones.
#[derive(Debug, Clone)]
pub(crate) struct Reencryption {
    storage: HybridStorage,
    runtime: Arc<Runtime>,
    host: Host,
    form: Arc<dyn StoredForm>,
    /// The form of new attachments.
    present: Form,
    /// The one that the job was started for: the configuration may have been changed since.
    wanted: Form,
}

impl Reencryption {
    pub(crate) fn new(
        storage: HybridStorage,
        runtime: Arc<Runtime>,
        host: Host,
        form: Arc<dyn StoredForm>,
        present: Form,
    ) -> Self {
        let wanted = present.clone();
        Self { storage, runtime, host, form, present, wanted }
    }

    /// Starts the requested job.
    pub(crate) fn start(
        &self,
        orthanc: &Orthanc,
        request: &RestRequest<'_>,
    ) -> Result<RestAnswer, RestFailure> {
        only_post(request)?;
        let requested = JobRequest::read(request.body())?;
        self.check().map_err(bad_request)?;
        start_job(orthanc, &self.host, Arc::new(self.clone()), &requested)
    }

    /// Restores a job that was saved.
    pub(crate) fn resume(&self, saved: &Value) -> StorageJob {
        let text = |field: &str| saved[field].as_str().unwrap_or_default();
        let wanted = Form::new(text("Format"), text("Key").to_owned());
        let work = Self { wanted, ..self.clone() };
        resume(self.host.clone(), Arc::new(work), Scope::read(&saved["Content"]), saved)
    }
}

impl Work for Reencryption {
    fn job_type(&self) -> &'static str {
        JOB_TYPE
    }

    fn parameters(&self) -> Map<String, Value> {
        let Form { format, key } = &self.wanted;
        [("Format".to_owned(), json!(format)), ("Key".to_owned(), json!(key))].into_iter().collect()
    }

    fn counters(&self) -> &'static [&'static str] {
        &["Rewritten", "RewrittenBytes", "AlreadyCurrent"]
    }

    fn aim(&self) -> String {
        "re-encrypt attachments".to_owned()
    }

    fn outcome_of_problem(&self) -> String {
        "not re-encrypted".to_owned()
    }

    fn fails_with_problems(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        let objects = self.storage.objects();
        // Without encryption, blobs of the earlier plugin for Azure Key Vault that are in clear get their regular names.
        let is_possible = objects.encrypts() || objects.reads_encrypted() || objects.reads_key_vault_blobs();
        if !is_possible {
            return Err(OFF.to_owned());
        }
        expect_same(&self.wanted, &self.present)
    }

    fn begin(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        // Tasks must not hold `self`: they would drop the runtime they run on.
        let storage = self.storage.clone();
        let form = Arc::clone(&self.form);
        let present = self.present.clone();
        Batch::spawn(self.runtime.handle(), attachments, at_once, turn, move |indexed| {
            let storage = storage.clone();
            let form = Arc::clone(&form);
            let present = present.clone();
            async move { handle(&storage, &form, &present, indexed).await }.boxed()
        })
    }
}

/// Checks that a job brings attachments into the form that it was started for.
fn expect_same(wanted: &Form, present: &Form) -> Result<(), String> {
    if wanted == present {
        return Ok(());
    }
    let describe = |form: &Form| match form.key.as_str() {
        "" => format!("{:?}", form.format),
        key => format!("{:?} with the key {key:?}", form.format),
    };
    Err(format!(
        "the job was started to bring attachments into the form {}, and the configuration now says {}; start a new job if \
         this is what you want",
        describe(wanted),
        describe(present)
    ))
}

/// Rewrites one attachment, and notes what became of it. A panic becomes an error of this attachment, so that it does not
/// cancel the others.
async fn handle(
    storage: &HybridStorage,
    form: &Arc<dyn StoredForm>,
    present: &Form,
    indexed: Indexed,
) -> Finished {
    let Indexed { attachment, size, md5, .. } = &indexed;
    let rewritten = AssertUnwindSafe(storage.rewrite(attachment, *size, *md5, form)).catch_unwind().await;
    let rewritten = rewritten.unwrap_or_else(|_panic| {
        let name = storage.objects().object_url(attachment);
        Err(StorageError::new(Operation::Rewrite, name, Cause::Panicked))
    });
    let (outcome, sizes) = match rewritten {
        Ok(Rewritten { outcome, sizes }) => (Ok(outcome), sizes),
        Err(error) => (Err(error), Vec::new()),
    };
    if let Ok(RewriteOutcome::Rewritten { bytes }) = outcome {
        tracing::info!("re-encrypted attachment {}: {bytes} bytes", attachment.uuid);
    }
    let hint = match outcome {
        Ok(RewriteOutcome::Missing) => storage.objects().hint(attachment, Seeker::Move).await,
        _ => None,
    };
    let mut handled = handled(outcome);
    handled.forms = sizes.into_iter().map(|size| (present.clone(), size)).collect();
    if let (Some(hint), Some(problem)) = (hint, handled.problems.first_mut()) {
        problem.error = format!("{}, but {hint}", problem.error);
    }
    (indexed, handled)
}

/// The counts and problems that follow from a rewrite.
fn handled(outcome: Result<RewriteOutcome, StorageError>) -> Handled {
    match outcome {
        Ok(RewriteOutcome::Rewritten { bytes }) => {
            Handled { counts: vec![("Rewritten", 1), ("RewrittenBytes", bytes)], ..Handled::default() }
        }
        Ok(RewriteOutcome::AlreadyCurrent) => Handled::counted("AlreadyCurrent"),
        Ok(RewriteOutcome::Removed) => Handled::counted(DELETED),
        Ok(RewriteOutcome::Missing) => Handled::problem(Problem::missing()),
        Err(error) => Handled::problem(problem(&error)),
    }
}

fn problem(error: &StorageError) -> Problem {
    let (kind, advice) = match error.cause {
        // The present job need not stop at objects that are locked.
        _ if error.operation == Operation::Remove => {
            let advice = "the attachment is stored in the present form as well; when this object may be deleted, \
                          run the job again";
            return Problem {
                advice: Some(advice.to_owned()),
                concerns_storage: false,
                ..Problem::of("old-object-remains", error)
            };
        }
        Cause::Archived => {
            ("archived", Some("restore it with POST /object-storage/restore, then run the job again"))
        }
        Cause::ObjectsDiffer => ("objects-differ", None),
        Cause::NotAcceptable(_) => (
            "not-converted",
            Some("the attachment was left as it is; correct the reason, then run the job again"),
        ),
        _ => ("not-reencrypted", None),
    };
    Problem { advice: advice.map(str::to_owned), ..Problem::of(kind, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_configuration_ends_a_saved_job() {
        let rotated = |id: &str| Form::new("A2", id.to_owned());
        assert_eq!(expect_same(&rotated("2"), &rotated("2")), Ok(()));
        let clear = Form::new(Form::CLEAR, String::new());
        for present in [rotated("1"), Form::new("A1", "2".to_owned()), clear] {
            let error = expect_same(&rotated("2"), &present).unwrap_err();
            assert!(error.contains("the form \"A2\" with the key \"2\""), "{error}");
        }
    }

    #[test]
    fn locked_objects_do_not_stop_the_job() {
        let refused = |operation| problem(&StorageError::new(operation, "s3://bucket/OBJECT", Cause::Denied));
        let remains = refused(Operation::Remove);
        assert_eq!((remains.kind, remains.concerns_storage), ("old-object-remains", false));
        let denied = refused(Operation::Create);
        assert_eq!((denied.kind, denied.concerns_storage), ("not-reencrypted", true));
    }
}
