//! `identify`, `recognize`, `inspect` and the header parsers agree on arbitrary bytes and do not panic, and a header that
//! arrives in chunks equals the header that arrives whole.
#![no_main]

use crypto_envelope::{A2Header, HeaderReader, identify, inspect, recognize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u8, &[u8])| {
    let (envelope_len, cut, bytes) = input;
    if let Ok(found) = inspect(bytes, envelope_len) {
        let header = identify(bytes).expect("an inspected envelope can be identified");
        assert_eq!((header.format, header.key_id), (found.format, found.key_id));
        assert!(found.plaintext_len < envelope_len && found.header_len < envelope_len);
    }
    if let Some(recognized) = recognize(bytes, None) {
        assert_eq!(identify(bytes), Some(recognized));
    }
    let whole = A2Header::parse(bytes);
    let mut reader = HeaderReader::new();
    let (mut first, mut second) = bytes.split_at(bytes.len().min(usize::from(cut)));
    let mut pieces = reader.push(&mut first);
    if matches!(pieces, Ok(None)) {
        pieces = reader.push(&mut second);
    }
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("{whole:?} and {pieces:?}"),
    }
});
