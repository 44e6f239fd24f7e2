//! A sink with threads, limits and failures.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::sink::{Instance, MAX_WRITE, Receipt, Sink, Upload, UploadError, UploadErrorKind};

pub(super) const MAX_UPLOADS: usize = 3;
pub(super) const MAX_HELD: usize = 2 * MAX_WRITE;

/// Uploads that wait until they may transfer their bytes. Each has a thread, as it would have a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct SlowSink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    /// What happened, in order.
    pub(super) events: Vec<String>,
    /// How each instance is to fail, when its upload begins or when it ends.
    pub(super) refused: HashMap<String, UploadErrorKind>,
    pub(super) failing: HashMap<String, UploadErrorKind>,
    /// Whether bytes are transferred.
    pub(super) open: bool,
    pub(super) uploads: usize,
    pub(super) held: usize,
    /// Callers that wait for room.
    pub(super) blocked: usize,
}

impl SlowSink {
    /// A sink that transfers bytes at once.
    pub(super) fn open() -> Self {
        let sink = Self::default();
        sink.state().open = true;
        sink
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Waits until the state is as described.
    pub(super) fn wait_until(&self, condition: impl FnMut(&State) -> bool) -> MutexGuard<'_, State> {
        let mut condition = condition;
        let mut state = self.state();
        self.0.changed.wait_while(&mut state, |state| !condition(state));
        state
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_all();
    }

    fn wait_for_room(&self, has_room: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if !has_room(&state) {
            state.blocked += 1;
            self.0.changed.notify_all();
            self.0.changed.wait_while(&mut state, |state| !has_room(state));
            state.blocked -= 1;
        }
        state
    }

    fn run(&self, name: String, messages: &mpsc::Receiver<Message>) {
        let mut content = Vec::new();
        let finished = loop {
            match messages.recv() {
                Ok(Message::Bytes(bytes)) => {
                    drop(self.wait_until(|state| state.open));
                    content.extend_from_slice(&bytes);
                    self.change(|state| state.held -= bytes.len());
                }
                Ok(Message::Finish(receipt)) => break Some(receipt),
                Err(_) => break None,
            }
        };
        self.change(|state| {
            state.uploads -= 1;
            let failure = state.failing.get(&name).copied();
            state.events.push(match (&finished, failure) {
                (None, _) => format!("abort {name}"),
                (_, Some(_)) => format!("fail {name}"),
                (_, None) => format!("store {name}"),
            });
            let Some(receipt) = finished else { return };
            let result = match failure {
                Some(kind) => Err(error(kind)),
                None => {
                    state.objects.insert(name, content);
                    Ok(())
                }
            };
            // Nobody listens if the request was dropped.
            let _ = receipt.send(result);
        });
    }
}

fn error(kind: UploadErrorKind) -> UploadError {
    UploadError { kind, message: "the bucket failed".to_owned() }
}

#[derive(Debug)]
enum Message {
    Bytes(Bytes),
    Finish(mpsc::Sender<Result<(), UploadError>>),
}

#[derive(Debug)]
pub(super) struct SlowUpload {
    sink: SlowSink,
    messages: mpsc::Sender<Message>,
}

impl Sink for SlowSink {
    type Upload = SlowUpload;

    fn begin(&self, instance: &Instance) -> Result<SlowUpload, UploadError> {
        let name = instance.sop_instance.to_string();
        let mut state = self.wait_for_room(|state| state.uploads < MAX_UPLOADS);
        if let Some(kind) = state.refused.get(&name) {
            return Err(error(*kind));
        }
        state.uploads += 1;
        state.events.push(format!("begin {name}"));
        drop(state);
        let (messages, received) = mpsc::channel();
        let sink = self.clone();
        thread::spawn(move || sink.run(name, &received));
        Ok(SlowUpload { sink: self.clone(), messages })
    }
}

impl Upload for SlowUpload {
    type Receipt = SlowReceipt;

    fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        assert!(bytes.len() <= MAX_WRITE);
        let mut state = self.sink.wait_for_room(|state| state.held + bytes.len() <= MAX_HELD);
        state.held += bytes.len();
        drop(state);
        self.messages.send(Message::Bytes(bytes)).unwrap();
        Ok(())
    }

    fn finish(self) -> SlowReceipt {
        let (sender, receiver) = mpsc::channel();
        self.messages.send(Message::Finish(sender)).unwrap();
        SlowReceipt(receiver)
    }
}

#[derive(Debug)]
pub(super) struct SlowReceipt(mpsc::Receiver<Result<(), UploadError>>);

impl Receipt for SlowReceipt {
    fn wait(self) -> Result<(), UploadError> {
        self.0.recv().unwrap()
    }
}
