//! Shared by the tests: fixed keys, and a second implementation of both formats.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every test binary uses its own part of this")]

pub mod reference;

use std::path::PathBuf;

use crypto_envelope::{KeyRing, MasterKey};

pub const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
pub const OTHER_UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3c";
pub const MASTER: [u8; 32] = *b"a master key for tests, 32 bytes";
pub const KEY_ID: u32 = 0x0403_0201;

/// A ring with the one key of the tests.
pub fn ring() -> KeyRing {
    KeyRing::new(KEY_ID, MasterKey::new(&MASTER).unwrap(), []).unwrap()
}

/// A ring whose key has the right id and the wrong bytes.
pub fn wrong_ring() -> KeyRing {
    KeyRing::new(KEY_ID, MasterKey::new(&[9; 32]).unwrap(), []).unwrap()
}

/// Bytes that differ from segment to segment and do not compress to a pattern.
pub fn plaintext(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

pub fn testdata(format: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format)
}
