//! Moves unused studies from the file system to the bucket in the background.
//!
//! A study's last use is the newest modification time among its files, which reads update (see
//! `FileStorageOptions::note_use`). So nothing else has to be kept, and nothing is lost when Orthanc stops.
//! The memory holds only when to check which study again.

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
use crate::moving::mover::Mover;

/// Maximum number of attachments waiting to be brought back. Others are brought back when they are read
/// again.
const LONGEST_QUEUE: usize = 10_000;
/// How often reads update a file's modification time.
pub(crate) const PRECISION: Duration = Duration::from_secs(60 * 60);
const MEGABYTE: u64 = 1024 * 1024;

/// Controls the worker thread and reports its state.
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
    /// Whether the first round, which starts at once, has begun.
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
    CheckingStudies,
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
        mover: Mover,
        files: FileStorage,
    ) -> std::io::Result<JoinHandle<()>> {
        let offload = Arc::clone(self);
        let worker = move || {
            let orthanc = mover.context.orthanc.clone();
            orthanc.name_thread(c"OFFLOAD");
            Worker::new(offload, mover, files).run();
            orthanc.forget_thread();
        };
        std::thread::Builder::new().name("offload".to_owned()).spawn(worker)
    }

    /// Lets the worker begin: Orthanc has started and answers requests.
    pub(crate) fn begin(&self) {
        self.state.lock().started = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Records that an attachment was read from the bucket.
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
        let options = &self.options;
        let state = self.state.lock();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "AfterDays": options.after_days,
            "KeepFreeMB": options.keep_free / MEGABYTE,
            "MaxFileSystemMB": options.max_file_system / MEGABYTE,
            "BringBack": options.bring_back,
            "State": match state.doing {
                Doing::Waiting => "waiting",
                Doing::CheckingStudies => "looking through the studies",
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

    /// Waits for the next round: the first one, one with attachments to bring back, or one after `limit`.
    /// Returns `false` when Orthanc stops.
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

    /// The next attachments to bring back, at most `limit`.
    fn take_wanted(&self, limit: usize) -> Vec<Attachment> {
        let mut state = self.state.lock();
        let count = state.wanted.len().min(limit);
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
