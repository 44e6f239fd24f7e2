//! Encryption in chunks: the same bytes as the second implementation makes with the same keys, however the content is divided.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::reference::{self, A2Parts};
use common::{MASTER, UUID, plaintext, ring};
use crypto_envelope::{EncryptError, Encryptor, Format, decrypt, envelope_len};
use proptest::collection::vec;
use proptest::prelude::{Just, proptest};
use proptest::{prop_assert, prop_oneof};

const S: usize = 65536;

fn encrypt_chunks<'a>(format: Format, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut envelope = Vec::new();
    let mut encryptor = Encryptor::new(&ring(), format, UUID, &mut envelope).unwrap();
    chunks.into_iter().for_each(|chunk| encryptor.push(chunk, &mut envelope).unwrap());
    encryptor.finish(&mut envelope).unwrap();
    envelope
}

/// Encrypts with the keys of `envelope`, which are random.
fn reference_of(format: Format, envelope: &[u8], plaintext: &[u8]) -> Vec<u8> {
    match format {
        Format::A1 => reference::a1_seal_like(&MASTER, envelope, plaintext),
        Format::A2 => A2Parts::of(&MASTER, UUID, envelope).unwrap().seal(plaintext),
    }
}

#[test]
fn chunks_do_not_change_the_envelope() {
    for format in [Format::A1, Format::A2] {
        for len in [0, 1, 15, 16, 17, S - 1, S, S + 1, 2 * S, 3 * S + 5] {
            let plaintext = plaintext(len);
            for chunk_len in [1000, S - 1, S, S + 1, 2 * S, 4 * S] {
                let envelope = encrypt_chunks(format, plaintext.chunks(chunk_len));
                let case = format!("{format}, {len} bytes in chunks of {chunk_len}");
                assert_eq!(envelope.len() as u64, envelope_len(format, len as u64), "{case}");
                assert!(envelope == reference_of(format, &envelope, &plaintext), "{case}");
                assert!(decrypt(&ring(), UUID, &envelope).unwrap() == plaintext, "{case}");
            }
        }
    }
}

#[test]
fn unfinished_envelopes_do_not_decrypt() {
    for format in [Format::A1, Format::A2] {
        let mut envelope = Vec::new();
        let mut encryptor = Encryptor::new(&ring(), format, UUID, &mut envelope).unwrap();
        // Two whole segments, of which the second one is kept back.
        encryptor.push(&plaintext(2 * S), &mut envelope).unwrap();
        decrypt(&ring(), UUID, &envelope).unwrap_err();
    }
}

#[test]
fn a2_requires_a_uuid() {
    let refused = Encryptor::new(&ring(), Format::A2, "image", &mut Vec::new()).unwrap_err();
    assert!(matches!(refused, EncryptError::InvalidUuid(_)));
    Encryptor::new(&ring(), Format::A1, "image", &mut Vec::new()).unwrap();
}

proptest! {
    #[test]
    fn any_chunks_decrypt(
        lens in vec(prop_oneof![0..100_usize, 60_000..70_000_usize, 130_000..140_000_usize], 0..6),
        format in prop_oneof![Just(Format::A1), Just(Format::A2)],
    ) {
        let pieces: Vec<Vec<u8>> = lens.iter().map(|&len| plaintext(len)).collect();
        let envelope = encrypt_chunks(format, pieces.iter().map(Vec::as_slice));
        prop_assert!(decrypt(&ring(), UUID, &envelope).unwrap() == pieces.concat());
    }
}
