//! Compares the master keys with those that the bucket's objects were encrypted with.
//!
//! The object `.orthanc-object-storage/key-{id}` has the fingerprint of the key that was first used under an id. An object
//! encrypted with another key under the same id would be lost for everyone who has the right one.
//!
//! The state directory has a copy of what is noted about the current key. In the mode `WriteBack`, attachments are
//! encrypted with a key that the copy confirms while the bucket cannot be asked.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bucket::{Cause, ObjectStorage, Operation, RetryPolicy, StorageError};
use bytes::Bytes;
use crypto_envelope::{Fingerprint, KeyRing, MasterKey};
use hybrid::Side;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key_note::{self, LocalNotes};
use crate::runtime::Runtime;

/// The pause between attempts while the server does not answer.
const PAUSE: Duration = Duration::from_secs(10);

/// The comparison of the master keys with the bucket, once the server has answered.
#[derive(Debug)]
pub(crate) struct KeyCheck {
    objects: ObjectStorage,
    ring: KeyRing,
    local: Option<LocalNotes>,
    verdict: OnceLock<Result<(), WrongKey>>,
    /// Held while the keys are compared, so that the stores that wait for it share one comparison.
    comparing: Mutex<()>,
}

/// A master key that is not the one whose id it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "master key {id} is not the key that was used under this id: its fingerprint is {fingerprint}, and {note} has the \
     fingerprint {expected}; configure the earlier key under this id, and a new key under an id of its own; if old studies can be read with the \
     configured key only, delete that note instead"
)]
pub(crate) struct WrongKey {
    pub(crate) id: u32,
    pub(crate) fingerprint: Fingerprint,
    /// The object or file with the note about the key.
    pub(crate) note: String,
    /// The fingerprint in the note.
    pub(crate) expected: String,
}

/// Why nothing may be encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(transparent)]
    Wrong(#[from] WrongKey),
    /// The server does not answer, so that the keys are not known to be right.
    #[error(transparent)]
    Unknown(#[from] StorageError),
    /// The server does not answer, and the state directory says nothing about the current key.
    #[error(
        "this Orthanc has not compared master key {id} with the bucket yet: {error}; make the bucket reachable; once the \
         key has been compared, attachments are also stored while the bucket is unreachable"
    )]
    NeverCompared { id: u32, error: StorageError },
    #[error("Orthanc is shutting down")]
    Stopping,
}

impl KeyCheck {
    /// The comparison of the keys in `ring` with `objects`. `folder` is the one that is locked in the state directory.
    pub(crate) fn new(objects: ObjectStorage, ring: KeyRing, folder: Option<PathBuf>) -> Self {
        let local = folder.map(LocalNotes);
        Self { objects, ring, local, verdict: OnceLock::new(), comparing: Mutex::default() }
    }

    /// Compares the keys at start.
    ///
    /// # Errors
    ///
    /// If a key is wrong, or the server does not answer.
    pub(crate) async fn at_start(&self, policy: RetryPolicy) -> Result<(), KeyError> {
        let verdict = self.compare(policy).await?;
        Ok(self.verdict.get_or_init(|| verdict).clone()?)
    }

