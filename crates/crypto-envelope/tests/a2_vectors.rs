//! The vectors in `testdata/a2`: made by the second implementation with fixed keys, read by the crate.
//!
//! The test fails when a file differs from what the generator makes, so that nobody changes a vector (or the
//! format) by accident. `UPDATE_VECTORS=1 cargo test -p crypto-envelope --test a2_vectors` rewrites the
//! files; `index.tsv`, which says what a reader must answer, is edited by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::reference::A2Parts;
use common::{KEY_ID, MASTER, UUID, Vector, a2_vectors, pattern, ring, testdata};
use crypto_envelope::{DecryptError, Decryptor, HeaderError};

const HEADER: usize = 82;
const SEGMENT: usize = 4096;
const SEALED: usize = SEGMENT + 16;

fn parts(k: u8) -> A2Parts {
    A2Parts {
        master: MASTER,
        key_id: KEY_ID,
        k,
        salt: std::array::from_fn(|i| u8::try_from(i).unwrap()),
        file_key: std::array::from_fn(|i| u8::try_from(255 - i).unwrap()),
        uuid: UUID.to_owned(),
    }
}

/// A header with key wrap algorithm 2 and one empty segment.
fn key_vault() -> Vec<u8> {
    let kid = b"https://example.vault.azure.net/keys/key/1";
    let field = [&[u8::try_from(kid.len()).unwrap(), 0], kid.as_slice(), &[1; 256]].concat();
    let field_len = u16::try_from(field.len()).unwrap().to_le_bytes();
    [b"A2\0\0\0\0\x02\x0C".as_slice(), &field_len, &[0; 32], &field, &[0; 16]].concat()
}

fn changed(envelope: &[u8], at: usize, to: u8) -> Vec<u8> {
    let mut bytes = envelope.to_vec();
    bytes[at] = to;
    bytes
}

fn flipped(envelope: &[u8], at: usize) -> Vec<u8> {
    changed(envelope, at, envelope[at] ^ 1)
}

/// An envelope of full segments, given by index and whether they are sealed as the last.
fn of_segments(segments: &[(u64, bool)]) -> Vec<u8> {
    let header = parts(12).header();
    let mut envelope = header.clone();
    for &(index, last) in segments {
        let start = usize::try_from(index).unwrap() * SEGMENT;
        let plaintext = &pattern(3 * SEGMENT)[start..start + SEGMENT];
        envelope.extend(parts(12).segment(&header, index, last, plaintext));
    }
    envelope
}

/// Makes the vector `name`.
fn generate(name: &str) -> Vec<u8> {
    let short = parts(12).seal(&pattern(100));
    let three = parts(12).seal(&pattern(3 * SEGMENT));
    match name {
        "empty" => parts(12).seal(b""),
        "one_byte" => parts(12).seal(&pattern(1)),
        "one_segment_full" => parts(12).seal(&pattern(SEGMENT)),
        "one_segment_and_a_byte" => parts(12).seal(&pattern(SEGMENT + 1)),
        "last_segment_short" => parts(12).seal(&pattern(2 * SEGMENT + 100)),
        "three_segments_full" => three,
        "k_13" => parts(13).seal(&pattern(8192 + 1)),
        "k_16" => parts(16).seal(&pattern(65536 + 1)),
        "k_24" => parts(24).seal(&pattern(300)),
        "k_11" => changed(&short, 7, 11),
        "k_25" => changed(&short, 7, 25),
        "k_changed" => changed(&short, 7, 13),
        "version_unknown" => changed(&short, 1, b'3'),
        "wrap_algorithm_unknown" => changed(&short, 6, 5),
        "wrap_key_vault" => key_vault(),
        "wrapped_key_length" => changed(&short, 8, 41),
        "wrapped_key_bit_flip" => flipped(&short, 60),
        "key_id_unknown" => changed(&short, 2, 99),
        "salt_bit_flip" => flipped(&short, 20),
        "wrong_uuid" => short,
        "segment_bit_flip" => flipped(&three, HEADER + SEALED),
        "tag_bit_flip" => flipped(&three, three.len() - 1),
        "segments_swapped" => of_segments(&[(1, false), (0, false), (2, true)]),
        "segment_repeated" => of_segments(&[(0, false), (0, false), (1, false), (2, true)]),
        "segment_missing" => of_segments(&[(0, false), (2, true)]),
        "last_flag_missing" => of_segments(&[(0, false), (1, false), (2, false)]),
        "last_flag_early" => of_segments(&[(0, true), (1, true)]),
        "truncated_at_segment" => three[..HEADER + 2 * SEALED].to_vec(),
        "truncated_in_segment" => three[..HEADER + 5000].to_vec(),
        "truncated_to_tag" => three[..HEADER + SEALED + 16].to_vec(),
        "truncated_below_tag" => three[..HEADER + SEALED + 15].to_vec(),
        "truncated_after_header" => three[..HEADER].to_vec(),
        "truncated_in_wrapped_key" => three[..50].to_vec(),
        "empty_last_segment" => {
            let empty = parts(12).segment(&parts(12).header(), 1, true, b"");
            [of_segments(&[(0, false)]), empty].concat()
        }
        "trailing_byte" => [three.as_slice(), &[0]].concat(),
        other => panic!("index.tsv lists {other}, which has no generator"),
    }
}

/// The name of an error in `index.tsv`.
fn kind(error: &DecryptError) -> &'static str {
    match error {
        DecryptError::NotAnEnvelope => "no_envelope",
        DecryptError::UnknownKeyId(_) => "key_id",
        DecryptError::Header(HeaderError::SegmentSize(_)) => "segment_size",
        DecryptError::Header(HeaderError::WrapAlgorithm(_)) => "wrap_algorithm",
        DecryptError::Header(HeaderError::WrappedKeyLength { .. }) => "wrapped_key_length",
        DecryptError::NotUnwrapped { .. } => "key_vault",
        DecryptError::WrappedKeyNotAuthentic { .. } => "wrapped_key",
        DecryptError::SegmentNotAuthentic { .. } => "segment",
        DecryptError::InvalidLength { .. } => "length",
        DecryptError::Truncated { .. } => "truncated",
        _ => "other",
    }
}

#[test]
fn vectors_match_their_generator() {
    for Vector { name, envelope, .. } in a2_vectors() {
        let generated = generate(&name);
        if std::env::var_os("UPDATE_VECTORS").is_some() {
            fs::write(testdata("a2").join(format!("{name}.enc")), &generated).unwrap();
        } else {
            assert!(envelope == generated, "{name} differs");
        }
    }
}

#[test]
fn vectors_decrypt_or_fail_as_listed() {
    for Vector { name, uuid, error, envelope, plaintext_len } in a2_vectors() {
        for chunk_len in [1, 4000, SEALED, envelope.len()] {
            let mut out = Vec::new();
            let mut decryptor = Decryptor::new(&ring(), &uuid, envelope.len() as u64, &mut out);
            let pushed = envelope.chunks(chunk_len).try_for_each(|chunk| decryptor.push(chunk));
            let outcome = pushed.and_then(|()| decryptor.finish().map(drop));
            assert_eq!(outcome.err().as_ref().map(kind), error.as_deref(), "{name} in chunks of {chunk_len}");
            assert_eq!(out, pattern(plaintext_len), "{name} in chunks of {chunk_len}");
        }
    }
}
