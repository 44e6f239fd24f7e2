//! Master keys, and the set of them that is configured.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use crate::error::{KeyRingError, PrimitiveFailed, UnknownKeyId};
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

/// The configured master keys: the current one, which encrypts, and the previous ones, which only decrypt.
///
/// Clones share the keys.
#[derive(Clone)]
pub struct KeyRing {
    current_id: u32,
    current: Arc<MasterKey>,
    keys: Arc<BTreeMap<u32, Arc<MasterKey>>>,
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
        let current = Arc::new(current);
        let mut keys = BTreeMap::from([(current_id, Arc::clone(&current))]);
        for (id, key) in previous {
            match keys.entry(id) {
                Entry::Occupied(_) => return Err(KeyRingError::DuplicateId { id }),
                Entry::Vacant(free) => free.insert(Arc::new(key)),
            };
        }
        Ok(Self { current_id, current, keys: Arc::new(keys) })
    }

    /// Returns the id of the key that encrypts new envelopes.
    pub fn current_id(&self) -> u32 {
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
        self.keys
            .get(&id)
            .map(Arc::as_ref)
            .ok_or_else(|| UnknownKeyId { id, configured: self.ids().collect() })
    }

    pub(crate) fn current(&self) -> &MasterKey {
        &self.current
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("current_id", &self.current_id)
            .field("ids", &self.ids().collect::<Vec<_>>())
            .finish_non_exhaustive()
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
