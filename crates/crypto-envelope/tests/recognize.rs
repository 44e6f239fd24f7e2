//! `recognize`: every envelope is recognized, whatever its key, id and size, and content in clear is not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::iter;

use common::{KEY_ID, UUID, plaintext, ring};
use crypto_envelope::{
    FileKey, FileKeyOptions, FileKeys, Format, KeyRing, KeyWrap, MasterKey, RECOGNIZE_LEN, Service,
    ServiceWrap, encrypt, encrypt_a2_with_file_key, recognize,
};

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        iter::repeat_with(|| self.next().to_be_bytes()[2]).take(len).collect()
    }
}

fn start(content: &[u8]) -> &[u8] {
    &content[..content.len().min(RECOGNIZE_LEN)]
}

/// Whether content is taken for an envelope without any key, and with the tests' key.
fn is_envelope(content: &[u8]) -> [bool; 2] {
    [None, Some(&ring())].map(|ring| recognize(start(content), ring).is_some())
}

/// `format`, an id as in `ring` or another one, and `rest`.
fn begins(format: &str, id: u32, rest: &[u8]) -> Vec<u8> {
    [format.as_bytes(), &id.to_le_bytes(), rest].concat()
}

/// The name of a key in a service may look like anything.
#[test]
fn envelope_of_a_configured_service_is_not_taken_for_dicom() {
    let service = Service::AzureKeyVault;
    let name = format!("{}DICM", "x".repeat(84));
    let wrap = KeyWrap::Service(ServiceWrap { service, key: &name, wrapped: &[7; 256] });
    let envelope = encrypt_a2_with_file_key(&wrap, &FileKey::new(&[1; 32]), UUID, b"content").unwrap();
    assert_eq!(&envelope[128..132], b"DICM");
    let keys = FileKeys::new(None, [], FileKeyOptions { decay: 1, pool: 1 });
    let ring = KeyRing::of_service(keys, []).unwrap();
    assert!(recognize(start(&envelope), Some(&ring)).is_some());
}

#[test]
fn every_envelope_is_recognized() {
    let mut numbers = Numbers(1);
    for round in 0..5000 {
        let key = MasterKey::new(&numbers.bytes(32).try_into().unwrap()).unwrap();
        let id = u32::try_from(numbers.next() >> (32 + round % 32)).unwrap();
        let ring = KeyRing::new(id, key, []).unwrap();
        let len = if round % 3 == 0 { round % 130 } else { usize::try_from(numbers.next() % 4096).unwrap() };
        // DICOM, text and zeros: what is encrypted does not matter.
        let content = match round % 3 {
            0 => vec![0; len],
            1 => vec![b'A'; len],
            _ => plaintext(len),
        };
        for format in [Format::A1, Format::A2] {
            let envelope = encrypt(&ring, format, UUID, &content).unwrap();
            for known in [None, Some(&ring)] {
                let header = recognize(start(&envelope), known).unwrap();
                assert_eq!((header.format, header.key_id), (format, id), "{round}");
            }
        }
    }
}

#[test]
fn envelopes_of_key_services_are_recognized() {
    let kid = "https://example.vault.azure.net/keys/key/1";
    let wrapped = &plaintext(256);
    let wrap = KeyWrap::Service(ServiceWrap { service: Service::AzureKeyVault, key: kid, wrapped });
    for round in 0..1000 {
        let file_key = FileKey::random().unwrap();
        let mut envelope = encrypt_a2_with_file_key(&wrap, &file_key, UUID, &vec![0; round]).unwrap();
        for algorithm in 2..=4 {
            envelope[6] = algorithm;
            assert_eq!(is_envelope(&envelope), [true; 2], "{round} {algorithm}");
        }
    }
}

#[test]
fn damaged_envelope_of_a_known_key_is_not_clear() {
    for (format, header) in [(Format::A1, 70), (Format::A2, 82)] {
        let whole = encrypt(&ring(), format, UUID, &plaintext(1000)).unwrap();
        for len in (16..200).chain([whole.len() - 1]) {
            assert!(is_envelope(&whole[..len])[1], "{format} {len}");
        }
        for place in 6..header {
            for bit in 0..8 {
                let mut altered = whole.clone();
                altered[place] ^= 1 << bit;
                assert!(is_envelope(&altered)[1], "{format} {place} {bit}");
            }
        }
        // A tampering writer cannot make it look like these either.
        for (place, change) in [(128, b"DICM".as_slice()), (6, b"\0\0\x78\x9c")] {
            let mut altered = whole.clone();
            altered[place..place + 4].copy_from_slice(change);
            let expected = format == Format::A1 || place == 128;
            assert_eq!(is_envelope(&altered)[1], expected, "{format} {place}");
        }
    }
}

