//! A2: new envelopes match the second implementation, alterations are detected, and ranges can be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::reference::A2Parts;
use common::{KEY_ID, MASTER, OTHER_UUID, UUID, plaintext, ring, wrong_ring};
use crypto_envelope::{
    A2Decryptor, A2Geometry, A2Header, A2Layout, A2Opener, A2RangeDecryptor, DecryptError, EncryptError,
    FileKey, Format, HeaderReader, KeyWrap, RangeError, Service, ServiceWrap, a2_envelope_len, decrypt,
    encrypt, encrypt_a2_with_file_key, envelope_len, inspect, speculative_header_len,
};
use proptest::prelude::{Strategy, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

const S: usize = 65536;

/// Parts with segments of 4 KiB, so that a few kilobytes have several.
fn small_parts() -> A2Parts {
    let uuid = UUID.to_owned();
    A2Parts { master: MASTER, key_id: KEY_ID, k: 12, salt: [1; 32], file_key: [2; 32], uuid }
}

fn open(envelope: &[u8], reported_len: usize, out: &mut Vec<u8>) -> Result<(), DecryptError> {
    let mut decryptor = A2Decryptor::new(&ring(), UUID, reported_len as u64, out)?;
    decryptor.push(envelope)?;
    decryptor.finish().map(drop)
}

fn opener(envelope: &[u8]) -> Arc<A2Opener> {
    let header = A2Header::parse(envelope).unwrap().unwrap();
    Arc::new(A2Opener::unwrap(&ring(), header, UUID).unwrap())
}

#[test]
fn agrees_with_second_implementation() {
    for len in [0, 1, 100, S - 1, S, S + 1, 3 * S, 3 * S + 5] {
        let plaintext = plaintext(len);
        let ours = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
        assert_eq!(ours.len() as u64, envelope_len(Format::A2, len as u64), "{len}");
        let parts = A2Parts::of(&MASTER, UUID, &ours).unwrap();
        assert_eq!(parts.k, 16);
        assert!(parts.seal(&plaintext) == ours, "{len}");
        assert!(decrypt(&ring(), UUID, &ours).unwrap() == plaintext, "{len}");
    }
}

#[test]
fn keys_and_salts_are_fresh() {
    let [a, b] = [(); 2].map(|()| encrypt(&ring(), Format::A2, UUID, b"same").unwrap());
    assert_eq!(a[..10], b[..10]);
    assert_ne!(a[10..42], b[10..42]);
    assert_ne!(a[42..82], b[42..82]);
    assert_ne!(a[82..86], b[82..86]);
}

#[test]
fn every_bit_flip_is_detected() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut altered = envelope.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let mut out = Vec::new();
        assert!(open(&altered, altered.len(), &mut out).is_err(), "bit {bit}");
        assert!(out.is_empty(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_detected() {
    let plaintext = plaintext(2 * 4096 + 3);
    let envelope = small_parts().seal(&plaintext);
    for len in 0..envelope.len() {
        for reported_len in [len, envelope.len()] {
            let mut out = Vec::new();
            assert!(open(&envelope[..len], reported_len, &mut out).is_err(), "{len} of {reported_len}");
            assert!(plaintext.starts_with(&out) && out.len() % 4096 == 0, "{len} of {reported_len}");
        }
    }
}

#[test]
fn surplus_bytes_and_wrong_keys_are_refused() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    let mut decryptor = A2Decryptor::new(&ring(), UUID, envelope.len() as u64, Vec::new()).unwrap();
    decryptor.push(&envelope).unwrap();
    assert!(matches!(decryptor.push(&[0]), Err(DecryptError::TooLong { .. })));
    assert!(matches!(decryptor.push(&[0]), Err(DecryptError::AlreadyFailed)));
    let wrong_key = decrypt(&wrong_ring(), UUID, &envelope).unwrap_err();
    assert!(matches!(wrong_key, DecryptError::WrappedKeyNotAuthentic { key_id: KEY_ID }));
    let wrong_uuid = decrypt(&ring(), OTHER_UUID, &envelope).unwrap_err();
    assert!(matches!(wrong_uuid, DecryptError::SegmentNotAuthentic { uuid, .. } if uuid == OTHER_UUID));
    for uuid in
        ["", "short", "6a3e9a74x3a2c-4b7e-9d0a-1f6f5c1d2e3b", "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3\u{e4}"]
    {
        assert!(matches!(decrypt(&ring(), uuid, &envelope), Err(DecryptError::InvalidUuid(_))));
        assert!(matches!(encrypt(&ring(), Format::A2, uuid, b""), Err(EncryptError::InvalidUuid(_))));
    }
}

#[test]
fn layout_matches_encryption() {
    assert_eq!(speculative_header_len(), 82);
    for len in [0_u64, 1, 65535, 65536, 65537, 1 << 40] {
        let envelope_len = envelope_len(Format::A2, len);
        let layout = A2Layout::new(A2Geometry::STANDARD, envelope_len).unwrap();
        assert_eq!(layout.plaintext_len(), len);
        assert_eq!(layout.segments(), len.div_ceil(65536).max(1));
        assert_eq!(layout.plan_whole().envelope_range(), 82..envelope_len);
    }
    for impossible in [0, 81, 82, 97, 82 + 65552 + 1, 82 + 65552 + 16] {
        A2Layout::new(A2Geometry::STANDARD, impossible).unwrap_err();
    }
    assert_eq!(A2Geometry::STANDARD.envelope_len(u64::MAX), u64::MAX);
}

#[test]
fn ranges_outside_the_plaintext_are_refused() {
    let layout = A2Layout::new(A2Geometry::STANDARD, envelope_len(Format::A2, 100_000)).unwrap();
    #[allow(clippy::reversed_empty_ranges, reason = "reversed ranges must be refused")]
    for range in [0..100_001, 100_001..100_001, 5..4, 0..u64::MAX] {
        let RangeError { start, end, plaintext_len } = layout.plan(range.clone()).unwrap_err();
        assert_eq!((start..end, plaintext_len), (range, 100_000));
    }
    for at in [0, 65536, 100_000] {
        assert!(layout.plan(at..at).unwrap().envelope_range().is_empty());
    }
}

#[test]
fn empty_range_needs_only_the_header() {
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
fn header_reveals_that_a_range_is_too_long() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"short").unwrap();
    let mut decryptor =
        A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, 0..6, Vec::new()).unwrap();
    assert!(matches!(decryptor.push(&envelope), Err(DecryptError::Range(_))));
}

