//! Key files and key rings: accepted and refused input, and that no output contains a key.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{KEY_ID, MASTER, UUID, ring};
use crypto_envelope::{
    DecryptError, FileKey, Format, KeyFileError, KeyRing, KeyRingError, MasterKey, can_be_shown, decrypt,
    encrypt, encrypt_into, new_key_file, parse_key_file,
};

const TEXT: &[u8] = b"YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXM=";

fn key() -> MasterKey {
    MasterKey::new(&MASTER).unwrap()
}

#[test]
fn blanks_and_padding_in_key_files_are_optional() {
    let unpadded = TEXT.strip_suffix(b"=").unwrap();
    let wrapped = [b" \r\n", &TEXT[..20], b"\n", &TEXT[20..], b" \t\r\n"].concat();
    for content in [TEXT, unpadded, &[TEXT, b"\n"].concat(), &wrapped] {
        assert!(parse_key_file(content).unwrap().is_same_as(&key()));
    }
}

#[test]
fn key_file_of_wrong_length_is_refused() {
    for (content, bytes) in [
        (b"".as_slice(), 0),
        (b"\n", 0),
        (&TEXT[..42], 31),
        (b"YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXMh", 33),
        (&TEXT[..20], 15),
        (&[b'A'; 1000], 750),
    ] {
        assert_eq!(parse_key_file(content).unwrap_err(), KeyFileError::WrongLength { bytes });
    }
    // The padding is that of 31 bytes.
    parse_key_file(&[&TEXT[..43], b"=="].concat()).unwrap_err();
}

#[test]
fn hexadecimal_key_file_is_recognized() {
    for content in ["0123456789abcdef".repeat(4), format!("{}\r\n", "AB".repeat(32))] {
        assert_eq!(parse_key_file(content.as_bytes()).unwrap_err(), KeyFileError::Hexadecimal);
    }
}

#[test]
fn base64_errors_contain_an_offset_but_no_key() {
    let bom = [b"\xEF\xBB\xBF", TEXT].concat();
    let two_keys = [TEXT, b"\n", TEXT].concat();
    let url_safe = [b"-", &TEXT[1..]].concat();
    for (content, offset) in [
        (bom.as_slice(), 0),
        (&two_keys, 45),
        (&url_safe, 0),
        (b"=", 0),
        (MASTER.as_slice(), 22),
        (&[0; 32], 0),
    ] {
        let error = parse_key_file(content).unwrap_err();
        assert_eq!(error, KeyFileError::NotBase64 { offset });
        assert!(!format!("{error} {error:?}").contains("YSBt"));
    }
}

#[test]
fn names_that_may_be_keys_are_not_shown() {
    let key = std::str::from_utf8(TEXT).unwrap();
    let shown = |name: &str, exists: bool| can_be_shown(name, |_| exists);
    assert!(shown("/etc/orthanc/master.key", true) && shown("keys/master.key", true));
    assert!(shown("", true) && shown("/", true) && shown("master-3.key", false));
    assert!(shown("keys/master.key", false) && !shown("/etc/orthnac/master-3.key", false));
    for exists in [false, true] {
        for name in [key, &key[..24], &format!("/{key}"), &format!("./{key}"), &format!("../{key}")] {
            assert!(!shown(name, exists), "{name}");
        }
    }
}

#[test]
fn new_key_files_are_valid_and_differ() {
    let [a, b] = [(); 2].map(|()| new_key_file().unwrap());
    assert_eq!(a.len(), 45);
    assert!(a.ends_with("=\n"));
    let [key_a, key_b] = [a, b].map(|text| parse_key_file(text.as_bytes()).unwrap());
    assert!(!key_a.is_same_as(&key_b));
}

#[test]
fn duplicate_key_ids_are_refused() {
    for ids in [[1, 1, 2], [1, 2, 2], [1, 2, 1]] {
        let outcome = KeyRing::new(ids[0], key(), [(ids[1], key()), (ids[2], key())]);
        let id = if ids[1] == ids[2] { ids[2] } else { ids[0] };
        assert_eq!(outcome.unwrap_err(), KeyRingError::DuplicateId { id });
    }
}

#[test]
fn old_envelopes_use_previous_keys() {
    let new_ring = KeyRing::new(
        8,
        MasterKey::new(&[8; 32]).unwrap(),
        [(9, MasterKey::new(&[9; 32]).unwrap()), (KEY_ID, key())],
    )
    .unwrap();
    assert_eq!(new_ring.ids().collect::<Vec<_>>(), [8, 9, KEY_ID]);
    for format in [Format::A1, Format::A2] {
        let old = encrypt(&ring(), format, UUID, b"old").unwrap();
        assert_eq!(decrypt(&new_ring, UUID, &old).unwrap(), b"old");
        let new = encrypt(&new_ring, format, UUID, b"new").unwrap();
        assert_eq!(crypto_envelope::identify(&new).unwrap().key_id, new_ring.current_id().unwrap());
        let error = decrypt(&ring(), UUID, &new).unwrap_err();
        assert!(matches!(&error, DecryptError::UnknownKeyId(unknown) if unknown.id == 8), "{error}");
        assert!(error.to_string().contains("master key 8"), "{error}");
    }
}

#[test]
fn buffer_can_be_reused() {
    let mut buffer = vec![1; 500];
    for format in [Format::A1, Format::A2] {
        for plaintext in [[7; 300].as_slice(), b""] {
            encrypt_into(&ring(), format, UUID, plaintext, &mut buffer).unwrap();
            assert_eq!(decrypt(&ring(), UUID, &buffer).unwrap(), plaintext);
        }
    }
    encrypt_into(&ring(), Format::A2, "no uuid", b"", &mut buffer).unwrap_err();
    assert!(buffer.is_empty());
}

#[test]
fn debug_output_hides_keys() {
    let envelope = encrypt(&ring(), Format::A2, UUID, b"").unwrap();
    let header = crypto_envelope::A2Header::parse(&envelope).unwrap().unwrap();
    let opener = crypto_envelope::A2Opener::unwrap(&ring(), header, UUID).unwrap();
    assert_eq!(format!("{:?}", key()), "MasterKey(..)");
    assert_eq!(format!("{:?}", FileKey::new(&MASTER)), "FileKey(..)");
    assert_eq!(
        format!("{:?}", ring()),
        "KeyRing { current_id: Some(67305985), ids: [67305985], file_keys: None }"
    );
    assert!(format!("{opener:?}").starts_with("A2Opener { header: A2Header { key_id: 67305985"));
}
