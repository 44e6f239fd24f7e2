//! A whole plugin in one file: attachments in memory, a REST route, and a job.
//!
//! Configuration (all optional): `{"MemoryPlugin": {"Ranges": true, "Verbose": ["target"]}}`. Routes:
//! `GET /memory/status`, `GET /memory/attachments/{uuid}`, `POST /memory/count` (a job that counts to the number in the
//! body).

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;

use bytes::Bytes;
use orthanc_ffi::{
    ContentType, ErrorCode, InitializeError, Job, JobStep, Method, Orthanc, Plugin, Ranges, RestAnswer,
    RestFailure, RestRequest, StopReason, StorageArea, Target, WholeTarget,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

struct MemoryPlugin;

impl Plugin for MemoryPlugin {
    const NAME: &'static CStr = c"Memory";
    const VERSION: &'static CStr = c"0.1";

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing(&[]);
        let configuration = orthanc.configuration()?;
        let Some(section) = configuration.get("MemoryPlugin") else {
            tracing::warn!(
                "no section MemoryPlugin in the configuration: attachments are not kept in memory"
            );
            return Ok(Self);
        };
        let ranges = match &section["Ranges"] {
            Value::Null | Value::Bool(true) => Ranges::Served,
            Value::Bool(false) => Ranges::NotServed,
            other => {
                return Err(InitializeError::new(format!(
                    "MemoryPlugin.Ranges is {other}; use true or false"
                )));
            }
        };
        orthanc.set_description("Keeps the Orthanc storage area in memory")?;

        let area = Arc::new(Memory::default());
        orthanc.register_storage_area(Arc::clone(&area) as Arc<dyn StorageArea>, ranges)?;
        let status = Arc::clone(&area);
        let status_host = orthanc.clone();
        orthanc.register_rest("/memory/status", move |request| {
            if request.method() != Method::Get {
                return Err(RestFailure::MethodNotAllowed { allow: "GET" });
            }
            let bytes: usize = status.attachments.lock().values().map(Vec::len).sum();
            status_host.set_metric("memory_plugin_attachments", status.attachments.lock().len() as f32);
            Ok(RestAnswer::json(&json!({"Attachments": status.attachments.lock().len(), "Bytes": bytes})))
        })?;
        orthanc.register_rest("/memory/attachments/([^/]+)", move |request| show(&area, request))?;
        let job_host = orthanc.clone();
        orthanc.register_rest("/memory/count", move |request| {
            let to = serde_json::from_slice(request.body())
                .map_err(|error| RestFailure::bad_request(format!("the body must be a number: {error}")))?;
            let id = job_host.submit_job("Count", Box::new(Count { at: 0, to }), 0)?;
            Ok(RestAnswer::json(&json!({"ID": id, "Path": format!("/jobs/{id}")})))
        })?;
        orthanc.register_job_unserializer(|job_type, saved| {
            let (at, to) = (saved["At"].as_u64()?, saved["To"].as_u64()?);
            (job_type == "Count").then(|| Box::new(Count { at, to }) as Box<dyn Job>)
        })?;
        tracing::info!(ranges = ?ranges, "attachments are kept in memory");
        Ok(Self)
    }
}

orthanc_ffi::export_plugin!(MemoryPlugin);

#[derive(Default)]
struct Memory {
    attachments: Mutex<HashMap<(String, ContentType), Vec<u8>>>,
}

impl StorageArea for Memory {
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        tracing::info!(uuid, content_type = content_type.as_raw(), bytes = content.len(), "create");
        self.attachments.lock().insert((uuid.to_owned(), content_type), content.to_vec());
        Ok(())
    }

    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode> {
        let attachments = self.attachments.lock();
        let content = attachments.get(&(uuid.to_owned(), content_type)).ok_or(ErrorCode::INEXISTENT_FILE)?;
        tracing::info!(uuid, content_type = content_type.as_raw(), bytes = content.len(), "read");
        target.allocate(content.len() as u64)?.append(content).map_err(|_| ErrorCode::STORAGE_AREA_PLUGIN)
    }

    fn read_range(
        &self,
        uuid: &str,
        content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode> {
        let attachments = self.attachments.lock();
        let content = attachments.get(&(uuid.to_owned(), content_type)).ok_or(ErrorCode::INEXISTENT_FILE)?;
        let start = usize::try_from(start).map_err(|_| ErrorCode::BAD_RANGE)?;
        let end = start.checked_add(target.len()).ok_or(ErrorCode::BAD_RANGE)?;
        let range = content.get(start..end).ok_or(ErrorCode::BAD_RANGE)?;
        tracing::info!(uuid, content_type = content_type.as_raw(), start, bytes = range.len(), "range");
        target.append(range).map_err(|_| ErrorCode::STORAGE_AREA_PLUGIN)
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        tracing::info!(uuid, content_type = content_type.as_raw(), "remove");
        let removed = self.attachments.lock().remove(&(uuid.to_owned(), content_type));
        removed.map(|_| ()).ok_or(ErrorCode::INEXISTENT_FILE)
    }
}

fn show(area: &Memory, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    let wanted = request.groups().first().copied().unwrap_or_default();
    let attachments = area.attachments.lock();
    let found: Vec<_> = attachments
        .iter()
        .filter(|((uuid, _), _)| uuid == wanted)
        .map(|((_, content_type), content)| json!({"Type": content_type.as_raw(), "Bytes": content.len()}))
        .collect();
    if found.is_empty() {
        return Err(RestFailure::not_found(format!("no attachment {wanted}")));
    }
    Ok(RestAnswer::json(&Value::Array(found)))
}

/// Counts, one number a step.
struct Count {
    at: u64,
    to: u64,
}

impl Job for Count {
    fn step(&mut self) -> JobStep {
        self.at += 1;
        if self.at >= self.to { JobStep::Success } else { JobStep::Continue }
    }

    fn stop(&mut self, reason: StopReason) {
        tracing::info!(?reason, at = self.at, "the job stops");
    }

    fn reset(&mut self) {
        self.at = 0;
    }

    fn progress(&self) -> f32 {
        if self.to == 0 { 1.0 } else { self.at as f32 / self.to as f32 }
    }

    fn content(&self) -> Value {
        json!({"At": self.at, "To": self.to})
    }

    fn serialized(&self) -> Option<Value> {
        Some(json!({"At": self.at, "To": self.to}))
    }
}
