//! `GET /object-storage/audit`: the securing guide of the Orthanc Book, checked against the running configuration.
//!
//! The checks themselves are in the crate `security-audit`. This module measures what they need: `host` looks at this
//! machine, and the cloud's plugin asks its server (`ask`).

mod ask;
mod host;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket::ObjectStorage;
use cloud_http::hiding_names;
use orthanc_ffi::{OrthancVersion, RestAnswer, RestFailure};
use security_audit::{
    Anonymous, Answer, BucketFacts, Encryption, Facts, Finding, Severity, StorageFacts, Version, audit,
};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

pub use ask::{BucketAudit, Reply, anonymous};

use crate::catalog::CatalogError;
use crate::context::Context;
use crate::operations::metrics::iso_8601;
use crate::start::storage::absolute;

/// Maximum time for a question to the server. A read without credentials takes two.
const LIMIT: Duration = Duration::from_secs(4);
/// How long the server's answers are used again, so that many open pages do not ask it all the time.
const REUSED: Duration = Duration::from_secs(30);

/// The server's answers, and when it gave them.
type Answers = Mutex<Option<(Instant, SystemTime, BucketFacts)>>;

/// What the audit needs.
pub(crate) struct Auditor {
    pub(crate) context: Context,
    /// The plugin's section.
    pub(crate) section: &'static str,
    /// `None` for a store that has no server.
    pub(crate) bucket: Option<Arc<dyn BucketAudit>>,
    pub(crate) encryption: Option<Encryption>,
    /// The server's address, and whether others can read or change what is sent to it.
    pub(crate) endpoint: (String, bool),
    /// `RootPath`, with a slash at its end unless it is empty.
    pub(crate) root: String,
    /// The plugin's own folder, if it is used.
    pub(crate) state: Option<PathBuf>,
    pub(crate) answers: Arc<Answers>,
}

impl Auditor {
    /// Makes the audit, within ten seconds.
    pub(crate) fn answer(&self) -> Result<RestAnswer, RestFailure> {
        let Context { orthanc, runtime, .. } = &self.context;
        let configuration = runtime.stop().call(|| orthanc.configuration()).ok_or(CatalogError::Stopped)?;
        let Value::Object(configuration) = configuration? else {
            let message = "Orthanc's configuration is not a JSON object".to_owned();
            return Err(RestFailure::Status { status: 500, message });
        };
        let (time, bucket) = self.ask()?;
        let facts = self.facts(&configuration, bucket);
        Ok(RestAnswer::json(&shown(&audit(&configuration, &facts), time)))
    }

    fn facts(&self, configuration: &Map<String, Value>, bucket: BucketFacts) -> Facts {
        let Context { orthanc, runtime, .. } = &self.context;
        let path = host::configuration_path()
            .or_else(|| runtime.stop().call(|| orthanc.configuration_path()).flatten());
        let OrthancVersion { major, minor, revision } = orthanc.version();
        let (endpoint, is_endpoint_exposed) = self.endpoint.clone();
        Facts {
            version: Version(major, minor, revision),
            is_root: host::is_root(),
            configuration_files: path.and_then(|path| host::configuration_files(&path)),
            secret_files: host::secret_files(configuration, self.section, |path| absolute(path, orthanc)),
            lua_scripts: host::lua_scripts(configuration, |path| absolute(path, orthanc)),
            plugins: strings(self.get("/plugins").as_ref()),
            modalities_in_database: self.get("/modalities?expand"),
            storage: StorageFacts {
                section: self.section.to_owned(),
                endpoint,
                is_endpoint_exposed,
                encryption: self.encryption.clone(),
                key_files: host::key_files(configuration, self.section),
                index: Some(host::index(configuration, |path| absolute(path, orthanc))),
                state: self.state.as_deref().map(host::fact),
                bucket,
            },
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let Context { orthanc, runtime, .. } = &self.context;
        let answer = runtime.stop().call(|| orthanc.rest_get(path))?;
        serde_json::from_slice(&answer.ok()?).ok()
    }

    /// Asks the server, or returns its last answers. Requests wait for each other.
    fn ask(&self) -> Result<(SystemTime, BucketFacts), RestFailure> {
        let answers = Arc::clone(&self.answers);
        let questions = Questions {
            bucket: self.bucket.clone(),
            objects: self.context.storage.objects().clone(),
            root: self.root.clone(),
        };
        let asked = self.context.run_until_stopped(async move {
            let mut last = answers.lock().await;
            match &*last {
                Some((when, time, facts)) if when.elapsed() < REUSED => (*time, facts.clone()),
                _ => {
                    let facts = Box::pin(questions.ask()).await;
                    let time = SystemTime::now();
                    *last = Some((Instant::now(), time, facts.clone()));
                    (time, facts)
                }
            }
        });
        Ok(asked.ok_or(CatalogError::Stopped)?)
    }
}

/// The questions to the server.
struct Questions {
    bucket: Option<Arc<dyn BucketAudit>>,
    objects: ObjectStorage,
    root: String,
}

impl Questions {
    /// Asks everything at once.
    async fn ask(self) -> BucketFacts {
        let Some(bucket) = &self.bucket else { return BucketFacts::default() };
        let root = &self.root;
        let (anonymous_list, anonymous_read, public_access, versions, unfinished_uploads) = tokio::join!(
            // The server's refusals quote what was asked for.
            Box::pin(hiding_names(Some(root.as_str().into()), in_time(bucket.anonymous_list()))),
            Box::pin(self.anonymous_read(bucket)),
            Box::pin(in_time(bucket.public_access())),
            Box::pin(in_time(bucket.versions(root))),
            Box::pin(in_time(bucket.unfinished_uploads(root))),
        );
        BucketFacts { anonymous_list, anonymous_read, public_access, versions, unfinished_uploads }
    }

    /// Finds an attachment, and asks for it without credentials: servers refuse a read of an object that does not exist too.
    async fn anonymous_read(&self, bucket: &Arc<dyn BucketAudit>) -> Answer<Anonymous> {
        let objects = &self.objects;
        let object = in_time(async move {
            match objects.any_attachment().await {
                Ok(Some(name)) => Answer::Known(name),
                Ok(None) => {
                    Answer::Unknown("no attachment is among the first objects of the list".to_owned())
                }
                Err(error) => Answer::Unknown(error.to_string()),
            }
        });
        match object.await {
            Answer::Known(name) => {
                let hidden = Some(name.as_str().into());
                hiding_names(hidden, in_time(bucket.anonymous_read(&name))).await
            }
            unknown => unknown.map(|_| Anonymous::Allowed),
        }
    }
}

async fn in_time<T>(question: impl Future<Output = Answer<T>>) -> Answer<T> {
    let late = || Answer::Unknown(format!("no answer within {} s", LIMIT.as_secs()));
    timeout(LIMIT, question).await.unwrap_or_else(|_elapsed| late())
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn shown(findings: &[Finding], time: SystemTime) -> Value {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    json!({
        "BucketCheckedAt": iso_8601(time),
        "Critical": count(Severity::Critical),
        "Warnings": count(Severity::Warning),
        "Ok": count(Severity::Ok),
        "Findings": findings,
    })
}