    /// Compares the keys until the server answers.
    pub(crate) async fn in_background(&self) {
        while let Err(KeyError::Unknown(error)) = self.later().await {
            tracing::info!("the master keys are not compared with the bucket yet: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Compares the keys, unless that has been done. Waits for a comparison that is running, as long as for a server that
    /// does not answer.
    async fn later(&self) -> Result<(), KeyError> {
        let policy = self.objects.retry();
        let start = Instant::now();
        let Ok(_turn) = tokio::time::timeout(policy.patience, self.comparing.lock()).await else {
            let error =
                StorageError::new(Operation::Read, self.objects.url(), Cause::Unanswered(policy.patience));
            return Err(KeyError::Unknown(StorageError { transient: true, ..error }));
        };
        if self.verdict.get().is_none() {
            let patience = policy.patience.saturating_sub(start.elapsed());
            let verdict = self.compare(RetryPolicy { patience, ..policy }).await?;
            if self.verdict.set(verdict.clone()).is_ok()
                && let Err(wrong) = verdict
            {
                tracing::error!(
                    "{wrong}; no attachment is stored before Orthanc has been restarted with that key; keep the \
                     configured key too, since attachments may have been stored on the disk with it"
                );
            }
        }
        self.known()
    }

    fn fingerprint(&self, id: u32) -> Option<Fingerprint> {
        self.ring.get(id).ok().map(MasterKey::fingerprint)
    }

    /// Fails if a key is known to be wrong.
    fn known(&self) -> Result<(), KeyError> {
        Ok(self.verdict.get().cloned().unwrap_or(Ok(()))?)
    }

    /// Blocks until attachments may be encrypted for `side`. The bucket gets none before the keys have been compared, and
    /// none becomes pending for it, unless the state directory confirms the key.
    ///
    /// # Errors
    ///
    /// If a key is wrong, or, unless the side is the file system, not known to be right.
    pub(crate) fn before_store(self: &Arc<Self>, runtime: &Runtime, side: Side) -> Result<(), KeyError> {
        // A key in a key service has no fingerprint.
        let Some(id) = self.ring.current_id() else { return self.known() };
        if side == Side::FileSystem || self.verdict.get().is_some() {
            return self.known();
        }
        if side == Side::Pending && matches!(self.compare_locally(id), Some(Ok(()))) {
            return Ok(());
        }
        let keys = Arc::clone(self);
        let compared = runtime.run_with_grace(async move { keys.later().await });
        match compared.unwrap_or(Err(KeyError::Stopping)) {
            Err(KeyError::Unknown(error)) if side == Side::Pending => match self.compare_locally(id) {
                Some(verdict) => Ok(verdict?),
                None => Err(KeyError::NeverCompared { id, error }),
            },
            compared => compared,
        }
    }

    /// Compares the current key, which has this id, with the note in the state directory; `None` if there is none.
    fn compare_locally(&self, id: u32) -> Option<Result<(), WrongKey>> {
        Some(self.verify(id, self.noted_locally(id)?))
    }

    /// Fails unless the keys are known to be right, for work that is repeated.
    pub(crate) fn before_move(&self) -> Result<(), String> {
        const UNKNOWN: &str = "the master keys have not been compared with the bucket yet, since the server has not \
                               answered: try again later";
        self.verdict.get().ok_or(UNKNOWN)?.clone().map_err(|wrong| wrong.to_string())
    }

    /// The outer error is for a server that does not answer.
    async fn compare(&self, policy: RetryPolicy) -> Result<Result<(), WrongKey>, StorageError> {
        for id in self.ring.ids() {
            let mut noted = self.noted(id, policy).await?;
            if Some(id) == self.ring.current_id() {
                noted = noted.or_else(|| self.noted_locally(id));
                self.note_locally(id, noted.as_ref()).await;
            }
            if let Some(noted) = noted
                && let Err(wrong) = self.verify(id, noted)
            {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(()))
    }

    fn verify(&self, id: u32, noted: Noted) -> Result<(), WrongKey> {
        let Noted { note, fingerprint: expected } = noted;
        match self.fingerprint(id) {
            Some(fingerprint) if fingerprint.to_string() != expected => {
                Err(WrongKey { id, fingerprint, note, expected })
            }
            _ => Ok(()),
        }
    }

    /// What the bucket says about a key; `None` if it says nothing that can be compared.
    async fn noted(&self, id: u32, policy: RetryPolicy) -> Result<Option<Noted>, StorageError> {
        let name = key_note::name(id);
        let content = match self.read(id, &name, policy).await {
            Err(error) if error.transient => return Err(error),
            Err(error) if error.lacks_permission() => {
                tracing::info!("{error}; so master key {id} cannot be compared with the one used before");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!("{error}; so master key {id} cannot be compared with the one used before");
                return Ok(None);
            }
            // The key was never used, or before there were such objects.
            Ok(None) => return Ok(None),
            Ok(Some(content)) => content,
        };
        let note = self.objects.note_url(&name);
        if let Some(fingerprint) = key_note::recorded(id, &content) {
            return Ok(Some(Noted { note, fingerprint }));
        }
        if self.objects.has_everything(policy).await.unwrap_or(false) {
            let foreign = StorageError::new(Operation::Read, note, Cause::Foreign);
            return Err(StorageError { transient: true, ..foreign });
        }
        tracing::error!(
            "{note} is damaged, so it is not known whether master key {id} is the one used before; if it is, delete that \
             object"
        );
        Ok(None)
    }

    /// The note about a key, which is written now if it is missing and the key is the current one.
    async fn read(&self, id: u32, note: &str, policy: RetryPolicy) -> Result<Option<Bytes>, StorageError> {
        match (self.objects.read_note(note, policy).await?, self.fingerprint(id)) {
            (None, Some(fingerprint)) if Some(id) == self.ring.current_id() => {
                let content = key_note::content(id, &fingerprint.to_string());
                self.objects.create_note(note, content.into(), policy).await
            }
            (content, _) => Ok(content),
        }
    }

    /// What the state directory says about a key.
    fn noted_locally(&self, id: u32) -> Option<Noted> {
        let local = self.local.as_ref()?;
        Some(Noted { note: local.path(id).display().to_string(), fingerprint: local.read(id)? })
    }

    /// Copies to the state directory what is noted about a key, or that the configured one is used from now on.
    async fn note_locally(&self, id: u32, noted: Option<&Noted>) {
        let configured = || self.fingerprint(id).map(|fingerprint| fingerprint.to_string());
        let Some(fingerprint) = noted.map(|noted| noted.fingerprint.clone()).or_else(configured) else {
            return;
        };
        let Some(local) = self.local.clone() else { return };
        let path = local.path(id);
        let written = tokio::task::spawn_blocking(move || local.write(id, &fingerprint)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!(
                "cannot note in {} that master key {id} was compared: {error}; until it has been compared after the next \
                 start, no attachment is stored on the disk",
                path.display()
            );
        }
    }
}

/// What a note says about a key.
#[derive(Debug)]
struct Noted {
    /// The object or file.
    note: String,
    fingerprint: String,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use bucket::{Bucket, BucketOptions};
    use crypto_envelope::MasterKey;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt as _, PutPayload};
    use storage_layout::Layout;

    use super::*;

    const NOTE: &str = ".orthanc-object-storage/key-3";

    fn check(store: &Arc<InMemory>, current: (u32, u8), previous: &[(u32, u8)]) -> KeyCheck {
        check_in(None, store, current, previous)
    }

    /// The comparison of an Orthanc with this folder in the state directory.
    fn check_in(
        folder: Option<&std::path::Path>,
        store: &Arc<InMemory>,
        current: (u32, u8),
        previous: &[(u32, u8)],
    ) -> KeyCheck {
        let key = |byte| MasterKey::new(&[byte; 32]).unwrap();
        let previous = previous.iter().map(|(id, byte)| (*id, key(*byte)));
        let ring = KeyRing::new(current.0, key(current.1), previous).unwrap();
        let bucket = Bucket::new(BucketOptions::new(Arc::clone(store), "memory://bucket"));
        KeyCheck::new(
            ObjectStorage::new(bucket, Layout::default(), false, false),
            ring,
            folder.map(Into::into),
        )
    }

    async fn note(store: &InMemory) -> Option<String> {
        let found = store.get(&Path::from(NOTE)).await.ok()?;
        Some(String::from_utf8(found.bytes().await.unwrap().to_vec()).unwrap())
    }

    async fn put(store: &InMemory, content: &str) {
        store.put(&Path::from(NOTE), PutPayload::from(content.to_owned())).await.unwrap();
    }

    #[tokio::test]
    async fn key_is_noted_once_and_compared_from_then_on() {
        let store = Arc::new(InMemory::new());
        check(&store, (7, 1), &[(3, 3)]).at_start(RetryPolicy::default()).await.unwrap();
        assert_eq!(note(&store).await, None, "a previous key may be needed for old objects only");
        check(&store, (3, 3), &[]).at_start(RetryPolicy::default()).await.unwrap();
        let written = note(&store).await.unwrap();
        let fingerprint = MasterKey::new(&[3; 32]).unwrap().fingerprint().to_string();
        assert_eq!(written, format!("{{\"Fingerprint\":\"{fingerprint}\",\"KeyId\":3}}\n"));

        for wrong in [check(&store, (3, 4), &[]), check(&store, (7, 1), &[(3, 4)])] {
            let error = wrong.at_start(RetryPolicy::default()).await.unwrap_err().to_string();
            let other = MasterKey::new(&[4; 32]).unwrap().fingerprint().to_string();
            for fragment in ["master key 3", &fingerprint, &other, NOTE] {
                assert!(error.contains(fragment), "{fragment} {error}");
            }
            assert!(wrong.before_move().unwrap_err().contains("master key 3"));
        }
        assert_eq!(note(&store).await, Some(written));
    }

    #[tokio::test]
    async fn newer_notes_are_read_and_damaged_ones_are_kept() {
        let fingerprint = MasterKey::new(&[3; 32]).unwrap().fingerprint().to_string();
        let newer = format!("{{\"KeyId\": 3, \"More\": [], \"Fingerprint\": \"{fingerprint}\"}}");
        let damaged =
            ["", "{", "{}", "[3]", "<html>", "{\"KeyId\":3,\"Fingerprint\":\"12\"}"].map(str::to_owned);
        let of_other_id = newer.replace("3,", "4,");
        for (content, is_known) in
            damaged.into_iter().chain([of_other_id]).map(|content| (content, false)).chain([(newer, true)])
        {
            let store = Arc::new(InMemory::new());
            put(&store, &content).await;
            assert_eq!(key_note::recorded(3, content.as_bytes()).is_some(), is_known, "{content}");
            // A damaged note does not stop Orthanc, with any key.
            let other = check(&store, (3, 4), &[]).at_start(RetryPolicy::default()).await;
            assert_eq!(other.is_ok(), !is_known, "{content}");
            check(&store, (3, 3), &[]).at_start(RetryPolicy::default()).await.unwrap();
            assert_eq!(note(&store).await, Some(content));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_moved_before_the_comparison() {
        let store = Arc::new(InMemory::new());
        let check = check(&store, (3, 3), &[]);
        assert!(check.before_move().unwrap_err().contains("not been compared"));
        tokio::time::timeout(Duration::from_secs(60), check.in_background()).await.unwrap();
        assert_eq!(check.before_move(), Ok(()));
    }

    #[tokio::test]
    async fn state_directory_knows_what_was_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key-3");
        let store = Arc::new(InMemory::new());
        let local = |current: u8| check_in(Some(folder.path()), &store, (3, current), &[(7, 7)]);
        assert_eq!(local(3).compare_locally(3), None);
        local(3).at_start(RetryPolicy::default()).await.unwrap();
        assert_eq!(Some(fs::read_to_string(&path).unwrap()), note(&store).await);
        assert_eq!(local(3).compare_locally(3), Some(Ok(())));
        let wrong = local(4).compare_locally(3).unwrap().unwrap_err();
        assert_eq!(wrong.note, path.display().to_string());
        // Without the folder, or for another key, nothing is known.
        assert_eq!(check(&store, (3, 3), &[]).compare_locally(3), None);
        assert_eq!(check_in(Some(folder.path()), &store, (7, 7), &[]).compare_locally(7), None);

        for damaged in ["", "{", "\u{0}\u{0}", "{\"KeyId\":7}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(local(3).compare_locally(3), None, "{damaged:?}");
            local(3).at_start(RetryPolicy::default()).await.unwrap();
            assert_eq!(local(3).compare_locally(3), Some(Ok(())), "{damaged:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn note_in_the_bucket_decides() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        let local = |current: u8| check_in(Some(folder.path()), &store, (3, current), &[]);
        local(4).at_start(RetryPolicy::default()).await.unwrap();
        // Another Orthanc has used another key in the meantime.
        store.delete(&Path::from(NOTE)).await.unwrap();
        check(&store, (3, 3), &[]).at_start(RetryPolicy::default()).await.unwrap();
        assert_eq!(local(4).compare_locally(3), Some(Ok(())));
        let wrong = local(4).at_start(RetryPolicy::default()).await.unwrap_err().to_string();
        assert!(wrong.contains("memory://bucket"), "{wrong}");
        assert!(local(4).compare_locally(3).unwrap().is_err());
        assert_eq!(local(3).compare_locally(3), Some(Ok(())));
        // A note that cannot be compared does not overrule the one in the folder.
        put(&store, "damaged").await;
        let wrong = local(4).at_start(RetryPolicy::default()).await.unwrap_err().to_string();
        assert!(wrong.contains(&*folder.path().display().to_string()), "{wrong}");
        local(3).at_start(RetryPolicy::default()).await.unwrap();
        // Deleting the bucket's note permits another key, as the message says.
        store.delete(&Path::from(NOTE)).await.unwrap();
        local(4).at_start(RetryPolicy::default()).await.unwrap();
        assert_eq!(local(4).compare_locally(3), Some(Ok(())));
    }

    #[tokio::test]
    async fn unwritable_note_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        fs::create_dir_all(folder.path().join("key-3")).unwrap();
        let local = check_in(Some(folder.path()), &store, (3, 3), &[]);
        local.at_start(RetryPolicy::default()).await.unwrap();
        assert_eq!((local.compare_locally(3), local.before_move()), (None, Ok(())));
    }
}
