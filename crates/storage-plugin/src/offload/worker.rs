//! The thread that moves unused studies.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use chrono::Timelike as _;
use hybrid::{FileStorage, Side};
use orthanc_ffi::OrthancError;

use super::known::{KnownStudies, Study};
use super::{Doing, Offload};
use crate::catalog::{CatalogError, Indexed, Level, Resource};
use crate::moving::mover::{MoveError, Mover, Tally};

/// How often to check free space and the time of day.
const TICK: Duration = Duration::from_secs(30);
/// How often to check all studies.
const PASS: Duration = Duration::from_secs(60 * 60);
/// How long to wait after a failed move of a study.
const POSTPONE: Duration = Duration::from_secs(60 * 60);
/// Number of studies in one request to the index.
const PAGE: usize = 100;
/// Attachments moved at once. The number is small because users' requests come first.
const AT_ONCE: usize = 2;
/// Number of attachments after which the worker checks whether to stop.
const BATCH: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a study without files is left alone.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why the worker stops or skips a study.
pub(super) enum Interrupted {
    Stopped,
    Failed(String),
}

impl From<CatalogError> for Interrupted {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Stopped | CatalogError::Orthanc(OrthancError::Finalized) => Self::Stopped,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<MoveError> for Interrupted {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Stopped => Self::Stopped,
            MoveError::Catalog(error) => error.into(),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// The state of the thread.
pub(super) struct Worker {
    offload: Arc<Offload>,
    mover: Mover,
    files: FileStorage,
    known: KnownStudies,
}

impl Worker {
    pub(super) fn new(offload: Arc<Offload>, mover: Mover, files: FileStorage) -> Self {
        Self { offload, mover, files, known: KnownStudies::default() }
    }

    pub(super) fn run(mut self) {
        let mut next_pass = Instant::now();
        while self.offload.wait(TICK) {
            let mut round = || {
                self.bring_back()?;
                if Instant::now() >= next_pass && (self.has_limits() || self.is_scheduled()) {
                    next_pass = Instant::now() + PASS;
                    self.check_all()?;
                }
                self.move_aged()?;
                self.relieve()
            };
            match round() {
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::Failed(error)) => self.offload.report(error),
                Ok(()) => {}
            }
            self.offload.show(Doing::Waiting);
        }
    }

    fn has_limits(&self) -> bool {
        self.offload.options.keep_free > 0 || self.offload.options.max_file_system > 0
    }

    /// Whether the schedule allows moving studies because of their age now.
    fn is_scheduled(&self) -> bool {
        let now = chrono::Local::now();
        self.offload.options.schedule.is_none_or(|schedule| schedule.contains(now.hour() * 60 + now.minute()))
    }

    /// Checks all studies that may have become due.
    fn check_all(&mut self) -> Result<(), Interrupted> {
        self.offload.show(Doing::CheckingStudies);
        let catalog = self.mover.context.catalog();
        let mut seen = HashSet::new();
        let mut since = 0;
        loop {
            let path = format!("/studies?since={since}&limit={PAGE}&expand");
            let answer = catalog.get(&path)?.unwrap_or_default();
            let page = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            for study in page {
                self.fail_if_stopping()?;
                let Some(id) = study["ID"].as_str() else { continue };
                let last_update = study["LastUpdate"].as_str().unwrap_or_default();
                seen.insert(id.to_owned());
                if self.known.is_due_for_a_check(id, last_update, SystemTime::now()) {
                    self.check(id, last_update)?;
                }
            }
            since += page.len();
            if page.len() < PAGE {
                break;
            }
        }
        self.known.retain(&seen);
        self.show_known();
        Ok(())
    }

    /// Checks one study. Returns its attachments in the file system.
    fn check(&mut self, id: &str, last_update: &str) -> Result<Vec<Indexed>, Interrupted> {
        let catalog = self.mover.context.catalog();
        let mut in_files = Vec::new();
        let mut last_used = None;
        let mut bytes = 0;
        for resource in catalog.with_descendants(&Resource::new(Level::Study, id))? {
            for indexed in catalog.attachments(&resource)? {
                let info = self.files.info(&indexed.attachment.uuid);
                if let Some(info) = info.map_err(|error| Interrupted::Failed(error.to_string()))? {
                    last_used = last_used.max(Some(info.last_used));
                    bytes += info.size;
                    in_files.push(indexed);
                }
            }
        }
        let now = SystemTime::now();
        let next_check = match (self.offload.options.after_days.and_then(age), last_used) {
            (Some(age), last_used) => last_used.unwrap_or(now) + age,
            (None, _) => now + LONGEST,
        };
        let last_update = last_update.to_owned();
        self.known.put(id, Study { last_update, last_used, bytes, next_check });
        Ok(in_files)
    }

