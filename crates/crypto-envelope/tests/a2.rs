//! A2: agrees with the second implementation, notices every change, reads ranges.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::reference::A2Parts;
use common::{KEY_ID, MASTER, OTHER_UUID, UUID, plaintext, ring, wrong_ring};
use crypto_envelope::{
    A2Decryptor, A2Geometry, A2Header, A2Opener, A2RangeDecryptor, DecryptError, EncryptError, FileKey,
    Format, HeaderReader, KeyWrap, RangeError, a2_envelope_len, decrypt, encrypt, encrypt_a2_with_file_key,
    envelope_len, inspect, speculative_header_len,
};
use proptest::prelude::{Strategy, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

const S: usize = 65536;

fn parts(k: u8) -> A2Parts {
    A2Parts { master: MASTER, key_id: KEY_ID, k, salt: [1; 32], file_key: [2; 32], uuid: UUID.to_owned() }
}

fn opener(envelope: &[u8]) -> Arc<A2Opener> {
    let header = A2Header::parse(envelope).unwrap().unwrap();
    Arc::new(A2Opener::unwrap(&ring(), header, UUID).unwrap())
}

#[test]
fn our_envelopes_are_to_the_byte_what_the_second_implementation_makes_of_the_same_keys() {
    for len in [0, 1, 100, S - 1, S, S + 1, 3 * S, 3 * S + 5] {
        let plaintext = plaintext(len);
        let ours = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
        assert_eq!(ours.len() as u64, envelope_len(Format::A2, len as u64), "{len}");
        let parts = A2Parts::of(&MASTER, UUID, &ours).unwrap();
        assert_eq!(parts.k, 16);
        assert!(parts.seal(&plaintext) == ours, "{len}");
        assert!(parts.open(&ours).unwrap() == plaintext, "{len}");
    }
}

#[test]
fn two_encryptions_of_one_plaintext_share_nothing_but_the_fixed_fields() {
    let [a, b] = [(); 2].map(|()| encrypt(&ring(), Format::A2, UUID, b"same").unwrap());
    assert_eq!(a[..10], b[..10]);
    assert_ne!(a[10..42], b[10..42]);
    assert_ne!(a[42..82], b[42..82]);
    assert_ne!(a[82..86], b[82..86]);
}

#[test]
fn every_changed_bit_is_noticed_before_a_byte_is_released() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut altered = envelope.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let mut out = Vec::new();
        let mut decryptor = A2Decryptor::new(&ring(), UUID, altered.len() as u64, &mut out).unwrap();
        let outcome = decryptor.push(&altered).and_then(|()| decryptor.finish().map(|_| ()));
        assert!(outcome.is_err(), "bit {bit}");
        assert!(out.is_empty(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_noticed_whether_the_length_is_announced_or_not() {
    // Several segments, small ones.
    let plaintext = plaintext(2 * 4096 + 3);
    let envelope = parts(12).seal(&plaintext);
    for len in 0..envelope.len() {
        for announced in [len, envelope.len()] {
            let mut out = Vec::new();
            let mut decryptor = A2Decryptor::new(&ring(), UUID, announced as u64, &mut out).unwrap();
            let outcome = decryptor.push(&envelope[..len]).and_then(|()| decryptor.finish().map(|_| ()));
            assert!(outcome.is_err(), "{len} of {announced}");
            assert!(plaintext.starts_with(&out) && out.len() % 4096 == 0, "{len} of {announced}");
        }
    }
}

#[test]
fn surplus_bytes_wrong_keys_and_wrong_names_are_noticed() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    let mut decryptor = A2Decryptor::new(&ring(), UUID, envelope.len() as u64, Vec::new()).unwrap();
    decryptor.push(&envelope).unwrap();
    assert!(matches!(decryptor.push(&[0]), Err(DecryptError::TooLong { .. })));
    assert!(matches!(decryptor.push(&[0]), Err(DecryptError::AlreadyFailed)));
    let error = decrypt(&wrong_ring(), UUID, &envelope).unwrap_err();
    assert!(matches!(error, DecryptError::WrappedKeyNotAuthentic { key_id: KEY_ID }));
    let error = decrypt(&ring(), OTHER_UUID, &envelope).unwrap_err();
    assert!(matches!(&error, DecryptError::SegmentNotAuthentic { uuid, .. } if uuid == OTHER_UUID));
    for uuid in
        ["", "short", "6a3e9a74x3a2c-4b7e-9d0a-1f6f5c1d2e3b", "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3\u{e4}"]
    {
        assert!(matches!(decrypt(&ring(), uuid, &envelope), Err(DecryptError::InvalidUuid(_))));
        assert!(matches!(encrypt(&ring(), Format::A2, uuid, b""), Err(EncryptError::InvalidUuid(_))));
    }
}

#[test]
fn the_layout_agrees_with_the_encryption_and_knows_impossible_lengths() {
    assert_eq!(speculative_header_len(), 82);
    for len in [0_u64, 1, 65535, 65536, 65537, 1 << 40] {
        let envelope_len = envelope_len(Format::A2, len);
        let layout = crypto_envelope::A2Layout::new(A2Geometry::STANDARD, envelope_len).unwrap();
        assert_eq!(layout.plaintext_len(), len);
        assert_eq!(layout.segments(), len.div_ceil(65536).max(1));
        assert_eq!(layout.plan_whole().envelope_range(), 82..envelope_len);
    }
    for impossible in [0, 81, 82, 97, 82 + 65552 + 1, 82 + 65552 + 16] {
        crypto_envelope::A2Layout::new(A2Geometry::STANDARD, impossible).unwrap_err();
    }
    assert_eq!(A2Geometry::STANDARD.envelope_len(u64::MAX), u64::MAX);
}

#[test]
fn ranges_outside_the_plaintext_are_refused_and_empty_ones_need_nothing() {
    let layout =
        crypto_envelope::A2Layout::new(A2Geometry::STANDARD, envelope_len(Format::A2, 100_000)).unwrap();
    #[allow(clippy::reversed_empty_ranges, reason = "the point")]
    for range in [0..100_001, 100_001..100_001, 5..4, 0..u64::MAX] {
        let RangeError { start, end, plaintext_len } = layout.plan(range.clone()).unwrap_err();
        assert_eq!((start..end, plaintext_len), (range, 100_000));
    }
    for at in [0, 65536, 100_000] {
        assert!(layout.plan(at..at).unwrap().envelope_range().is_empty());
    }
}

#[test]
fn an_empty_range_needs_no_more_than_the_header() {
    let envelope = encrypt(&ring(), Format::A2, UUID, &plaintext(3 * S)).unwrap();
    for at in [0, 70_000, 3 * S as u64] {
        let mut decryptor =
            A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, at..at, Vec::new()).unwrap();
        decryptor.push(&envelope[..82]).unwrap();
        assert!(decryptor.remaining().is_empty());
        assert!(decryptor.finish().unwrap().is_empty());
    }
}

#[test]
fn a_range_beyond_the_plaintext_is_refused_once_the_header_is_known() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    let mut decryptor =
        A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, 0..6, Vec::new()).unwrap();
    assert!(matches!(decryptor.push(&envelope), Err(DecryptError::Range(_))));
}

