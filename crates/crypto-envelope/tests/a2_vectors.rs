//! The vectors in `testdata/a2`: made by the second implementation with fixed keys, read by the crate.
//!
//! `UPDATE_VECTORS=1 cargo test -p crypto-envelope --test a2_vectors` writes the files anew; without it, the files must be
//! what the generator makes, so that nobody changes them (or the format) by accident.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fmt::Write as _;
use std::fs;

use common::reference::A2Parts;
use common::{KEY_ID, MASTER, OTHER_UUID, UUID, ring, testdata};
use crypto_envelope::{A2Decryptor, DecryptError, HeaderError, decrypt};

/// What a reader must make of a vector.
#[derive(Clone, Copy)]
enum Expect {
    /// Plaintext of this length, byte i being i mod 251.
    Plaintext(usize),
    /// Refused; segments before this many bytes of plaintext may have been released.
    Refused { error: &'static str, released: usize },
}
use Expect::{Plaintext, Refused};

struct Vector {
    name: &'static str,
    uuid: &'static str,
    expect: Expect,
    shows: &'static str,
    bytes: Vec<u8>,
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

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

const HEADER: usize = 82;
const SEALED: usize = 4096 + 16;

#[allow(clippy::too_many_lines, reason = "a table")]
fn vectors() -> Vec<Vector> {
    let p = parts(12);
    let header = p.header();
    let three = p.seal(&pattern(3 * 4096));
    let good = |name, len, k, shows| Vector {
        name,
        uuid: UUID,
        expect: Plaintext(len),
        shows,
        bytes: parts(k).seal(&pattern(len)),
    };
    let bad = |name, error, released, shows, bytes| Vector {
        name,
        uuid: UUID,
        expect: Refused { error, released },
        shows,
        bytes,
    };
    let change = |envelope: &[u8], at: usize, to: u8| {
        let mut bytes = envelope.to_vec();
        bytes[at] = to;
        bytes
    };
    let flip = |envelope: &[u8], at: usize| change(envelope, at, envelope[at] ^ 1);
    let plain = pattern(3 * 4096);
    let with_segments = |segments: &[Vec<u8>]| [header.clone(), segments.concat()].concat();
    let seg = |i: u64, last| {
        let start = usize::try_from(i).unwrap() * 4096;
        p.segment(&header, i, last, &plain[start..start + 4096])
    };
    let one = p.seal(&pattern(100));
    let field = {
        let kid = b"https://example.vault.azure.net/keys/key/1";
        [&[u8::try_from(kid.len()).unwrap(), 0], kid.as_slice(), &[1; 256]].concat()
    };
    let key_vault = {
        let w = u16::try_from(field.len()).unwrap().to_le_bytes();
        [b"A2\0\0\0\0\x02\x0C".as_slice(), &w, &[0; 32], &field, &[0; 16]].concat()
    };

    vec![
        good("empty", 0, 12, "an empty plaintext is one segment of only a tag"),
        good("one_byte", 1, 12, "the shortest plaintext"),
        good(
            "one_segment_full",
            4096,
            12,
            "a plaintext of exactly one segment has no empty segment after it",
        ),
        good("one_segment_and_a_byte", 4097, 12, "the last segment has one byte"),
        good("last_segment_short", 2 * 4096 + 100, 12, "the last segment is shorter than the others"),
        good("three_segments_full", 3 * 4096, 12, "the last segment is full"),
        good("k_13", 8192 + 1, 13, "another segment size than the smallest"),
        good("k_16", 65536 + 1, 16, "the segment size that is written"),
        good("k_24", 300, 24, "the largest segment size"),
        bad("k_11", "segment_size", 0, "a segment size below the accepted ones", change(&one, 7, 11)),
        bad("k_25", "segment_size", 0, "a segment size above the accepted ones", change(&one, 7, 25)),
        bad(
            "k_changed",
            "segment",
            0,
            "another accepted segment size than the one sealed with",
            change(&one, 7, 13),
        ),
        bad("version_unknown", "no_envelope", 0, "A3 does not exist", change(&one, 1, b'3')),
        bad(
            "wrap_algorithm_unknown",
            "wrap_algorithm",
            0,
            "key wrap algorithm 3 does not exist",
            change(&one, 6, 3),
        ),
        bad("wrap_key_vault", "key_vault", 0, "key wrap algorithm 2, which needs the vault", key_vault),
        bad("wrapped_key_length", "wrapped_key_length", 0, "W is 41 with algorithm 1", change(&one, 8, 41)),
        bad("wrapped_key_bit_flip", "wrapped_key", 0, "one bit of the wrapped key changed", flip(&one, 60)),
        bad("key_id_unknown", "key_id", 0, "a key id that is not configured", change(&one, 2, 99)),
        bad("salt_bit_flip", "segment", 0, "one bit of the salt changed", flip(&one, 20)),
        Vector {
            name: "wrong_uuid",
            uuid: OTHER_UUID,
            expect: Refused { error: "segment", released: 0 },
            shows: "an envelope moved to another attachment",
            bytes: one.clone(),
        },
        bad(
            "segment_bit_flip",
            "segment",
            4096,
            "one bit of the second segment changed",
            flip(&three, HEADER + SEALED),
        ),
        bad(
            "tag_bit_flip",
            "segment",
            8192,
            "one bit of the last tag changed",
            flip(&three, three.len() - 1),
        ),
        bad(
            "segments_swapped",
            "segment",
            0,
            "the first two segments exchanged",
            with_segments(&[seg(1, false), seg(0, false), seg(2, true)]),
        ),
        bad(
            "segment_repeated",
            "segment",
            4096,
            "the first segment twice",
            with_segments(&[seg(0, false), seg(0, false), seg(1, false), seg(2, true)]),
        ),
        bad(
            "segment_missing",
            "segment",
            4096,
            "the middle segment removed",
            with_segments(&[seg(0, false), seg(2, true)]),
        ),
        bad(
            "last_flag_missing",
            "segment",
            8192,
            "the last segment sealed as if more followed",
            with_segments(&[seg(0, false), seg(1, false), seg(2, false)]),
        ),
        bad(
            "last_flag_early",
            "segment",
            0,
            "a last segment, followed by another last segment",
            with_segments(&[seg(0, true), seg(1, true)]),
        ),
        bad(
            "truncated_at_segment",
            "segment",
            4096,
            "cut off after the second segment",
            three[..HEADER + 2 * SEALED].to_vec(),
        ),
        bad(
            "truncated_in_segment",
            "segment",
            4096,
            "cut off in the second segment",
            three[..HEADER + 5000].to_vec(),
        ),
        bad(
            "truncated_to_tag",
            "length",
            0,
            "so cut that only a tag remains of the last",
            three[..HEADER + SEALED + 16].to_vec(),
        ),
        bad(
            "truncated_below_tag",
            "length",
            0,
            "so cut that less than a tag remains",
            three[..HEADER + SEALED + 15].to_vec(),
        ),
        bad("truncated_after_header", "length", 0, "only a header", three[..HEADER].to_vec()),
        bad("truncated_in_wrapped_key", "truncated", 0, "a header cut off", three[..50].to_vec()),
        bad(
            "empty_last_segment",
            "length",
            0,
            "a full segment, then an empty last one: not how that plaintext is written",
            with_segments(&[seg(0, false), p.segment(&header, 1, true, b"")]),
        ),
        bad(
            "trailing_byte",
            "length",
            0,
            "one byte too many after a full last segment",
            [three.as_slice(), &[0]].concat(),
        ),
    ]
}

fn kind(error: &DecryptError) -> &'static str {
    match error {
        DecryptError::NotAnEnvelope => "no_envelope",
        DecryptError::UnknownKeyId(_) => "key_id",
        DecryptError::Header(HeaderError::SegmentSize(_)) => "segment_size",
        DecryptError::Header(HeaderError::WrapAlgorithm(_)) => "wrap_algorithm",
        DecryptError::Header(HeaderError::WrappedKeyLength { .. }) => "wrapped_key_length",
        DecryptError::KeyVaultNotAvailable { .. } => "key_vault",
        DecryptError::WrappedKeyNotAuthentic { .. } => "wrapped_key",
        DecryptError::SegmentNotAuthentic { .. } => "segment",
        DecryptError::InvalidLength { .. } => "length",
        DecryptError::Truncated { .. } => "truncated",
        _ => "other",
    }
}

#[test]
fn the_files_are_what_the_generator_makes() {
    let mut index = String::from("name\tuuid\texpect\tshows\n");
    let update = std::env::var_os("UPDATE_VECTORS").is_some();
    for Vector { name, uuid, expect, shows, bytes } in vectors() {
        let expect = match expect {
            Plaintext(len) => format!("plaintext {len}"),
            Refused { error, .. } => format!("error {error}"),
        };
        writeln!(index, "{name}\t{uuid}\t{expect}\t{shows}").unwrap();
        let path = testdata("a2").join(format!("{name}.enc"));
        if update {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{name} differs");
    }
    let path = testdata("a2").join("index.tsv");
    if update {
        fs::write(&path, &index).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), index);
}

#[test]
fn every_vector_gives_its_plaintext_or_its_error() {
    for Vector { name, uuid, expect, bytes, .. } in vectors() {
        let outcome = decrypt(&ring(), uuid, &bytes);
        match expect {
            Plaintext(len) => assert_eq!(outcome.unwrap(), pattern(len), "{name}"),
            Refused { error: "truncated", .. } => assert!(outcome.is_err(), "{name}"),
            Refused { error, .. } => assert_eq!(kind(&outcome.unwrap_err()), error, "{name}"),
        }
    }
}

#[test]
fn only_verified_segments_are_released_however_the_bytes_arrive() {
    for Vector { name, uuid, expect, bytes, .. } in vectors() {
        for chunk_len in [1, 4000, SEALED, bytes.len()] {
            let mut out = Vec::new();
            let mut decryptor = A2Decryptor::new(&ring(), uuid, bytes.len() as u64, &mut out).unwrap();
            let pushed = bytes.chunks(chunk_len).try_for_each(|chunk| decryptor.push(chunk));
            let outcome = pushed.and_then(|()| decryptor.finish().map(|_| ()));
            match expect {
                Plaintext(len) => {
                    outcome.unwrap();
                    assert_eq!(out, pattern(len), "{name} by {chunk_len}");
                }
                Refused { error, released } => {
                    assert_eq!(kind(&outcome.unwrap_err()), error, "{name} by {chunk_len}");
                    assert_eq!(out, pattern(released), "{name} by {chunk_len}");
                }
            }
        }
    }
}
