//! A1: existing envelopes decrypt, new ones match the second implementation, and alterations are detected.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::{KEY_ID, MASTER, UUID, plaintext, reference, ring, testdata, wrong_ring};
use crypto_envelope::{
    A1Decryptor, DecryptError, Format, KeyRing, SliceTarget, decrypt, encrypt, envelope_len, parse_key_file,
};

/// Name, plaintext bytes and key id, as in `testdata/a1/README.md`.
const VECTORS: [(&str, usize, u32); 8] = [
    ("empty", 0, 3),
    ("one-byte", 1, 3),
    ("block-minus-1", 15, 3),
    ("block", 16, 7),
    ("block-plus-1", 17, 7),
    ("page", 4096, 7),
    ("odd-70001", 70001, 3),
    ("max-key-id", 1000, u32::MAX),
];

fn vector_ring() -> KeyRing {
    let key = |id: u32| {
        let file = fs::read(testdata("a1").join(format!("key-{id}.b64"))).unwrap();
        parse_key_file(&file).unwrap()
    };
    KeyRing::new(3, key(3), [(7, key(7)), (u32::MAX, key(u32::MAX))]).unwrap()
}

#[test]
fn existing_envelopes_decrypt() {
    let ring = vector_ring();
    for (name, len, key_id) in VECTORS {
        let envelope = fs::read(testdata("a1").join(format!("{name}.enc"))).unwrap();
        let expected = fs::read(testdata("a1").join(format!("{name}.plain"))).unwrap();
        assert_eq!(expected.len(), len, "{name}");
        assert_eq!(crypto_envelope::identify(&envelope).unwrap().key_id, key_id, "{name}");
        assert_eq!(decrypt(&ring, UUID, &envelope).unwrap(), expected, "{name}");
        for chunk_len in [1, 7, 16, 69, 70, 71, 4096] {
            let mut buffer = vec![0xAA; len];
            let target = SliceTarget::new(&mut buffer);
            let mut decryptor = A1Decryptor::new(&ring, envelope.len() as u64, target).unwrap();
            envelope.chunks(chunk_len).for_each(|chunk| decryptor.push(chunk).unwrap());
            assert_eq!(decryptor.finish().unwrap().filled(), len, "{name} in chunks of {chunk_len}");
            assert_eq!(buffer, expected, "{name} in chunks of {chunk_len}");
        }
    }
}

#[test]
fn agrees_with_second_implementation() {
    for len in [0, 1, 15, 16, 17, 4095, 65536, 100_003] {
        let plaintext = plaintext(len);
        let ours = encrypt(&ring(), Format::A1, UUID, &plaintext).unwrap();
        assert_eq!(ours.len() as u64, envelope_len(Format::A1, len as u64));
        assert_eq!(reference::a1_open(&MASTER, &ours).unwrap(), plaintext);
        let theirs = reference::a1_seal(&MASTER, KEY_ID, &[5; 32], &[6; 32], &plaintext);
        assert_eq!(decrypt(&ring(), UUID, &theirs).unwrap(), plaintext);
    }
}

#[test]
fn keys_and_ivs_are_fresh() {
    let [a, b] = [(); 2].map(|()| encrypt(&ring(), Format::A1, UUID, b"same").unwrap());
    assert_ne!(a[6..38], b[6..38]);
    assert_ne!(a[38..70], b[38..70]);
    assert_ne!(a[70..74], b[70..74]);
}

/// A target that is not empty, unlike a discarded one.
fn target() -> Vec<u8> {
    vec![0xAA]
}

fn open(envelope: &[u8], reported_len: usize, out: &mut Vec<u8>) -> Result<(), DecryptError> {
    let mut decryptor = A1Decryptor::new(&ring(), reported_len as u64, out)?;
    decryptor.push(envelope)?;
    decryptor.finish().map(drop)
}

#[test]
fn every_bit_flip_is_detected() {
    let envelope = encrypt(&ring(), Format::A1, UUID, b"short").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut altered = envelope.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let mut out = target();
        let error = open(&altered, altered.len(), &mut out).unwrap_err();
        match bit / 8 {
            0..2 => assert!(matches!(error, DecryptError::NotAnEnvelope), "bit {bit}: {error}"),
            2..6 => assert!(matches!(error, DecryptError::UnknownKeyId(_)), "bit {bit}: {error}"),
            _ => assert!(
                matches!(error, DecryptError::A1NotAuthentic { key_id: KEY_ID }),
                "bit {bit}: {error}"
            ),
        }
        assert!(out.is_empty(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_detected() {
    let envelope = encrypt(&ring(), Format::A1, UUID, b"short").unwrap();
    for len in 0..envelope.len() {
        for reported_len in [len, envelope.len()] {
            let mut out = target();
            open(&envelope[..len], reported_len, &mut out).unwrap_err();
            assert!(out.is_empty(), "{len} of {reported_len} bytes");
        }
    }
}

#[test]
fn surplus_bytes_are_detected() {
    let mut envelope = encrypt(&ring(), Format::A1, UUID, b"short").unwrap();
    let original_len = envelope.len();
    envelope.push(0);
    let mut out = target();
    let unexpected = open(&envelope, original_len, &mut out).unwrap_err();
    assert!(matches!(unexpected, DecryptError::TooLong { .. }));
    assert!(out.is_empty());
    let expected = open(&envelope, envelope.len(), &mut target()).unwrap_err();
    assert!(matches!(expected, DecryptError::A1NotAuthentic { .. }));
}

#[test]
fn wrong_key_wipes_the_buffer() {
    let envelope = encrypt(&ring(), Format::A1, UUID, &[7; 100]).unwrap();
    let mut buffer = [0xAA; 100];
    let mut decryptor =
        A1Decryptor::new(&wrong_ring(), envelope.len() as u64, SliceTarget::new(&mut buffer)).unwrap();
    decryptor.push(&envelope).unwrap();
    assert!(matches!(decryptor.finish().unwrap_err(), DecryptError::A1NotAuthentic { .. }));
    assert_eq!(buffer, [0; 100]);
}

#[test]
fn dropped_decryptor_discards_its_target() {
    let envelope = encrypt(&ring(), Format::A1, UUID, &[7; 100]).unwrap();
    let mut out = target();
    let mut decryptor = A1Decryptor::new(&ring(), envelope.len() as u64, &mut out).unwrap();
    decryptor.push(&envelope[..120]).unwrap();
    drop(decryptor);
    assert!(out.is_empty());
}

#[test]
fn errors_are_final() {
    let mut decryptor = A1Decryptor::new(&ring(), 100, Vec::new()).unwrap();
    decryptor.push(&[0; 80]).unwrap_err();
    assert!(matches!(decryptor.push(&[0; 20]), Err(DecryptError::AlreadyFailed)));
    assert!(matches!(decryptor.finish(), Err(DecryptError::AlreadyFailed)));
}

#[test]
fn full_target_is_an_error() {
    let envelope = encrypt(&ring(), Format::A1, UUID, &[7; 100]).unwrap();
    let mut buffer = [0; 99];
    let mut decryptor =
        A1Decryptor::new(&ring(), envelope.len() as u64, SliceTarget::new(&mut buffer)).unwrap();
    assert!(matches!(decryptor.push(&envelope), Err(DecryptError::Target(_))));
}
