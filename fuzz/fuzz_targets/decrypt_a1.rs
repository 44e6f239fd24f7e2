//! Altered A1 envelopes in chunks of any size decrypt to the plaintext, or fail and leave the target empty.
#![no_main]

use std::sync::LazyLock;

use crypto_envelope::{A1Decryptor, Format, KeyRing, MasterKey, encrypt};
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::new(0x3131, MasterKey::new(&[7; 32]).expect("key"), []).expect("ring"));

fuzz_target!(|input: (&[u8], Vec<(u16, u8)>, i8, u8)| {
    let (plaintext, changes, length_change, chunk) = input;
    let good = encrypt(&RING, Format::A1, "", plaintext).expect("encrypts");
    let mut envelope = good.clone();
    for (at, change) in changes {
        let at = usize::from(at) % envelope.len();
        envelope[at] ^= change;
    }
    envelope.resize(envelope.len().saturating_add_signed(length_change.into()), 0);
    let mut out = Vec::new();
    let Ok(mut decryptor) = A1Decryptor::new(&RING, envelope.len() as u64, &mut out) else {
        return assert!(envelope.len() < 86);
    };
    let pushed = envelope.chunks(usize::from(chunk) + 1).try_for_each(|chunk| decryptor.push(chunk));
    let outcome = pushed.and_then(|()| decryptor.finish().map(drop));
    assert_eq!(outcome.is_ok(), envelope == good);
    assert_eq!(out, if outcome.is_ok() { plaintext } else { b"" });
});