#[test]
fn a_range_decryption_notices_missing_and_surplus_bytes() {
    let plaintext = plaintext(3 * S);
    let envelope = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
    let plan = || opener(&envelope).layout(envelope.len() as u64).unwrap().plan(70_000..70_010).unwrap();
    let range = plan().envelope_range();
    let bytes = &envelope[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];

    let mut short = A2RangeDecryptor::new(opener(&envelope), plan(), Vec::new());
    short.push(&bytes[..1000]).unwrap();
    assert_eq!(short.remaining(), range.start + 1000..range.end);
    assert!(matches!(short.finish(), Err(DecryptError::Truncated { expected: 65552, received: 1000 })));

    let mut long = A2RangeDecryptor::new(opener(&envelope), plan(), Vec::new());
    long.push(bytes).unwrap();
    assert!(matches!(long.push(&[0]), Err(DecryptError::TooLong { expected: 65552 })));
    assert!(matches!(long.push(&[0]), Err(DecryptError::AlreadyFailed)));
    assert!(matches!(long.finish(), Err(DecryptError::AlreadyFailed)));

    let mut elsewhere = A2RangeDecryptor::new(opener(&envelope), plan(), Vec::new());
    let first_segment = &envelope[82..82 + 65552];
    assert!(matches!(
        elsewhere.push(first_segment),
        Err(DecryptError::SegmentNotAuthentic { segment: 1, .. })
    ));
}

#[test]
fn everything_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<crypto_envelope::KeyRing>();
    crosses::<A2Opener>();
    crosses::<crypto_envelope::Decryptor<Vec<u8>>>();
    crosses::<A2RangeDecryptor<Vec<u8>>>();
    crosses::<DecryptError>();
}