    /// Moves the studies that have not been used for `AfterDays`.
    fn move_aged(&mut self) -> Result<(), Interrupted> {
        let Some(age) = self.offload.options.after_days.and_then(age) else { return Ok(()) };
        let Some(limit) = SystemTime::now().checked_sub(age) else { return Ok(()) };
        for id in self.known.unused_since(limit) {
            if !self.is_scheduled() {
                return Ok(());
            }
            self.move_study(&id, limit)?;
        }
        Ok(())
    }

    /// Moves studies, least recently used first, until the limits are met.
    fn relieve(&mut self) -> Result<(), Interrupted> {
        if !self.has_limits() || self.excess()? == 0 {
            return Ok(());
        }
        for id in self.known.unused_since(SystemTime::now()) {
            self.move_study(&id, SystemTime::now())?;
            if self.excess()? == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bytes by which the file system exceeds its limits.
    fn excess(&self) -> Result<u64, Interrupted> {
        let options = &self.offload.options;
        let mut excess = 0;
        if options.keep_free > 0 {
            let free = fs4::available_space(self.files.root())
                .map_err(|error| Interrupted::Failed(format!("cannot determine the free space: {error}")))?;
            excess = options.keep_free.saturating_sub(free);
        }
        if options.max_file_system > 0 {
            excess = excess.max(self.known.bytes().saturating_sub(options.max_file_system));
        }
        Ok(excess)
    }

    /// Moves a study unless it has been used since `limit`. After a failure, the study is postponed.
    fn move_study(&mut self, id: &str, limit: SystemTime) -> Result<(), Interrupted> {
        self.offload.show(Doing::Moving);
        let last_update = self.known.last_update(id);
        match self.try_to_move(id, &last_update, limit) {
            Err(Interrupted::Failed(error)) => {
                self.offload.report(error);
                self.known.postpone(id, SystemTime::now() + POSTPONE);
                Ok(())
            }
            done => done,
        }
    }

    fn try_to_move(&mut self, id: &str, last_update: &str, limit: SystemTime) -> Result<(), Interrupted> {
        let attachments = self.check(id, last_update)?;
        if !self.known.is_unused_since(id, limit) {
            return Ok(());
        }
        let mut moved = Tally::default();
        for batch in attachments.chunks(BATCH) {
            self.fail_if_stopping()?;
            moved.add(self.mover.move_all(batch.to_vec(), Side::ObjectStorage, AT_ONCE)?);
        }
        let counts = &self.offload.counts;
        counts.studies.fetch_add(1, Ordering::Relaxed);
        counts.attachments.fetch_add(moved.moved, Ordering::Relaxed);
        counts.bytes.fetch_add(moved.bytes, Ordering::Relaxed);
        tracing::info!("offloaded study {id}: {} attachments, {} bytes", moved.moved, moved.bytes);
        self.check(id, last_update)?;
        self.show_known();
        Ok(())
    }

    /// Brings back attachments that were read from the bucket, as long as there is room.
    fn bring_back(&mut self) -> Result<(), Interrupted> {
        loop {
            let wanted = self.offload.take_wanted(BATCH);
            if wanted.is_empty() {
                return Ok(());
            }
            self.fail_if_stopping()?;
            if self.has_limits() && self.excess()? > 0 {
                continue;
            }
            self.offload.show(Doing::BringingBack);
            let moved = self.mover.bring_back(wanted, AT_ONCE)?;
            let counts = &self.offload.counts;
            counts.brought_back.fetch_add(moved.moved, Ordering::Relaxed);
            counts.brought_back_bytes.fetch_add(moved.bytes, Ordering::Relaxed);
        }
    }

    fn show_known(&self) {
        let mut state = self.offload.state.lock();
        state.studies = self.known.studies();
        state.bytes = self.known.bytes();
    }

    fn fail_if_stopping(&self) -> Result<(), Interrupted> {
        match self.offload.state.lock().stopping || self.mover.context.is_stopping() {
            true => Err(Interrupted::Stopped),
            false => Ok(()),
        }
    }
}

/// `None` on overflow.
fn age(days: u64) -> Option<Duration> {
    DAY.checked_mul(u32::try_from(days).ok()?)
}
