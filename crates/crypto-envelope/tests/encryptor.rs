//! Encryption in chunks: the same bytes as the second implementation makes with the same keys, however the content is divided.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::reference::{self, A2Parts};
use common::{MASTER, UUID, plaintext, ring};
use crypto_envelope::{A2Envelope, EncryptError, Encryptor, Format, decrypt, envelope_len};
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

/// Writes the ranges of an envelope that end at `ends`, and at its own end.
fn write_ranges(envelope: &A2Envelope<Vec<u8>>, ends: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = usize::try_from(envelope.envelope_len()).unwrap();
    for end in ends.into_iter().chain([len]) {
        let start = bytes.len();
        bytes.resize(end.clamp(start, len), 0xEE);
        let wanted = bytes.len() - start;
        assert_eq!(envelope.write(start as u64, &mut bytes[start..]).unwrap(), wanted);
    }
    bytes
}

#[test]
fn ranges_of_an_envelope_are_always_the_same_bytes() {
    for len in [0, 1, 15, S - 1, S, S + 1, 2 * S, 3 * S + 5] {
        let envelope = A2Envelope::new(&ring(), UUID, plaintext(len)).unwrap();
        let whole = write_ranges(&envelope, []);
        assert_eq!(whole.len() as u64, envelope_len(Format::A2, len as u64));
        assert!(whole == reference_of(Format::A2, &whole, &plaintext(len)), "{len}");
        assert!(decrypt(&ring(), UUID, &whole).unwrap() == plaintext(len), "{len}");
        for step in [41, 82, 1000, S, S + 16, 2 * S + 7] {
            let ends = (1..).map(|number| number * step).take_while(|end| *end < whole.len());
            assert!(write_ranges(&envelope, ends) == whole, "{len} bytes in ranges of {step}");
        }
    }
}

#[test]
fn nothing_is_written_after_the_end_of_an_envelope() {
    let envelope = A2Envelope::new(&ring(), UUID, plaintext(S + 1)).unwrap();
    let len = envelope.envelope_len();
    let mut out = [0xEE; 10];
    assert_eq!(envelope.write(len - 3, &mut out).unwrap(), 3);
    assert_eq!(out[3..], [0xEE; 7]);
    for start in [len, len + 1, u64::MAX] {
        assert_eq!(envelope.write(start, &mut out).unwrap(), 0);
    }
}

#[test]
fn ranges_end_with_segments() {
    let envelope = A2Envelope::new(&ring(), UUID, plaintext(3 * S)).unwrap();
    let first = 82 + S as u64 + 16;
    let sealed = S + 16;
    assert_eq!(envelope.end_of_range(0, 2 * S), first);
    assert_eq!(envelope.end_of_range(first, 2 * sealed - 1), first + sealed as u64);
    assert_eq!(envelope.end_of_range(first, 10 * S), envelope.envelope_len());
    assert_eq!(envelope.end_of_range(first, 1000), first + 1000, "no segment ends in this range");
    assert_eq!(envelope.end_of_range(0, 50), 50);
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
