//! Master keys and the ring that finds them by id.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use crate::error::{KeyRingError, PrimitiveFailed, UnknownKeyId};
use crate::primitives::{KEY_LEN, Secret, ctr_key_stream, hkdf_sha256};

/// `info` of the HKDF that turns a master key into A2's wrapping key.
const WRAP_INFO: &[u8] = b"orthanc-object-storage A2 wrap";

/// A master key of 32 bytes, under which the keys of envelopes are encrypted.
///
/// It is held in the two forms that the formats use, both derived once, instead of the key's own bytes; they are wiped
/// on drop.
pub struct MasterKey {
    wrapping_key: Secret,
    a1_mask: Secret,
}

impl MasterKey {
    /// Length in bytes.
    pub const LEN: usize = KEY_LEN;

    /// Takes a key's 32 bytes. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`PrimitiveFailed`] when the library cannot derive the working forms.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Result<Self, PrimitiveFailed> {
        Ok(Self { wrapping_key: hkdf_sha256(bytes, &[], &[WRAP_INFO])?, a1_mask: ctr_key_stream(bytes)? })
    }

    /// A2: the key under which file keys are wrapped.
    pub(crate) fn wrapping_key(&self) -> &Secret {
        &self.wrapping_key
    }

    /// A1: data key and data IV are each encrypted with AES-256-CTR from the all-zero counter block, so both are
    /// XORed with the same 32 bytes, in every object. This is those bytes (and the format's weakness).
    pub(crate) fn a1_mask(&self) -> &Secret {
        &self.a1_mask
    }

    /// Whether both were made from the same bytes, in constant time.
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
/// A clone shares the keys.
#[derive(Clone)]
pub struct KeyRing {
    current_id: u32,
    current: Arc<MasterKey>,
    keys: Arc<BTreeMap<u32, Arc<MasterKey>>>,
}

impl KeyRing {
    /// Puts a ring together; `previous` may be empty.
    ///
    /// # Errors
    /// [`KeyRingError::DuplicateId`] when two keys have one id.
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

    /// Id of the key that new envelopes are encrypted under.
    pub fn current_id(&self) -> u32 {
        self.current_id
    }

    /// All ids, in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.keys.keys().copied()
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`UnknownKeyId`], which names the id and those that are configured.
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
