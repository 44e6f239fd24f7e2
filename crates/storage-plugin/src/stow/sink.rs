//! Stores instances as objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket::{Bucket, Payload, StorageError};
use bytes::{Bytes, BytesMut};
use crypto_envelope::Encryptor;
use futures_util::stream::{self, Stream};
use storage_layout::RootPath;
use stow_gateway::{Instance, Receipt, Sink, Upload, UploadError, UploadErrorKind};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::room::Room;
use crate::area::encryption::{Encryption, SealError};
use crate::runtime::Runtime;

/// Instances with more bytes are stored in parts while they arrive.
const LARGE: usize = 8 * 1024 * 1024;
/// Chunks of up to 1 MiB that wait for the upload of a large instance.
const CHUNKS: usize = 2;

/// What the requests share.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) runtime: Arc<Runtime>,
    pub(super) bucket: Bucket,
    pub(super) prefix: RootPath,
    /// `None` to store instances as they are.
    pub(super) encryption: Option<Arc<Encryption>>,
    pub(super) room: Room,
}

/// Stores the instances of one request.
#[derive(Debug, Clone)]
pub(super) struct BucketSink {
    target: Arc<Target>,
    /// Whether the bucket was unavailable for an instance. Each further one would wait as long.
    is_unavailable: Arc<AtomicBool>,
}

impl BucketSink {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, is_unavailable: Arc::default() }
    }

    /// Blocks until `work` ends. An error if Orthanc is stopping.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, UploadError> {
        self.target.runtime.run_with_grace(work).ok_or_else(stopping)
    }
}

impl Sink for BucketSink {
    type Upload = InstanceUpload;

    fn begin(&self, instance: &Instance) -> Result<InstanceUpload, UploadError> {
        if self.is_unavailable.load(Ordering::Relaxed) {
            return Err(unavailable("the bucket was unavailable for an earlier instance of the request"));
        }
        let target = &self.target;
        let name = object_name(&target.prefix, instance, target.encryption.is_some());
        let mut start = Vec::new();
        let encryptor = match &target.encryption {
            None => None,
            Some(encryption) => {
                let uuid = uuid_of(instance).to_string();
                Some(encryption.encryptor(target.runtime.handle(), &uuid, &mut start).map_err(not_sealed)?)
            }
        };
        Ok(InstanceUpload {
            sink: self.clone(),
            name,
            encryptor,
            state: State::Small(BytesMut::from(&start[..])),
        })
    }
}

/// Returns the name of an instance's object. It differs from all names that attachments may have in any configuration: each of
/// those has a UUID after its last slash, and so a hyphen.
fn object_name(prefix: &RootPath, instance: &Instance, is_encrypted: bool) -> String {
    let extension = if is_encrypted { ".enc" } else { "" };
    prefix.join(&instance.object_name()) + extension
}

/// Returns the UUID to which the envelope of an instance is bound: that of its SOP Instance UID in the namespace of OIDs
/// (RFC 9562, version 5), which `uuidgen --sha1 --namespace @oid --name UID` prints.
fn uuid_of(instance: &Instance) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, instance.sop_instance.as_str().as_bytes())
}

/// The upload of one instance.
#[derive(Debug)]
pub(super) struct InstanceUpload {
    sink: BucketSink,
    name: String,
    encryptor: Option<Encryptor>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes so far, which one request may store.
    Small(BytesMut),
    Large {
        /// `None` marks the end.
        chunks: mpsc::Sender<Option<Bytes>>,
        stored: Stored,
    },
}

impl Upload for InstanceUpload {
    type Receipt = Stored;

    fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let Some(encryptor) = &mut self.encryptor else { return self.add(bytes) };
        let mut envelope = Vec::new();
        encryptor.push(&bytes, &mut envelope).map_err(|error| failed(error.to_string()))?;
        self.add(envelope.into())
    }

    fn finish(mut self) -> Stored {
        let sink = self.sink.clone();
        self.try_finish().unwrap_or_else(|error| Stored { sink, result: Err(error) })
    }
}

impl InstanceUpload {
    fn add(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        if let State::Small(buffer) = &mut self.state {
            if buffer.len() + bytes.len() <= LARGE {
                buffer.extend_from_slice(&bytes);
                return Ok(());
            }
            let start = std::mem::take(buffer).freeze();
            self.state = self.stream()?;
            self.send(Some(start))?;
        }
        self.send(Some(bytes))
    }

    /// Begins to store the instance while it arrives.
    fn stream(&self) -> Result<State, UploadError> {
        let target = &self.sink.target;
        let place = self.sink.wait(target.room.for_stream())?;
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let (bucket, name) = (target.bucket.clone(), self.name.clone());
        let stored = self.sink.spawn(async move {
            let stored = bucket.put_stream(&name, chunks_of(receiver)).await;
            drop(place);
            stored.map(drop)
        });
        Ok(State::Large { chunks, stored })
    }

    fn send(&mut self, chunk: Option<Bytes>) -> Result<(), UploadError> {
        let State::Large { chunks, stored } = &mut self.state else { return Ok(()) };
        let sender = chunks.clone();
        match self.sink.wait(async move { sender.send(chunk).await })? {
            Ok(()) => Ok(()),
            // The upload has ended before its content.
            Err(_closed) => Err(stored.error()),
        }
    }

    fn try_finish(&mut self) -> Result<Stored, UploadError> {
        if let Some(encryptor) = self.encryptor.take() {
            let mut envelope = Vec::new();
            encryptor.finish(&mut envelope).map_err(|error| failed(error.to_string()))?;
            self.add(envelope.into())?;
        }
        if matches!(self.state, State::Large { .. }) {
            self.send(None)?;
        }
        match std::mem::replace(&mut self.state, State::Small(BytesMut::new())) {
            State::Large { stored, .. } => Ok(stored),
            State::Small(content) => self.store(content.freeze()),
        }
    }

