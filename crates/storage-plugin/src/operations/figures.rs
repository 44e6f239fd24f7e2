//! The figures behind `status`, the history and Orthanc's metrics. None of them waits for the bucket.

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hybrid::{DeletionMarkers, HybridStorage, StateDirectory};
use orthanc_ffi::Orthanc;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval_at};

use super::history::{History, Levels, STEP, Totals};
use super::key_calls::KeyServiceCalls;
use super::metrics::Metrics;
use super::problems::{Observed, state};
use super::verifications::Verifications;
use super::write_back;
use crate::stow::Counts;

/// Where the figures come from. Tasks may hold it, since it does not hold the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) storage: HybridStorage,
    /// Where deletions are marked; `None` if there is no place to write.
    pub(crate) state: Option<Arc<StateDirectory>>,
    pub(crate) deletion_delay: Duration,
    /// Of the STOW-RS gateway, if there is one.
    pub(crate) stow: Option<Arc<Counts>>,
    /// `None` if no key service is configured.
    pub(crate) key_calls: Option<Arc<KeyServiceCalls>>,
    pub(crate) verifications: Arc<Verifications>,
}

impl Figures {
    /// Adds a sample to the history each minute, and keeps up with the reports of verifications.
    pub(crate) async fn sample(self, history: Arc<History>) {
        let mut ticks = interval_at(self.metrics.since + STEP, STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let figures = self.clone();
            let history = Arc::clone(&history);
            // Not on the thread of the network, which must not wait for a disk that hangs.
            let sampled = spawn_blocking(move || {
                history.add(figures.metrics.uptime(), SystemTime::now(), figures.totals(), figures.levels());
                figures.verifications.refresh();
            });
            // The panic hook has logged a panic.
            drop(sampled.await);
            ticks.tick().await;
        }
    }

    fn totals(&self) -> Totals {
        let [stores, reads, removals] = self.metrics.totals();
        let cache = self.storage.local().map(|local| local.totals().cache);
        Totals {
            stores,
            reads,
            removals,
            retries: self.storage.objects().retries(),
            cache_hits: cache.as_ref().map_or(0, |cache| cache.hits),
            cache_misses: cache.as_ref().map_or(0, |cache| cache.misses),
        }
    }

    fn levels(&self) -> Levels {
        let observed = self.observed();
        let local = observed.local.as_ref();
        Levels {
            pending_files: local.map_or(0, |local| local.pending),
            pending_bytes: local.map_or(0, |local| local.pending_bytes),
            cache_bytes: local.map_or(0, |local| local.cache.bytes),
            deletions: self.markers().map_or(0, DeletionMarkers::pending),
            is_outage: observed.is_outage(),
        }
    }

    fn markers(&self) -> Option<&DeletionMarkers> {
        self.state.as_ref().map(|state| state.markers())
    }

    /// Age of the oldest pending deletion.
    fn oldest_deletion(&self) -> Option<Duration> {
        let age = |oldest: SystemTime| oldest.elapsed().unwrap_or_default();
        self.markers().and_then(DeletionMarkers::oldest).map(age)
    }

    /// How long the oldest deletion could have been done.
    fn deletion_overdue(&self) -> Duration {
        self.oldest_deletion().unwrap_or_default().saturating_sub(self.deletion_delay)
    }

    /// The field `Deletions` of `GET /object-storage/status`.
    pub(super) fn deletions(&self) -> Value {
        json!({
            "StateDirectory": self.state.as_ref().map(|state| state.folder()),
            "Pending": self.markers().map_or(0, DeletionMarkers::pending),
            "OldestSeconds": self.oldest_deletion().map(|age| age.as_secs()),
        })
    }

    fn observed(&self) -> Observed {
        let local = self.storage.local();
        let options = local.map(|local| local.options());
        let [store, read] = self.metrics.failing();
        Observed {
            store,
            read,
            key_service: self.key_calls.as_ref().and_then(|calls| calls.failing()),
            has_state: self.state.is_some(),
            local: local.map(|local| local.totals()),
            upload_delay: options.map(|options| options.upload_delay).unwrap_or_default(),
            keep_free: options.map_or(0, |options| options.keep_free),
            deletion_overdue: self.deletion_overdue(),
            verification: self.verifications.overview(),
            uptime: self.metrics.uptime(),
        }
    }

    /// The fields of `GET /object-storage/status` that are figures.
    pub(super) fn to_json(&self) -> Value {
        self.verifications.refresh();
        let problems = self.observed().problems();
        json!({
            "State": state(&problems).as_str(),
            "Problems": problems.iter().map(|problem| problem.to_json()).collect::<Value>(),
            "Retries": self.storage.objects().retries(),
            "UptimeSeconds": self.metrics.uptime().as_secs(),
            "Requests": self.metrics.to_json(),
            "Last": self.metrics.last(),
            "Deletions": self.deletions(),
            "Verification": self.verifications.to_json(),
        })
    }

    /// Sets Orthanc's metrics to the current figures.
    pub(crate) fn publish(&self, orthanc: &Orthanc) {
        for (name, value) in self.values() {
            let name = CString::new(format!("object_storage_{name}")).unwrap_or_default();
            // Orthanc asks again, and an error line each time would help nobody.
            let _ = orthanc.set_metric(&name, value);
        }
    }

    /// All metrics, with their names.
    fn values(&self) -> Vec<(String, u64)> {
        let seconds = |time: Duration| time.as_secs();
        let mut others = vec![
            ("uptime_seconds", seconds(self.metrics.uptime())),
            ("state", state(&self.observed().problems()) as u64),
            ("retries", self.storage.objects().retries()),
            ("deletions_pending", self.markers().map_or(0, DeletionMarkers::pending)),
            ("deletions_oldest_seconds", self.oldest_deletion().map_or(0, seconds)),
            ("deletions_overdue_seconds", seconds(self.deletion_overdue())),
        ];
        let verification = self.verifications.overview();
        others.extend(verification.every.map(|every| ("verification_every_seconds", seconds(every))));
        if let Some(last) = verification.last {
            others.push(("verification_age_seconds", seconds(last.age)));
            others.push(("verification_failures", last.failures));
        }
        others.extend(self.key_calls.iter().flat_map(|calls| calls.metrics()));
        others.extend(write_back::metrics(&self.storage));
        others.extend(self.stow.iter().flat_map(|counts| counts.metrics()));
        let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.metrics.values().into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests;
