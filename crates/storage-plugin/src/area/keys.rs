//! Compares the master keys with those that the bucket's objects were encrypted with.
//!
//! The object `.orthanc-object-storage/key-{id}` has the fingerprint of the key that was first used under an id. An object
//! encrypted with another key under the same id would be lost for everyone who has the right one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bucket::{Cause, ObjectStorage, Operation, RetryPolicy, StorageError};
use bytes::Bytes;
use crypto_envelope::{Fingerprint, KeyRing, MasterKey};
use hybrid::Side;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::runtime::Runtime;

/// The pause between attempts while the server does not answer.
const PAUSE: Duration = Duration::from_secs(10);

/// The comparison of the master keys with the bucket, once the server has answered.
#[derive(Debug)]
pub(crate) struct KeyCheck {
    objects: ObjectStorage,
    ring: KeyRing,
    verdict: OnceLock<Result<(), WrongKey>>,
    /// Held while the keys are compared, so that the stores that wait for it share one comparison.
    comparing: Mutex<()>,
}

/// A master key that is not the one whose id it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "master key {id} is not the key that was used under this id: its fingerprint is {fingerprint}, and {object} has the \
     fingerprint {expected}; configure the earlier key under this id, and a new key under an id of its own; if old studies can be read with the \
     configured key only, delete that object instead"
)]
pub(crate) struct WrongKey {
    pub(crate) id: u32,
    pub(crate) fingerprint: Fingerprint,
    /// The note about the key.
    pub(crate) object: String,
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
    #[error("Orthanc is shutting down")]
    Stopping,
}

impl KeyCheck {
    pub(crate) fn new(objects: ObjectStorage, ring: KeyRing) -> Self {
        Self { objects, ring, verdict: OnceLock::new(), comparing: Mutex::default() }
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

    /// Blocks until attachments may be encrypted for `side`: the bucket gets none before the keys have been compared.
    ///
    /// # Errors
    ///
    /// If a key is wrong, or, for the bucket, the server does not answer.
    pub(crate) fn before_store(self: &Arc<Self>, runtime: &Runtime, side: Side) -> Result<(), KeyError> {
        if side == Side::FileSystem || self.verdict.get().is_some() {
            return self.known();
        }
        let keys = Arc::clone(self);
        let compared = runtime.run_with_grace(async move { keys.later().await });
        compared.unwrap_or(Err(KeyError::Stopping))
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
            let note = format!("key-{id}");
            let content = match self.read(id, &note, policy).await {
                Err(error) if error.transient => return Err(error),
                Err(error) if error.lacks_permission() => {
                    tracing::info!("{error}; so master key {id} cannot be compared with the one used before");
                    continue;
                }
                Err(error) => {
                    tracing::warn!("{error}; so master key {id} cannot be compared with the one used before");
                    continue;
                }
                // The key was never used, or before there were such objects.
                Ok(None) => continue,
                Ok(Some(content)) => content,
            };
            let object = self.objects.note_url(&note);
            let Some(expected) = recorded(id, &content) else {
                if self.objects.has_everything(policy).await.unwrap_or(false) {
                    let foreign = StorageError::new(Operation::Read, object, Cause::Foreign);
                    return Err(StorageError { transient: true, ..foreign });
                }
                tracing::error!(
                    "{object} is damaged, so it is not known whether master key {id} is the one used before; if it is, \
                     delete that object"
                );
                continue;
            };
            if let Some(fingerprint) = self.fingerprint(id)
                && fingerprint.to_string() != expected
            {
                return Ok(Err(WrongKey { id, fingerprint, object, expected }));
            }
        }
        Ok(Ok(()))
    }

    /// The note about a key, which is written now if it is missing and the key is the current one.
    async fn read(&self, id: u32, note: &str, policy: RetryPolicy) -> Result<Option<Bytes>, StorageError> {
        match (self.objects.read_note(note, policy).await?, self.fingerprint(id)) {
            (None, Some(fingerprint)) if id == self.ring.current_id() => {
                let record = json!({"KeyId": id, "Fingerprint": fingerprint.to_string()});
                self.objects.create_note(note, format!("{record}\n").into(), policy).await
            }
            (content, _) => Ok(content),
        }
    }
}

/// The fingerprint of key `id` in a note. Newer releases may add fields. `None` for other content.
fn recorded(id: u32, content: &[u8]) -> Option<String> {
    let record: Value = serde_json::from_slice(content).ok()?;
    let fingerprint = record.get("Fingerprint")?.as_str()?.to_ascii_lowercase();
    let is_fingerprint = fingerprint.len() == 2 * Fingerprint::LEN
        && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_fingerprint && record.get("KeyId")?.as_u64() == Some(id.into())).then_some(fingerprint)
}

#[cfg(test)]
mod tests {
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
        let key = |byte| MasterKey::new(&[byte; 32]).unwrap();
        let previous = previous.iter().map(|(id, byte)| (*id, key(*byte)));
        let ring = KeyRing::new(current.0, key(current.1), previous).unwrap();
        let bucket = Bucket::new(BucketOptions::new(Arc::clone(store), "memory://bucket"));
        KeyCheck::new(ObjectStorage::new(bucket, Layout::default(), false, false), ring)
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
            assert_eq!(recorded(3, content.as_bytes()).is_some(), is_known, "{content}");
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
}
