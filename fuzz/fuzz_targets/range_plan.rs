//! For any header, length and range, a plan is within the envelope, covers the range and fetches no
//! unnecessary segment. Ranges of a small envelope decrypt to that slice of the plaintext.
#![no_main]

use crypto_envelope::{A2Decryptor, A2Geometry, A2Header, A2Layout, Format, KeyRing, MasterKey, encrypt};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::new(1, MasterKey::new(&[7; 32]).expect("key"), []).expect("ring"));
static PLAINTEXT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..40_000_u32).flat_map(u32::to_be_bytes).collect());
static ENVELOPE: LazyLock<Vec<u8>> =
    LazyLock::new(|| encrypt(&RING, Format::A2, UUID, &PLAINTEXT).expect("encrypts"));

fuzz_target!(|input: (u8, u8, u64, u64, u64, u64)| {
    let (k, wrapped_len, envelope_len, start, end, surplus) = input;
    let header = [b"A2\0\0\0\0\x02".as_slice(), &[k, wrapped_len, 0], &[0; 32], b"\x01\0k", &[1; 253]].concat();
    let geometry = match A2Header::parse(&header) {
        Ok(Some(header)) => header.geometry(),
        _ => A2Geometry::STANDARD,
    };
    let bounded = geometry.envelope_range(start..end);
    if let Some(range) = geometry.range_with_header(start..end, surplus) {
        assert!(range.start == 0 && range.end >= bounded.end && range.end >= geometry.header_len());
    }
    if let Ok(layout) = A2Layout::new(geometry, envelope_len) {
        assert_eq!(geometry.envelope_len(layout.plaintext_len()), envelope_len);
        match layout.plan(start..end) {
            Err(_) => assert!(start > end || end > layout.plaintext_len()),
            Ok(plan) => {
                let range = plan.envelope_range();
                assert_eq!(plan.plaintext_range(), start..end);
                assert!(range.start <= range.end && range.end <= envelope_len);
                assert_eq!(range.is_empty(), start == end);
                let sealed = geometry.segment_size() + 16;
                assert_eq!((range.start - geometry.header_len()) % sealed, 0);
                assert!(range.is_empty() || (range.start - geometry.header_len()) / sealed == start / geometry.segment_size());
                assert_eq!(bounded.start, range.start);
                assert_eq!(bounded.end.min(envelope_len), range.end);
            }
        }
    }

    let len = PLAINTEXT.len() as u64;
    let [first, last] = [start, end].map(|position| position % (len + 1));
    if first <= last {
        let mut decryptor =
            A2Decryptor::for_range(&RING, UUID, ENVELOPE.len() as u64, first..last, Vec::new()).expect("a UUID");
        decryptor.push(&ENVELOPE).expect("decrypts");
        assert!(decryptor.finish().expect("complete") == PLAINTEXT[first as usize..last as usize]);
    }
});