#[test]
fn a_range_near_the_start_comes_with_the_header_in_one_request() {
    let g = A2Geometry::STANDARD;
    assert_eq!(g.range_with_header(0..1, 0), Some(0..82 + 65552));
    assert_eq!(g.range_with_header(65536..65537, 0), None);
    assert_eq!(g.range_with_header(65536..65537, 65552), Some(0..82 + 2 * 65552));
    let plaintext = plaintext(3 * S);
    let envelope = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
    let range = g.range_with_header(70_000..70_010, 1 << 20).unwrap();
    let fetched = &envelope[..usize::try_from(range.end).unwrap()];
    let mut decryptor =
        A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, 70_000..70_010, Vec::new()).unwrap();
    decryptor.push(fetched).unwrap();
    assert!(decryptor.remaining().is_empty());
    assert!(decryptor.opener().is_some());
    assert_eq!(decryptor.finish().unwrap(), plaintext[70_000..70_010]);
}

#[test]
fn a_download_that_broke_off_resumes_where_remaining_says() {
    let plaintext = plaintext(3 * S + 7);
    let envelope = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
    let mut decryptor = A2Decryptor::new(&ring(), UUID, envelope.len() as u64, Vec::new()).unwrap();
    for step in [10, 30, 41, 5, 65552, 100_000, 1, 0].into_iter().cycle().take(40) {
        let start = usize::try_from(decryptor.remaining().start).unwrap();
        assert_eq!(decryptor.remaining().end, envelope.len() as u64);
        decryptor.push(&envelope[start..envelope.len().min(start + step)]).unwrap();
    }
    assert!(decryptor.finish().unwrap() == plaintext);
}

#[test]
fn a_header_longer_than_assumed_shows_in_what_remains() {
    let wrap = KeyWrap::KeyVault { kid: "https://v.vault.azure.net/keys/k/1", wrapped: &[3; 256] };
    let file_key = FileKey::random().unwrap();
    let envelope = encrypt_a2_with_file_key(&wrap, &file_key, UUID, b"short").unwrap();
    let assumed = usize::try_from(speculative_header_len()).unwrap();
    let mut reader = HeaderReader::new();
    let mut chunk = &envelope[..assumed];
    assert!(reader.push(&mut chunk).unwrap().is_none() && chunk.is_empty());
    let mut rest = &envelope[assumed..];
    assert!(reader.push(&mut rest).unwrap().is_some());
    assert_eq!(rest.len(), 5 + 16);
}

#[test]
fn key_vault_envelopes_are_recognised_and_open_with_the_unwrapped_file_key() {
    let wrap = KeyWrap::KeyVault { kid: "https://v.vault.azure.net/keys/k/1", wrapped: &[3; 256] };
    let file_key = FileKey::new(&[8; 32]);
    let plaintext = plaintext(S + 1);
    let envelope = encrypt_a2_with_file_key(&wrap, &file_key, UUID, &plaintext).unwrap();
    assert_eq!(envelope.len() as u64, a2_envelope_len(&wrap, plaintext.len() as u64).unwrap());
    let inspection = inspect(&envelope, envelope.len() as u64).unwrap();
    assert_eq!((inspection.key_id, inspection.plaintext_len), (0, plaintext.len() as u64));
    let details = inspection.details.unwrap();
    assert_eq!(details.key_vault_kid.as_deref(), Some("https://v.vault.azure.net/keys/k/1"));
    assert_eq!((details.wrap_algorithm, details.segments, details.segment_size), (2, 2, 65536));
    let error = decrypt(&ring(), UUID, &envelope).unwrap_err();
    assert!(matches!(&error, DecryptError::KeyVaultNotAvailable { kid } if kid.ends_with("/k/1")));

    let mut rest = envelope.as_slice();
    let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
    assert_eq!(header.wrap(), wrap);
    let opener = Arc::new(A2Opener::with_file_key(header, &file_key, UUID).unwrap());
    let plan = opener.layout(envelope.len() as u64).unwrap().plan_whole();
    let mut decryptor = A2RangeDecryptor::new(opener, plan, Vec::new());
    decryptor.push(rest).unwrap();
    assert!(decryptor.finish().unwrap() == plaintext);
}

