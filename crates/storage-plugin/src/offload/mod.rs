//! Studies that nobody uses move from the file system to the bucket, in the background.
//!
//! How long a study has not been used is told by its files: reads note themselves in the time of modification (see
//! `FileStorageOptions::note_use`), so there is nothing else to be kept, and nothing to be lost when Orthanc stops. What
//! is remembered here is only when to look at which study again.

mod known;
mod worker;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hybrid::FileStorage;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use storage_layout::Attachment;

use self::worker::Worker;
use crate::config::OffloadOptions;
use crate::moving::mover::Engine;

/// Attachments that wait to be brought back. Further ones are brought back when they are read again.
const LONGEST_QUEUE: usize = 10_000;
/// Reads are noted so precisely.
pub(crate) const PRECISION: Duration = Duration::from_secs(60 * 60);
const MEGABYTE: u64 = 1024 * 1024;

/// The worker, as others see it.
#[derive(Debug)]
pub(crate) struct Offload {
    options: OffloadOptions,
    state: Mutex<State>,
    changed: Condvar,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    doing: Doing,
    started: bool,
    stopping: bool,
    /// The first round comes at once, the others after a while.
    begun: bool,
    wanted: VecDeque<Attachment>,
    waiting: HashSet<Attachment>,
    studies: usize,
    bytes: u64,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    Waiting,
    LookingThrough,
    Moving,
    BringingBack,
}

#[derive(Debug, Default)]
struct Counts {
    studies: AtomicU64,
    attachments: AtomicU64,
    bytes: AtomicU64,
    brought_back: AtomicU64,
    brought_back_bytes: AtomicU64,
    failures: AtomicU64,
}

impl Offload {
    pub(crate) fn new(options: OffloadOptions) -> Arc<Self> {
        let state = State {
            doing: Doing::Waiting,
            started: false,
            stopping: false,
            begun: false,
            wanted: VecDeque::new(),
            waiting: HashSet::new(),
            studies: 0,
            bytes: 0,
            last_error: None,
        };
        Arc::new(Self {
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
            counts: Counts::default(),
        })
    }

    /// Starts the thread, which waits for [`begin`](Self::begin).
    pub(crate) fn spawn(
        self: &Arc<Self>,
        engine: Engine,
        files: FileStorage,
    ) -> std::io::Result<JoinHandle<()>> {
        let offload = Arc::clone(self);
        let worker = move || Worker::new(offload, engine, files).run();
        std::thread::Builder::new().name("offload".to_owned()).spawn(worker)
    }

    /// Orthanc can be asked from now on.
    pub(crate) fn begin(&self) {
        self.state.lock().started = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// An attachment was read from the bucket.
    pub(crate) fn was_read_from_bucket(&self, attachment: Attachment) {
        if !self.options.bring_back {
            return;
        }
        let mut state = self.state.lock();
        if state.wanted.len() < LONGEST_QUEUE && state.waiting.insert(attachment) {
            state.wanted.push_back(attachment);
            self.changed.notify_all();
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let (options, state) = (&self.options, self.state.lock());
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "AfterDays": options.after_days,
            "KeepFreeMB": options.keep_free / MEGABYTE,
            "MaxFileSystemMB": options.max_file_system / MEGABYTE,
            "BringBack": options.bring_back,
            "State": match state.doing {
                Doing::Waiting => "waiting",
                Doing::LookingThrough => "looking through the studies",
                Doing::Moving => "moving",
                Doing::BringingBack => "bringing back",
            },
            "StudiesOnFileSystem": state.studies,
            "BytesOnFileSystem": state.bytes,
            "MovedStudies": count(&self.counts.studies),
            "MovedAttachments": count(&self.counts.attachments),
            "MovedBytes": count(&self.counts.bytes),
            "BroughtBackAttachments": count(&self.counts.brought_back),
            "BroughtBackBytes": count(&self.counts.brought_back_bytes),
            "WaitingToBeBroughtBack": state.wanted.len(),
            "Failures": count(&self.counts.failures),
            "LastError": state.last_error,
        })
    }

    /// Waits for a round: the first, one in which there is something to bring back, or one after `limit`. `false`:
    /// Orthanc stops.
    fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return false;
            }
            let due = !state.begun || !state.wanted.is_empty() || Instant::now() >= deadline;
            if state.started && due {
                state.begun = true;
                return true;
            }
            self.changed.wait_for(&mut state, limit);
        }
    }

    /// The next attachments to be brought back, `most` at most.
    fn take_wanted(&self, most: usize) -> Vec<Attachment> {
        let mut state = self.state.lock();
        let count = state.wanted.len().min(most);
        let wanted: Vec<Attachment> = state.wanted.drain(..count).collect();
        for attachment in &wanted {
            state.waiting.remove(attachment);
        }
        wanted
    }

    fn show(&self, doing: Doing) {
        self.state.lock().doing = doing;
    }

    fn report(&self, error: String) {
        tracing::warn!("offloading: {error}");
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.state.lock().last_error = Some(error);
    }
}
