//! The thread that moves studies.

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
use crate::moving::mover::{Engine, MoveError, Tally};

/// How often free space and time of day are looked at.
const TICK: Duration = Duration::from_secs(30);
/// How often all studies are looked through.
const PASS: Duration = Duration::from_secs(60 * 60);
/// A study that could not be moved is left alone for so long.
const POSTPONE: Duration = Duration::from_secs(60 * 60);
/// Studies asked for at a time.
const PAGE: usize = 100;
/// Attachments that are on their way at once: few, because what users wait for goes first.
const AT_ONCE: usize = 2;
/// Attachments after which the worker looks whether it is to go on.
const BATCH: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A study that has no files cannot become due before that, whatever happens to it.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why the worker ends or gives something up.
pub(super) enum Interrupted {
    Stopped,
    Failed(String),
}

impl From<CatalogError> for Interrupted {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Orthanc(OrthancError::Finalized) => Self::Stopped,
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

/// What the thread owns.
pub(super) struct Worker {
    offload: Arc<Offload>,
    engine: Engine,
    files: FileStorage,
    known: KnownStudies,
}

impl Worker {
    pub(super) fn new(offload: Arc<Offload>, engine: Engine, files: FileStorage) -> Self {
        Self { offload, engine, files, known: KnownStudies::default() }
    }

    pub(super) fn run(mut self) {
        let mut next_pass = Instant::now();
        while self.offload.wait(TICK) {
            let mut round = || {
                self.bring_back()?;
                if Instant::now() >= next_pass && (self.has_limits() || self.is_scheduled()) {
                    next_pass = Instant::now() + PASS;
                    self.look_through()?;
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

    /// Whether studies may be moved for their age now.
    fn is_scheduled(&self) -> bool {
        let now = chrono::Local::now();
        self.offload.options.schedule.is_none_or(|schedule| schedule.contains(now.hour() * 60 + now.minute()))
    }

    /// Looks at all studies that may have become due.
    fn look_through(&mut self) -> Result<(), Interrupted> {
        self.offload.show(Doing::LookingThrough);
        let (catalog, mut seen, mut since) = (self.engine.catalog(), HashSet::new(), 0);
        loop {
            let path = format!("/studies?since={since}&limit={PAGE}&expand");
            let page = catalog.get(&path)?.unwrap_or_default();
            let page = page.as_array().cloned().unwrap_or_default();
            for study in &page {
                self.expect_to_go_on()?;
                let (Some(id), last_update) = (study["ID"].as_str(), study["LastUpdate"].as_str()) else {
                    continue;
                };
                let last_update = last_update.unwrap_or_default();
                seen.insert(id.to_owned());
                if self.known.wants_a_look(id, last_update, SystemTime::now()) {
                    self.look_at(id, last_update)?;
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

    /// Looks at one study. Returns its attachments on the file system.
    fn look_at(&mut self, id: &str, last_update: &str) -> Result<Vec<Indexed>, Interrupted> {
        let catalog = self.engine.catalog();
        let (mut on_files, mut last_used, mut bytes) = (Vec::new(), None, 0);
        for resource in catalog.with_descendants(&Resource::new(Level::Study, id))? {
            for indexed in catalog.attachments(&resource)? {
                let info = self.files.info(&indexed.attachment.uuid);
                if let Some(info) = info.map_err(|error| Interrupted::Failed(error.to_string()))? {
                    last_used = last_used.max(Some(info.last_used));
                    bytes += info.size;
                    on_files.push(indexed);
                }
            }
        }
        let now = SystemTime::now();
        let look_again = match (self.offload.options.after_days.and_then(age), last_used) {
            (Some(age), last_used) => last_used.unwrap_or(now) + age,
            (None, _) => now + LONGEST,
        };
        let last_update = last_update.to_owned();
        self.known.put(id, Study { last_update, last_used, bytes, look_again });
        Ok(on_files)
    }

    /// Moves the studies that nobody has used for long enough.
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

    /// Moves studies, the longest unused first, until there is room.
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

    /// Bytes that are too many on the file system.
    fn excess(&self) -> Result<u64, Interrupted> {
        let options = &self.offload.options;
        let mut excess = 0;
        if options.keep_free > 0 {
            let free = fs4::available_space(self.files.root())
                .map_err(|error| Interrupted::Failed(format!("the free space is not known: {error}")))?;
            excess = options.keep_free.saturating_sub(free);
        }
        if options.max_file_system > 0 {
            let (_, bytes) = self.known.on_file_system();
            excess = excess.max(bytes.saturating_sub(options.max_file_system));
        }
        Ok(excess)
    }

    /// Moves a study, unless it was used since `limit`. A study that cannot be moved is left alone for a while.
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
        let attachments = self.look_at(id, last_update)?;
        if !self.known.is_unused_since(id, limit) {
            return Ok(());
        }
        let mut moved = Tally::default();
        for batch in attachments.chunks(BATCH) {
            self.expect_to_go_on()?;
            moved.add(self.engine.relocate(batch.to_vec(), Side::ObjectStorage, AT_ONCE)?);
        }
        let counts = &self.offload.counts;
        counts.studies.fetch_add(1, Ordering::Relaxed);
        counts.attachments.fetch_add(moved.moved, Ordering::Relaxed);
        counts.bytes.fetch_add(moved.bytes, Ordering::Relaxed);
        tracing::info!("offloaded the study {id}: {} attachments, {} bytes", moved.moved, moved.bytes);
        self.look_at(id, last_update)?;
        self.show_known();
        Ok(())
    }

    /// Brings back what was read from the bucket, as long as there is room.
    fn bring_back(&mut self) -> Result<(), Interrupted> {
        loop {
            let wanted = self.offload.take_wanted(BATCH);
            if wanted.is_empty() {
                return Ok(());
            }
            self.expect_to_go_on()?;
            if self.has_limits() && self.excess()? > 0 {
                continue;
            }
            self.offload.show(Doing::BringingBack);
            let moved = self.engine.bring_back(wanted, AT_ONCE)?;
            let counts = &self.offload.counts;
            counts.brought_back.fetch_add(moved.moved, Ordering::Relaxed);
            counts.brought_back_bytes.fetch_add(moved.bytes, Ordering::Relaxed);
        }
    }

    fn show_known(&self) {
        let mut state = self.offload.state.lock();
        (state.studies, state.bytes) = self.known.on_file_system();
    }

    fn expect_to_go_on(&self) -> Result<(), Interrupted> {
        match self.offload.state.lock().stopping || self.engine.is_stopping() {
            true => Err(Interrupted::Stopped),
            false => Ok(()),
        }
    }
}

/// `None` for ages beyond all measure.
fn age(days: u64) -> Option<Duration> {
    DAY.checked_mul(u32::try_from(days).ok()?)
}