#[test]
fn range_of_wrong_length_is_refused() {
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
fn one_request_fetches_header_and_range() {
    let geometry = A2Geometry::STANDARD;
    assert_eq!(geometry.range_with_header(0..1, 0), Some(0..82 + 65552));
    assert_eq!(geometry.range_with_header(65536..65537, 0), None);
    assert_eq!(geometry.range_with_header(65536..65537, 65552), Some(0..82 + 2 * 65552));
    let plaintext = plaintext(3 * S);
    let envelope = encrypt(&ring(), Format::A2, UUID, &plaintext).unwrap();
    let range = geometry.range_with_header(70_000..70_010, 1 << 20).unwrap();
    let fetched = &envelope[..usize::try_from(range.end).unwrap()];
    let mut decryptor =
        A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, 70_000..70_010, Vec::new()).unwrap();
    decryptor.push(fetched).unwrap();
    assert!(decryptor.remaining().is_empty());
    assert!(decryptor.opener().is_some());
    assert_eq!(decryptor.finish().unwrap(), plaintext[70_000..70_010]);
}

#[test]
fn interrupted_download_can_be_resumed() {
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
fn envelope_of_a_key_service_opens_with_its_file_key() {
    let key = "https://v.vault.azure.net/keys/k/1";
    for service in [Service::AzureKeyVault, Service::GoogleKms] {
        opens_with_its_file_key(ServiceWrap { service, key, wrapped: &[3; 256] });
    }
    opens_with_its_file_key(ServiceWrap { service: Service::AwsKms, key: "", wrapped: &[3; 150] });
}

fn opens_with_its_file_key(service_wrap: ServiceWrap<'_>) {
    let wrap = KeyWrap::Service(service_wrap);
    let file_key = FileKey::new(&[8; 32]);
    let plaintext = plaintext(S + 1);
    let envelope = encrypt_a2_with_file_key(&wrap, &file_key, UUID, &plaintext).unwrap();
    assert_eq!(envelope.len() as u64, a2_envelope_len(&wrap, plaintext.len() as u64).unwrap());
    let inspection = inspect(&envelope, envelope.len() as u64).unwrap();
    assert_eq!((inspection.key_id, inspection.plaintext_len), (0, plaintext.len() as u64));
    let details = inspection.details.unwrap();
    assert_eq!(
        (details.service, details.service_key.as_deref()),
        (Some(service_wrap.service), Some(service_wrap.key))
    );
    assert_eq!(
        (envelope[6], details.segments, details.segment_size),
        (service_wrap.service.algorithm(), 2, 65536)
    );
    let error = decrypt(&ring(), UUID, &envelope).unwrap_err();
    assert!(matches!(&error, DecryptError::NotUnwrapped { key, .. } if key == service_wrap.key));

    // The header is longer than that of an envelope under a master key.
    let (mut start, mut rest) = envelope.split_at(usize::try_from(speculative_header_len()).unwrap());
    let mut reader = HeaderReader::new();
    assert!(reader.push(&mut start).unwrap().is_none() && start.is_empty());
    let header = reader.push(&mut rest).unwrap().unwrap();
    assert_eq!(header.wrap(), wrap);
    let opener = Arc::new(A2Opener::with_file_key(header, &file_key, UUID).unwrap());
    let plan = opener.layout(envelope.len() as u64).unwrap().plan_whole();
    let mut decryptor = A2RangeDecryptor::new(opener, plan, Vec::new());
    decryptor.push(rest).unwrap();
    assert!(decryptor.finish().unwrap() == plaintext);
}

#[test]
fn malformed_field_of_a_key_service_is_refused() {
    let file_key = FileKey::random().unwrap();
    let long = "k".repeat(70_000);
    for (kid, wrapped) in
        [("", [1; 9].as_slice()), ("k", &[]), (long.as_str(), &[1]), (&long[..65_530], &[1; 9])]
    {
        let wrap = KeyWrap::Service(ServiceWrap { service: Service::AzureKeyVault, key: kid, wrapped });
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

/// Plaintext lengths, half of them close to a border of the 4 KiB segments.
fn lengths() -> impl Strategy<Value = usize> {
    (0..5_usize, -2..3_isize, 0..4096_usize, any::<bool>()).prop_map(|(segments, near, far, border)| {
        let base = segments * 4096;
        if border { base.saturating_add_signed(near) } else { base + far }
    })
}

proptest! {
    #[test]
    fn chunk_sizes_do_not_matter(len in lengths(), cuts in proptest::collection::vec(0..9000_usize, 1..30)) {
        let plaintext = plaintext(len);
        let envelope = small_parts().seal(&plaintext);
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
    fn ranges_are_slices_of_the_plaintext(len in lengths(), a in any::<u16>(), b in any::<u16>(), chunk in 1..9000_usize) {
        let plaintext = plaintext(len);
        let envelope = small_parts().seal(&plaintext);
        let [a, b] = [a, b].map(|position| usize::from(position) % (len + 1));
        let wanted = a.min(b)..a.max(b);
        let range = wanted.start as u64..wanted.end as u64;
        let opener = opener(&envelope);
        let plan = opener.layout(envelope.len() as u64).unwrap().plan(range.clone()).unwrap();
        let needed = plan.envelope_range();
        let bytes = usize::try_from(needed.start).unwrap()..usize::try_from(needed.end).unwrap();
        prop_assert!(bytes.len() <= wanted.len() + 2 * (4096 + 16) + wanted.len() / 4096 * 16);
        let unbounded = opener.header().geometry().envelope_range(range.clone());
        prop_assert_eq!(unbounded.start, needed.start);
        prop_assert_eq!(unbounded.end.min(envelope.len() as u64), needed.end);

        let mut exact = A2RangeDecryptor::new(Arc::clone(&opener), plan, Vec::new());
        for chunk in envelope[bytes].chunks(chunk) {
            exact.push(chunk).unwrap();
        }
        prop_assert!(exact.remaining().is_empty());
        prop_assert!(exact.finish().unwrap() == plaintext[wanted.clone()]);

        // The same range, given the whole envelope.
        let mut surplus = A2Decryptor::for_range(&ring(), UUID, envelope.len() as u64, range, Vec::new()).unwrap();
        for chunk in envelope.chunks(chunk) {
            surplus.push(chunk).unwrap();
        }
        prop_assert!(surplus.finish().unwrap() == plaintext[wanted]);
    }

    #[test]
    fn arbitrary_bytes_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), format in 0..3_u8) {
        if bytes.len() > 1 && format > 0 {
            bytes[..2].copy_from_slice(&[b'A', b'0' + format]);
        }
        prop_assert!(decrypt(&ring(), UUID, &bytes).is_err());
    }
}
