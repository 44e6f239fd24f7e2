//! Shared by the tests: fixed keys, the A2 vectors, and a second implementation of both formats.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part")]

pub mod reference;

use std::fs;
use std::path::PathBuf;

use crypto_envelope::{KeyRing, MasterKey};

pub const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
pub const OTHER_UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3c";
pub const MASTER: [u8; 32] = *b"a master key for tests, 32 bytes";
pub const KEY_ID: u32 = 0x0403_0201;

/// A ring with the tests' only key.
pub fn ring() -> KeyRing {
    KeyRing::new(KEY_ID, MasterKey::new(&MASTER).unwrap(), []).unwrap()
}

/// A ring whose key has the right id and the wrong bytes.
pub fn wrong_ring() -> KeyRing {
    KeyRing::new(KEY_ID, MasterKey::new(&[9; 32]).unwrap(), []).unwrap()
}

/// Pseudo-random bytes, so that no two segments are equal.
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

/// The plaintext of the A2 vectors.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// A file of `testdata/a2` and its line in `index.tsv`; see `testdata/a2/README.md`.
pub struct Vector {
    pub name: String,
    pub uuid: String,
    /// `None` if the file must decrypt.
    pub error: Option<String>,
    /// Bytes of the pattern that a reader releases.
    pub plaintext_len: usize,
    pub envelope: Vec<u8>,
}

pub fn a2_vectors() -> Vec<Vector> {
    let index = fs::read_to_string(testdata("a2").join("index.tsv")).unwrap();
    let vectors: Vec<Vector> = index
        .lines()
        .skip(1)
        .map(|line| {
            let [name, uuid, expect, plaintext_len, _] =
                line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            Vector {
                name: name.to_owned(),
                uuid: uuid.to_owned(),
                error: (expect != "success").then(|| expect.to_owned()),
                plaintext_len: plaintext_len.parse().unwrap(),
                envelope: fs::read(testdata("a2").join(format!("{name}.enc"))).unwrap_or_default(),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 35, "index.tsv is incomplete");
    vectors
}
