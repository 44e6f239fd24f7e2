//! Counts the gateway's requests since the start, for `GET /object-storage/status` and Orthanc's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use stow_gateway::Report;

/// Counts since the start of the plugin.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    /// Requests of which nothing was stored.
    failures: AtomicU64,
    instances: AtomicU64,
    instance_failures: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Counts a request whose headers are wrong.
    pub(super) fn refused(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was received.
    pub(super) fn received(&self, report: &Report) {
        let stored = report.stored() as u64;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(stored == 0), Ordering::Relaxed);
        self.instances.fetch_add(stored, Ordering::Relaxed);
        self.instance_failures.fetch_add(report.outcomes.len() as u64 - stored, Ordering::Relaxed);
        self.bytes.fetch_add(report.stored_bytes, Ordering::Relaxed);
    }

    fn values(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            ("Requests", "stow_requests", &self.requests),
            ("Failures", "stow_failures", &self.failures),
            ("Instances", "stow_instances", &self.instances),
            ("InstanceFailures", "stow_instance_failures", &self.instance_failures),
            ("Bytes", "stow_bytes", &self.bytes),
        ]
        .map(|(name, metric, value)| (name, metric, value.load(Ordering::Relaxed)))
    }

    /// All counts, as the route returns them.
    pub(crate) fn to_json(&self) -> Value {
        self.values().into_iter().map(|(name, _, value)| (name.to_owned(), json!(value))).collect()
    }

    /// All counts, with their names in metrics.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.values().into_iter().map(|(_, metric, value)| (metric, value))
    }
}
