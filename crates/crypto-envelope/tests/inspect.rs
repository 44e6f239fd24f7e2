//! `identify` and `inspect`, which need no key, and `Decryptor`, which handles both formats.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{KEY_ID, UUID, ring};
use crypto_envelope::{
    DecryptError, Decryptor, Format, INSPECT_LEN, encrypt, envelope_len, identify, inspect,
};

#[test]
fn inspecting_needs_no_key() {
    for (format, header_len) in [(Format::A1, 70), (Format::A2, 82)] {
        for len in [0, 1, 65536, 200_000] {
            let envelope = encrypt(&ring(), format, UUID, &vec![0; len]).unwrap();
            let inspection = inspect(&envelope[..INSPECT_LEN], envelope.len() as u64).unwrap();
            assert_eq!((inspection.format, inspection.key_id), (format, KEY_ID));
            assert_eq!((inspection.plaintext_len, inspection.header_len), (len as u64, header_len));
            assert_eq!(inspection.envelope_len, envelope_len(format, len as u64));
            assert_eq!(inspection.details.is_some(), format == Format::A2);
        }
    }
}

#[test]
fn other_content_is_not_an_envelope() {
    for start in [
        b"".as_slice(),
        b"A",
        b"A1",
        b"A1\0\0\0",
        b"A3\0\0\0\0",
        b"\0A1\0\0\0\0",
        b"a1\0\0\0\0",
        b"{\"000\":",
    ] {
        assert_eq!(identify(start), None);
        assert!(matches!(inspect(start, 1000), Err(DecryptError::NotAnEnvelope)));
    }
    assert!(matches!(inspect(b"A1\0\0\0\0", 85), Err(DecryptError::InvalidLength { .. })));
    assert!(matches!(
        inspect(b"A2\0\0\0\0", 1000),
        Err(DecryptError::Truncated { expected: 42, received: 6 })
    ));
}

#[test]
fn decryptor_recognises_the_format_bytewise() {
    for format in [Format::A1, Format::A2] {
        let envelope = encrypt(&ring(), format, UUID, b"plaintext").unwrap();
        let mut decryptor = Decryptor::new(&ring(), UUID, envelope.len() as u64, Vec::new());
        for (index, byte) in envelope.iter().enumerate() {
            assert_eq!(decryptor.format().is_some(), index >= 6);
            decryptor.push(&[*byte]).unwrap();
        }
        assert_eq!(decryptor.format(), Some(format));
        assert_eq!(decryptor.opener().is_some(), format == Format::A2);
        assert_eq!(decryptor.finish().unwrap(), b"plaintext");
    }
}

#[test]
fn decryptor_refuses_other_content() {
    let mut decryptor = Decryptor::new(&ring(), UUID, 132, Vec::new());
    assert!(matches!(decryptor.push(&[0; 128]), Err(DecryptError::NotAnEnvelope)));
    assert!(matches!(decryptor.push(b"DICM"), Err(DecryptError::AlreadyFailed)));
    assert!(matches!(decryptor.finish(), Err(DecryptError::AlreadyFailed)));
    let empty = Decryptor::new(&ring(), UUID, 0, Vec::new());
    assert!(matches!(empty.finish(), Err(DecryptError::Truncated { expected: 6, received: 0 })));
}