    /// Stores a complete instance in the background.
    fn store(&self, content: Bytes) -> Result<Stored, UploadError> {
        let target = &self.sink.target;
        let place = self.sink.wait(target.room.for_instance(content.len()))?;
        let (bucket, name) = (target.bucket.clone(), self.name.clone());
        Ok(self.sink.spawn(async move {
            let stored = bucket.put(&name, Payload::Owned(content)).await;
            drop(place);
            stored.map_err(NotStored::Storage)
        }))
    }
}

/// Why an instance is not stored.
#[derive(Debug)]
enum NotStored {
    Storage(StorageError),
    /// Its sender has disappeared, or its part of the request is not complete.
    Abandoned,
}

impl From<StorageError> for NotStored {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The bytes of an instance, with an error at the end unless it is complete.
fn chunks_of(receiver: mpsc::Receiver<Option<Bytes>>) -> impl Stream<Item = Result<Bytes, NotStored>> + Send {
    stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(chunk)) => Some((Ok(chunk), Some(receiver))),
            Some(None) => None,
            None => Some((Err(NotStored::Abandoned), None)),
        }
    })
}

/// The outcome of an upload.
#[derive(Debug)]
pub(super) struct Stored {
    sink: BucketSink,
    /// An error that was found before.
    result: Result<oneshot::Receiver<Result<(), NotStored>>, UploadError>,
}

impl Receipt for Stored {
    fn wait(self) -> Result<(), UploadError> {
        let Self { sink, result } = self;
        let result = result.and_then(|receiver| sink.wait(receiver)).and_then(outcome);
        if result.as_ref().is_err_and(|error| error.kind == UploadErrorKind::Unavailable) {
            sink.is_unavailable.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Stored {
    /// The error of an upload that has ended before its content.
    fn error(&mut self) -> UploadError {
        let ended = || failed("the upload ended unexpectedly");
        match std::mem::replace(&mut self.result, Err(ended())) {
            Err(error) => error,
            Ok(receiver) => {
                let stored = Self { sink: self.sink.clone(), result: Ok(receiver) };
                stored.wait().err().unwrap_or_else(ended)
            }
        }
    }
}

impl BucketSink {
    /// Runs an upload in the background.
    fn spawn(&self, upload: impl Future<Output = Result<(), NotStored>> + Send + 'static) -> Stored {
        let (sender, receiver) = oneshot::channel();
        let is_unavailable = Arc::clone(&self.is_unavailable);
        self.target.runtime.handle().spawn(async move {
            let stored = upload.await;
            if let Err(NotStored::Storage(error)) = &stored
                && error.transient
            {
                is_unavailable.store(true, Ordering::Relaxed);
            }
            let _ = sender.send(stored);
        });
        Stored { sink: self.clone(), result: Ok(receiver) }
    }
}

/// The end of an upload's task: `Err` after a panic, which is in the log.
fn outcome(ended: Result<Result<(), NotStored>, oneshot::error::RecvError>) -> Result<(), UploadError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(NotStored::Storage(error))) if error.transient => Err(unavailable(error.to_string())),
        Ok(Err(NotStored::Storage(error))) => Err(failed(error.to_string())),
        Ok(Err(NotStored::Abandoned)) => Err(failed("the instance is not complete")),
        Err(_closed) => Err(failed("an internal error occurred, which the log describes")),
    }
}

fn not_sealed(error: SealError) -> UploadError {
    match error {
        SealError::Stopping => stopping(),
        SealError::Service(error) if error.is_transient() => unavailable(error.to_string()),
        error => failed(error.to_string()),
    }
}

fn stopping() -> UploadError {
    unavailable("Orthanc is shutting down")
}

fn unavailable(message: impl Into<String>) -> UploadError {
    UploadError { kind: UploadErrorKind::Unavailable, message: message.into() }
}

fn failed(message: impl Into<String>) -> UploadError {
    UploadError { kind: UploadErrorKind::Failed, message: message.into() }
}

#[cfg(test)]
mod tests {
    use storage_layout::ObjectNames;
    use stow_gateway::Uid;

    use super::*;

    #[test]
    fn objects_have_no_names_of_attachments() {
        const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
        let uid = |text: &str| Uid::parse(text.as_bytes()).unwrap();
        let folders = [
            "",
            "a",
            "fb",
            "fb/4b",
            "fb\\4b",
            UUID,
            "a/fb/4b",
            &format!("fb/4b/{UUID}"),
            &format!("a\\{UUID}.dcm"),
        ];
        let folders = folders.map(|folder| RootPath::new(folder).unwrap());
        for digits in
            ["1", "1.2.840.10008.5.1.4.1.1.2", "123456781234123412341234567890123456", &"4".repeat(64)]
        {
            let instance = Instance {
                study: uid("4"),
                series: uid("4.75"),
                sop_instance: uid(digits),
                sop_class: uid("1.2"),
            };
            for (prefix, root) in
                folders.iter().flat_map(|prefix| folders.iter().map(move |root| (prefix, root)))
            {
                for is_encrypted in [false, true] {
                    let name = object_name(prefix, &instance, is_encrypted);
                    let names = ObjectNames { root: root.clone(), backslashes: true, key_vault: true };
                    assert_eq!(names.attachment_of(&name), None, "{name:?} below {root:?}");
                }
            }
        }
    }
}
