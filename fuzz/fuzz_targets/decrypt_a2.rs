//! Altered A2 envelopes in chunks of any size decrypt to the plaintext, or fail after whole, unaltered
//! segments. Arbitrary bytes fail.
#![no_main]

use std::sync::LazyLock;

use crypto_envelope::{A2Decryptor, Format, KeyRing, MasterKey, encrypt};
use libfuzzer_sys::fuzz_target;

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
const SEGMENT: usize = 65536;

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::new(0x3131, MasterKey::new(&[7; 32]).expect("key"), []).expect("ring"));

static PLAINTEXT: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0_u32..).flat_map(u32::to_be_bytes).take(3 * SEGMENT).collect());

fn decrypt(envelope: &[u8], chunk: usize) -> (bool, Vec<u8>) {
    let mut out = Vec::new();
    let mut decryptor = A2Decryptor::new(&RING, UUID, envelope.len() as u64, &mut out).expect("a UUID");
    let pushed = envelope.chunks(chunk).try_for_each(|chunk| decryptor.push(chunk));
    let ok = pushed.and_then(|()| decryptor.finish().map(drop)).is_ok();
    (ok, out)
}

fuzz_target!(|input: (&[u8], u32, Vec<(u32, u8)>, i32, u16)| {
    let (bytes, len, changes, length_change, chunk) = input;
    let (accepted, released) = decrypt(bytes, usize::from(chunk) + 1);
    assert!(!accepted && released.is_empty());

    let plaintext = &PLAINTEXT[..len as usize % (3 * SEGMENT)];
    let good = encrypt(&RING, Format::A2, UUID, plaintext).expect("encrypts");
    let mut envelope = good.clone();
    for (at, change) in changes {
        let at = at as usize % envelope.len();
        envelope[at] ^= change;
    }
    envelope.resize(envelope.len().saturating_add_signed(length_change as isize % 70_000), 0);
    // Small chunks of a large envelope would be slow and find no more errors.
    let chunk_len = (usize::from(chunk) + 1).max(envelope.len() / 256);
    let (ok, out) = decrypt(&envelope, chunk_len);
    assert_eq!(ok, envelope == good);
    if ok {
        assert_eq!(out, plaintext);
    } else {
        assert!(out.len() % SEGMENT == 0 && plaintext.starts_with(&out));
    }
});
