//! The routes: `/move-storage`, `/object-storage/status` and `/object-storage/locations/{id}`.

mod locations;
pub(crate) mod metrics;

use std::path::PathBuf;
use std::sync::Arc;

use orthanc_ffi::{Method, Orthanc, OrthancError, RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};

use self::metrics::Metrics;
use crate::area::deletion::Deletions;
use crate::context::Context;
use crate::moving::move_storage;
use crate::moving::mover::Mover;
use crate::offload::Offload;

/// What follows from the configuration: see [`crate::start::summary`].
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: &'static str,
    pub(crate) commit: Option<&'static str>,
    pub(crate) provider: &'static str,
    pub(crate) bucket: String,
    pub(crate) endpoint: String,
    pub(crate) region: Option<String>,
    /// `RootPath`, without a slash at its end.
    pub(crate) root: String,
    /// `StorageStructure`, as spelled in the configuration.
    pub(crate) structure: &'static str,
    /// `HybridMode`, as spelled in the configuration.
    pub(crate) mode: &'static str,
    /// `StorageDirectory` in the hybrid modes.
    pub(crate) files: Option<PathBuf>,
    pub(crate) state: PathBuf,
    /// Without its password.
    pub(crate) proxy: Option<String>,
    /// Where the credentials come from.
    pub(crate) credentials: String,
    /// Format, key ids and fingerprints; null without encryption.
    pub(crate) encryption: Value,
}

/// What the routes need to answer.
pub(crate) struct Routes {
    pub(crate) mover: Mover,
    pub(crate) facts: Facts,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) deletions: Deletions,
    pub(crate) offload: Option<Arc<Offload>>,
}

impl Routes {
    /// Registers the routes with Orthanc.
    pub(crate) fn register(self, orthanc: &Orthanc) -> Result<(), OrthancError> {
        let routes = Arc::new(self);
        if routes.context().storage.files().is_some() {
            let mover = routes.mover.clone();
            orthanc.register_rest("/move-storage", move |request| move_storage(&mover, request))?;
        }
        let status = Arc::clone(&routes);
        orthanc.register_rest("/object-storage/status", move |request| {
            only_get(request)?;
            Ok(RestAnswer::json(&status.status()))
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
            "Encryption": facts.encryption,
            "Retries": storage.objects().retries(),
            "UptimeSeconds": self.metrics.uptime(),
            "Requests": self.metrics.to_json(),
            "Last": self.metrics.last(),
            "Deletions": self.deletions.to_json(),
        });
        if let Some(files) = storage.files() {
            status["StorageDirectory"] = json!(files.root());
            status["ReadsFromSecondStorage"] = json!(storage.reads_from_second());
        }
        if let Some(offload) = &self.offload {
            status["Offload"] = offload.to_json();
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
