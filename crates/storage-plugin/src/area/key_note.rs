//! The notes that say which master key has an id: one in the bucket, and a copy of it in the state directory, for the
//! time in which the bucket cannot be asked.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use crypto_envelope::Fingerprint;
use serde_json::{Value, json};

/// The name of the note about key `id`.
pub(super) fn name(id: u32) -> String {
    format!("key-{id}")
}

/// The content of the note about key `id`.
pub(super) fn content(id: u32, fingerprint: &str) -> String {
    format!("{}\n", json!({"KeyId": id, "Fingerprint": fingerprint}))
}

/// The fingerprint of key `id` in a note. Newer releases may add fields. `None` for other content.
pub(super) fn recorded(id: u32, content: &[u8]) -> Option<String> {
    let record: Value = serde_json::from_slice(content).ok()?;
    let fingerprint = record.get("Fingerprint")?.as_str()?.to_ascii_lowercase();
    let is_fingerprint = fingerprint.len() == 2 * Fingerprint::LEN
        && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_fingerprint && record.get("KeyId")?.as_u64() == Some(id.into())).then_some(fingerprint)
}

/// The notes in the folder that an Orthanc has in the state directory, which is for one bucket and root path.
#[derive(Debug, Clone)]
pub(super) struct LocalNotes(pub(super) PathBuf);

impl LocalNotes {
    pub(super) fn path(&self, id: u32) -> PathBuf {
        self.0.join(name(id))
    }

    /// The fingerprint of key `id`; `None` if nothing is known about it.
    pub(super) fn read(&self, id: u32) -> Option<String> {
        recorded(id, &fs::read(self.path(id)).ok()?)
    }

    /// Replaces the note about key `id`, unless it is right. After a power failure, it may be the earlier one.
    pub(super) fn write(&self, id: u32, fingerprint: &str) -> io::Result<()> {
        if self.read(id).as_deref() == Some(fingerprint) {
            return Ok(());
        }
        let temporary = self.path(id).with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(content(id, fingerprint).as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, self.path(id))
    }
}