#[test]
fn a_malformed_key_vault_field_is_refused_on_both_ways() {
    let file_key = FileKey::random().unwrap();
    let long = "k".repeat(70_000);
    for (kid, wrapped) in
        [("", [1; 9].as_slice()), ("k", &[]), (long.as_str(), &[1]), (&long[..65_530], &[1; 9])]
    {
        let wrap = KeyWrap::KeyVault { kid, wrapped };
        let outcome = encrypt_a2_with_file_key(&wrap, &file_key, UUID, b"");
        assert!(matches!(outcome, Err(EncryptError::Header(_))));
    }
    for (key_id, field) in
        [(0_u8, [9_u8, 0, 1].as_slice()), (0, &[1, 0, 0xFF, 1]), (0, &[1]), (1, &[1, 0, b'k', 1])]
    {
        let w = u8::try_from(field.len()).unwrap();
        let header = [b"A2", [key_id, 0, 0, 0, 2, 16, w, 0].as_slice(), &[0; 32], field].concat();
        assert!(matches!(A2Header::parse(&header), Err(DecryptError::Header(_))), "{field:?}");
    }
}

/// Lengths around segment borders (of 4 KiB) more often than others.
fn lengths() -> impl Strategy<Value = usize> {
    (0..5_usize, -2..3_isize, 0..4096_usize, any::<bool>()).prop_map(|(segments, near, far, border)| {
        let base = segments * 4096;
        if border { base.saturating_add_signed(near) } else { base + far }
    })
}

proptest! {
    #[test]
    fn any_chunking_gives_the_plaintext(len in lengths(), cuts in proptest::collection::vec(0..9000_usize, 1..30)) {
        let plaintext = plaintext(len);
        let envelope = parts(12).seal(&plaintext);
        let mut decryptor = A2Decryptor::new(&ring(), UUID, envelope.len() as u64, Vec::new()).unwrap();
        let mut rest = envelope.as_slice();
        for cut in cuts {
            let (chunk, after) = rest.split_at(cut.min(rest.len()));
            decryptor.push(chunk).unwrap();
            rest = after;
        }
        decryptor.push(rest).unwrap();
        prop_assert!(decryptor.finish().unwrap() == plaintext);
    }

    #[test]
    fn any_range_is_that_slice_of_the_plaintext(len in lengths(), a in any::<u16>(), b in any::<u16>(), chunk in 1..9000_usize) {
        let plaintext = plaintext(len);
        let envelope = parts(12).seal(&plaintext);
        let (a, b) = (usize::from(a) % (len + 1), usize::from(b) % (len + 1));
        let wanted = a.min(b)..a.max(b);
        let range = wanted.start as u64..wanted.end as u64;
        let opener = opener(&envelope);
        let plan = opener.layout(envelope.len() as u64).unwrap().plan(range.clone()).unwrap();
        let bytes = plan.envelope_range();
        let bytes = usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap();
        prop_assert!(bytes.len() <= wanted.len() + 2 * (4096 + 16) + wanted.len() / 4096 * 16);
        let unbounded = opener.header().geometry().envelope_range(range.clone());
        prop_assert_eq!(unbounded.start, plan.envelope_range().start);
        prop_assert_eq!(unbounded.end.min(envelope.len() as u64), plan.envelope_range().end);

        let mut decryptor = A2RangeDecryptor::new(Arc::clone(&opener), plan, Vec::new());
        for chunk in envelope[bytes].chunks(chunk) {
            decryptor.push(chunk).unwrap();
        }
        prop_assert!(decryptor.remaining().is_empty());
        prop_assert!(decryptor.finish().unwrap() == plaintext[wanted.clone()]);

        // The same from the first byte on, with surplus bytes.
        let mut decryptor = A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, range, Vec::new()).unwrap();
        for chunk in envelope.chunks(chunk) {
            decryptor.push(chunk).unwrap();
        }
        prop_assert!(decryptor.finish().unwrap() == plaintext[wanted]);
    }

    #[test]
    fn any_size_survives_both_formats(len in 0..200_000_usize, a1 in any::<bool>()) {
        let plaintext = plaintext(len);
        let format = if a1 { Format::A1 } else { Format::A2 };
        let envelope = encrypt(&ring(), format, UUID, &plaintext).unwrap();
        prop_assert_eq!(envelope.len() as u64, envelope_len(format, len as u64));
        prop_assert_eq!(inspect(&envelope, envelope.len() as u64).unwrap().plaintext_len, len as u64);
        prop_assert!(decrypt(&ring(), UUID, &envelope).unwrap() == plaintext);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), format in 0..3_u8) {
        let mut bytes = bytes;
        if bytes.len() > 1 && format > 0 {
            bytes[..2].copy_from_slice(&[b'A', b'0' + format]);
        }
        prop_assert!(decrypt(&ring(), UUID, &bytes).is_err());
    }
}
