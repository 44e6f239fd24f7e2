//! Master keys, and the set of them that is configured.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use crate::a2::opener::FileKey;
use crate::error::{KeyRingError, PrimitiveFailed, UnknownKeyId};
use crate::file_keys::FileKeys;
use crate::primitives::{KEY_LEN, Secret, ctr_key_stream, hkdf_sha256};

/// `info` of the HKDF that derives A2's wrapping key from a master key.
const WRAP_INFO: &[u8] = b"orthanc-object-storage A2 wrap";
/// `info` of the HKDF that derives a master key's fingerprint.
const FINGERPRINT_INFO: &[u8] = b"orthanc-object-storage key check";

/// Identifies a master key without revealing it: the first 16 bytes of HKDF-SHA256 (RFC 5869, without a salt) of the
/// key. Displayed as 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Fingerprint::LEN]);

impl Fingerprint {
    /// Length in bytes.
    pub const LEN: usize = 16;
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A master key of 32 bytes, under which the keys of envelopes are encrypted.
///
/// Instead of the key's bytes, this type contains the two values that the formats derive from them, both wiped on
/// drop, and the key's fingerprint.
pub struct MasterKey {
    wrapping_key: Secret,
    a1_mask: Secret,
    fingerprint: Fingerprint,
}

impl MasterKey {
    /// Length in bytes.
    pub const LEN: usize = KEY_LEN;

    /// Creates a master key from its 32 bytes. The caller must wipe its own copy.
    ///
    /// # Errors
    /// [`PrimitiveFailed`] if the library cannot derive the values.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Result<Self, PrimitiveFailed> {
        // The first bytes of HKDF's output do not depend on its length.
        let derived = hkdf_sha256(bytes, &[], &[FINGERPRINT_INFO])?;
        let mut fingerprint = [0; Fingerprint::LEN];
        fingerprint.copy_from_slice(&derived.as_ref()[..Fingerprint::LEN]);
        Ok(Self {
            wrapping_key: hkdf_sha256(bytes, &[], &[WRAP_INFO])?,
            a1_mask: ctr_key_stream(bytes)?,
            fingerprint: Fingerprint(fingerprint),
        })
    }

    /// Returns the fingerprint, which may be logged and stored.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the key under which A2's file keys are wrapped.
    pub(crate) fn wrapping_key(&self) -> &Secret {
        &self.wrapping_key
    }

    /// Returns the mask of A1's data keys and data IVs.
    ///
    /// A1 encrypts each of them with AES-256-CTR, starting at the all-zero counter block, so all data keys
    /// and IVs are XORed with the same 32 bytes. `docs/encryption.md` explains this weakness of the format.
    pub(crate) fn a1_mask(&self) -> &Secret {
        &self.a1_mask
    }

    /// Whether both keys were created from the same bytes, compared in constant time.
    pub fn is_same_as(&self, other: &Self) -> bool {
        crate::primitives::equal(&self.wrapping_key, &other.wrapping_key)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The configured master keys: the current one, which encrypts, and the previous ones, which only decrypt. Each is
/// either here or in a key service.
///
/// Clones share the keys.
#[derive(Clone)]
pub struct KeyRing {
    /// `None` if the current key is in a key service.
    current_id: Option<u32>,
    keys: Arc<BTreeMap<u32, MasterKey>>,
    file_keys: Option<Arc<FileKeys>>,
    /// A file key that was unwrapped elsewhere.
    unwrapped: Option<Arc<FileKey>>,
}

impl KeyRing {
    /// Creates a ring; `previous` may be empty.
    ///
    /// # Errors
    /// [`KeyRingError::DuplicateId`] if two keys have the same id.
    pub fn new(
        current_id: u32,
        current: MasterKey,
        previous: impl IntoIterator<Item = (u32, MasterKey)>,
    ) -> Result<Self, KeyRingError> {
        let keys = collect(std::iter::once((current_id, current)).chain(previous))?;
        Ok(Self { current_id: Some(current_id), keys: Arc::new(keys), file_keys: None, unwrapped: None })
    }

    /// Creates a ring whose current key is in a key service, which wraps the file keys of new envelopes.
    ///
    /// # Errors
    /// [`KeyRingError::DuplicateId`] if two keys have the same id.
    pub fn of_service(
        file_keys: Arc<FileKeys>,
        previous: impl IntoIterator<Item = (u32, MasterKey)>,
    ) -> Result<Self, KeyRingError> {
        let keys = collect(previous)?;
        Ok(Self { current_id: None, keys: Arc::new(keys), file_keys: Some(file_keys), unwrapped: None })
    }

    /// Creates a ring that only opens envelopes of key services which have this file key, unwrapped elsewhere.
    pub fn of_file_key(file_key: FileKey) -> Self {
        let keys = Arc::default();
        Self { current_id: None, keys, file_keys: None, unwrapped: Some(Arc::new(file_key)) }
    }

    /// The same keys, and previous ones that are in key services.
    #[must_use]
    pub fn with_previous_services(self, file_keys: Arc<FileKeys>) -> Self {
        Self { file_keys: Some(file_keys), ..self }
    }

    /// Returns the file keys that key services have wrapped, if any are configured.
    pub fn file_keys(&self) -> Option<&Arc<FileKeys>> {
        self.file_keys.as_ref()
    }

    /// Returns the file key that was unwrapped elsewhere.
    pub(crate) fn unwrapped(&self) -> Option<&FileKey> {
        self.unwrapped.as_deref()
    }

    /// Returns the id of the key that encrypts new envelopes; `None` if it is in a key service.
    pub fn current_id(&self) -> Option<u32> {
        self.current_id
    }

    /// Returns all ids in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.keys.keys().copied()
    }

    /// Returns the key with this id.
    ///
    /// # Errors
    /// [`UnknownKeyId`], which contains the id and the configured ids.
    pub fn get(&self, id: u32) -> Result<&MasterKey, UnknownKeyId> {
        self.keys.get(&id).ok_or_else(|| UnknownKeyId { id, configured: self.ids().collect() })
    }

    /// Returns the current key and its id; `None` if it is in a key service.
    pub(crate) fn current(&self) -> Option<(u32, &MasterKey)> {
        let id = self.current_id?;
        Some((id, self.keys.get(&id)?))
    }
}

fn collect(
    all: impl IntoIterator<Item = (u32, MasterKey)>,
) -> Result<BTreeMap<u32, MasterKey>, KeyRingError> {
    let mut keys = BTreeMap::new();
    for (id, key) in all {
        match keys.entry(id) {
            Entry::Occupied(_) => return Err(KeyRingError::DuplicateId { id }),
            Entry::Vacant(free) => free.insert(key),
        };
    }
    Ok(keys)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("current_id", &self.current_id)
            .field("ids", &self.ids().collect::<Vec<_>>())
            .field("file_keys", &self.file_keys)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with OpenSSL 3.0 (`openssl kdf -keylen 16 -kdfopt digest:SHA256 … HKDF`).
    #[test]
    fn fingerprint_is_hkdf_sha256_of_the_key() {
        let fingerprint = MasterKey::new(&[0x41; KEY_LEN]).unwrap().fingerprint();
        assert_eq!(fingerprint.to_string(), "78b3e326dd517ffa0ac14dcec3a61fd8");
    }
}