#[test]
fn short_content_is_clear() {
    for text in ["", "A", "A1", "A2", "A1\0\0\0", "A1\x07\0\0\0\x01\x02", "A1/B2", "B2000000"] {
        assert_eq!(is_envelope(text.as_bytes()), [false; 2], "{text:?}");
    }
    let mut numbers = Numbers(2);
    for len in 0..80 {
        let content = begins("A1", 7, &numbers.bytes(len));
        assert_eq!(is_envelope(&content), [content.len() >= 86, content.len() >= 86]);
    }
}

#[test]
fn dicom_is_clear() {
    let mut numbers = Numbers(3);
    for _ in 0..5000 {
        for format in ["A1", "A2"] {
            let preamble = [format.as_bytes(), &numbers.bytes(126)].concat();
            let file = [&preamble, b"DICM".as_slice(), &numbers.bytes(500)].concat();
            assert_eq!(is_envelope(&file), [false; 2]);
            // The preamble of most files is zero. Then the id of a known key makes no difference.
            let file = [&begins(format, KEY_ID, &[0; 122]), b"DICM".as_slice(), &numbers.bytes(500)].concat();
            assert_eq!(is_envelope(&file), [false; 2]);
        }
    }
    // A2's header as the beginning of a preamble.
    let preamble = begins("A2", KEY_ID, &[&[1, 16, 40, 0], [0; 118].as_slice()].concat());
    assert_eq!(is_envelope(&[&preamble, b"DICM".as_slice(), &numbers.bytes(500)].concat()), [false; 2]);
}

#[test]
fn text_is_clear() {
    let json = r#"{"00080005": {"Name": "SpecificCharacterSet", "Type": "String", "Value": "ISO_IR 192"}}"#;
    let words = "ä ö ü ß\r\n\tß – ".repeat(9);
    let base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".repeat(3);
    for format in ["A1", "A2"] {
        for text in [json, &words, &base64] {
            // The last character may be cut.
            for cut in 0..6 {
                let content = format!("{format}{}{text}", "x".repeat(cut));
                assert_eq!(is_envelope(content.as_bytes()), [false; 2], "{content}");
            }
        }
        let latin: Vec<u8> = words.chars().filter_map(|letter| u8::try_from(letter).ok()).collect();
        assert_eq!(is_envelope(&begins(format, KEY_ID, &latin)), [false; 2]);
    }
}

#[test]
fn compressed_content_is_clear() {
    let mut numbers = Numbers(4);
    for format in [u64::from(u16::from_le_bytes(*b"A1")), u64::from(u16::from_le_bytes(*b"A2"))] {
        for round in 0..5000 {
            let size = ((numbers.next() >> 32) % (1 << (round % 32 + 1))) << 16 | format;
            for flags in [0x01, 0x5e, 0x9c, 0xda] {
                let zlib = [&size.to_le_bytes(), [0x78, flags].as_slice(), &numbers.bytes(300)].concat();
                assert_eq!(is_envelope(&zlib), [false; 2], "{size}");
            }
        }
        // Neither a dictionary nor wrong check bits. Only A1 does not say more about itself.
        for flags in [0x20, 0x9d, 0x00] {
            let size = 7 << 16 | format;
            let other = [&size.to_le_bytes(), [0x78, flags].as_slice(), &numbers.bytes(300)].concat();
            assert_eq!(is_envelope(&other), [other.starts_with(b"A1"); 2], "{flags:x}");
        }
    }
    // The one size that has the id of a known key.
    let size = u64::from(KEY_ID) << 16 | 0x3141;
    let zlib = [&size.to_le_bytes(), [0x78, 0x9c].as_slice(), &numbers.bytes(300)].concat();
    assert_eq!(is_envelope(&zlib), [false, true]);
}

#[test]
fn uniform_content_is_clear() {
    for format in ["A1", "A2"] {
        for id in [0, 7, KEY_ID] {
            for values in 1..=31_u8 {
                let pixels: Vec<u8> = (0..values).cycle().take(500).collect();
                assert_eq!(is_envelope(&begins(format, id, &pixels)), [false; 2], "{format} {id} {values}");
            }
        }
    }
}

#[test]
fn random_content_is_an_envelope_only_if_a1() {
    let mut numbers = Numbers(5);
    for _ in 0..5000 {
        assert_eq!(is_envelope(&[b"A2", numbers.bytes(500).as_slice()].concat()), [false; 2]);
        assert_eq!(is_envelope(&[b"A1", numbers.bytes(500).as_slice()].concat()), [true; 2]);
    }
}
