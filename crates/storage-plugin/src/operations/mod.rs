//! The routes: `/move-storage` and those below `/object-storage/`.

pub(crate) mod app;
pub(crate) mod figures;
mod flush;
pub(crate) mod history;
pub(crate) mod key_calls;
mod locations;
pub(crate) mod metrics;
mod problems;
mod query;
mod reports;
pub(crate) mod verifications;
mod write_back;

use std::sync::Arc;

use orthanc_ffi::{Method, Orthanc, OrthancError, RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};

use self::figures::Figures;
use self::history::History;
use crate::audit::Auditor;
use crate::context::Context;
use crate::moving::{Mover, Task, start_move};
use crate::orphans::{Finder, start_find};
use crate::reencrypting::{self, Reencryption};
use crate::restoring::{Restorer, start_restore};
use crate::start::summary::{EncryptionFacts, Facts};
use crate::verifying::{self, Verifier, start_verification};

/// The job types whose reports have a census of the archive.
const CENSUSES: [&str; 2] = [verifying::JOB_TYPE, reencrypting::JOB_TYPE];

/// What the routes need to answer.
pub(crate) struct Routes {
    pub(crate) mover: Mover,
    pub(crate) reencryption: Reencryption,
    pub(crate) verifier: Verifier,
    pub(crate) finder: Finder,
    pub(crate) restorer: Restorer,
    pub(crate) facts: Facts,
    pub(crate) figures: Figures,
    pub(crate) history: Arc<History>,
    pub(crate) auditor: Arc<Auditor>,
}

impl Routes {
    /// Registers the routes with Orthanc.
    pub(crate) fn register(self, orthanc: &Orthanc) -> Result<(), OrthancError> {
        let routes = Arc::new(self);
        if routes.context().storage.files().is_some() {
            let mover = routes.mover.clone();
            orthanc.register_rest("/move-storage", move |request| start_move(&mover, Task::Move, request))?;
        }
        // In all modes, since attachments may be pending when the mode is changed.
        let context = routes.context().clone();
        orthanc.register_rest("/object-storage/flush", move |request| flush::answer(&context, request))?;
        let mover = routes.mover.clone();
        orthanc.register_rest("/object-storage/prefetch", move |request| {
            start_move(&mover, Task::Prefetch, request)
        })?;
        let reencryption = routes.reencryption.clone();
        let server = orthanc.clone();
        orthanc.register_rest("/object-storage/reencrypt", move |request| {
            reencryption.start(&server, request)
        })?;
        let finder = routes.finder.clone();
        let server = orthanc.clone();
        orthanc
            .register_rest("/object-storage/orphans", move |request| start_find(&server, &finder, request))?;
        let restorer = routes.restorer.clone();
        let server = orthanc.clone();
        orthanc.register_rest("/object-storage/restore", move |request| {
            start_restore(&server, &restorer, request)
        })?;
        let status = Arc::clone(&routes);
        orthanc.register_rest("/object-storage/status", move |request| {
            only_get(request)?;
            Ok(RestAnswer::json(&status.status()))
        })?;
        let history = Arc::clone(&routes.history);
        orthanc.register_rest("/object-storage/history", move |request| {
            only_get(request)?;
            history.answer(request)
        })?;
        let auditor = Arc::clone(&routes.auditor);
        orthanc.register_rest("/object-storage/audit", move |request| {
            only_get(request)?;
            auditor.answer()
        })?;
        let (host, verifier) = (routes.mover.host.clone(), routes.verifier.clone());
        orthanc.register_rest("/object-storage/verify", move |request| {
            start_verification(&verifier, &host, request)
        })?;
        let host = routes.mover.host.clone();
        orthanc.register_rest("/object-storage/reports", move |request| {
            only_get(request)?;
            reports::list(&host)
        })?;
        let host = routes.mover.host.clone();
        orthanc.register_rest("/object-storage/reports/([^/]+)", move |request| {
            only_get(request)?;
            reports::page(&host, request)
        })?;
        orthanc.register_rest("/object-storage/locations/([^/]*)", move |request| {
            only_get(request)?;
            locations::answer(routes.context(), request)
        })
    }

    fn context(&self) -> &Context {
        &self.mover.context
    }

    fn status(&self) -> Value {
        let Context { storage, orthanc, .. } = self.context();
        let facts = &self.facts;
        let mut status = json!({
            "Plugin": orthanc.plugin_name(),
            "Version": facts.version,
            "Commit": facts.commit,
            "Provider": facts.provider,
            "Bucket": facts.bucket,
            "Endpoint": facts.endpoint,
            "Region": facts.region,
            "RootPath": facts.root,
            "StorageStructure": facts.structure,
            "HybridMode": facts.mode,
            "Proxy": facts.proxy,
            "Credentials": facts.credentials,
            "Encryption": facts.encryption.as_ref().map(EncryptionFacts::to_json),
            "Features": {
                "Move": storage.files().is_some(),
                "Prefetch": storage.local().is_some_and(|local| local.has_cache()),
                "Restore": storage.objects().restore_client().is_some(),
            },
        });
        if let (Value::Object(status), Value::Object(figures)) = (&mut status, self.figures.to_json()) {
            status.extend(figures);
        }
        if let Some(calls) = &self.figures.key_calls {
            status["Encryption"]["KeyServiceCalls"] = calls.to_json();
        }
        let host = &self.mover.host;
        status["Census"] = match host.reports.as_ref().map(|reports| reports.census(&CENSUSES, &host.place)) {
            Some(Ok(census)) => json!(census),
            Some(Err(error)) => json!({"Error": error.to_string()}),
            None => Value::Null,
        };
        if let Some(counts) = &self.figures.stow {
            status["StowRs"] = counts.to_json();
        }
        if let Some(files) = storage.files() {
            status["StorageDirectory"] = json!(files.root());
            status["ReadsFromSecondStorage"] = json!(storage.reads_from_second());
        }
        if let Some(write_back) = write_back::to_json(storage) {
            status["WriteBack"] = write_back;
        }
        status
    }
}

fn only_get(request: &RestRequest<'_>) -> Result<(), RestFailure> {
    match request.method() {
        Method::Get => Ok(()),
        _ => Err(RestFailure::MethodNotAllowed { allow: "GET" }),
    }
}
