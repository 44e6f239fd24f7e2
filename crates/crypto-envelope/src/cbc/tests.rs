use serde_json::json;

use super::*;

/// `x` repeated, encrypted with OpenSSL 3.0: `openssl enc -aes-256-cbc -K 0707…07 -iv 000102…0f | xxd -p`.
const BLOBS: [(usize, &str); 5] = [
    (0, "b31c2394234b7041b72a2720f77ec36b"),
    (1, "c8b11f191f370e8fbc7e11fde35bee14"),
    (15, "d272f543bdd66ff86de11f7f2770ac83"),
    (16, "34c464f5c5ff7df2231d21905b28db7edfee6a3c2986a239fb2ec81df2735fa7"),
    (17, "34c464f5c5ff7df2231d21905b28db7e9b056ebf5931f56e1639da0129bfe1cc"),
];
const KID: &str = "https://name.vault.azure.net/keys/key/1";

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn sidecar(len: u64) -> Value {
    json!({
        "cek": {"key": {
            "iv": (0..16).collect::<Vec<_>>(),
            // The text `d3JhcHBlZA`, which is "wrapped" in base64url.
            "value": "64334A686348426C5A41",
        }},
        "cipher": {"size_decrypted": len, "size_encrypted": (len / 16 + 1) * 16},
        "kek": {"key": {"kid": KID}},
    })
}

fn info(len: u64) -> CbcInfo {
    CbcInfo::parse(sidecar(len).to_string().as_bytes()).unwrap()
}

fn key() -> FileKey {
    FileKey::new(&[7; 32])
}

#[test]
fn blobs_of_openssl_are_decrypted() {
    for (len, blob) in BLOBS {
        let info = info(len as u64);
        assert_eq!(
            info.wrap(),
            ServiceWrap { service: Service::AzureKeyVault, key: KID, wrapped: b"wrapped" }
        );
        assert_eq!(info.plaintext_len(), len as u64);
        assert_eq!(info.decrypt(&key(), hex(blob)).unwrap(), vec![b'x'; len], "{len}");
    }
}

#[test]
fn damaged_blobs_are_errors() {
    let (len, blob) = BLOBS[4];
    let blob = hex(blob);
    let right = info(len as u64);
    assert_eq!(right.decrypt(&FileKey::new(&[8; 32]), blob.clone()), Err(CbcError::NotDecrypted));
    let error = right.decrypt(&key(), blob[..16].to_vec());
    assert_eq!(error, Err(CbcError::Length { expected: 32, got: 16 }));
    // Its last byte decides about the padding.
    let mut altered = blob.clone();
    altered[31] ^= 1;
    assert_eq!(right.decrypt(&key(), altered), Err(CbcError::NotDecrypted));
    // The padding is right, but not the length.
    assert_eq!(info(18).decrypt(&key(), blob), Err(CbcError::NotDecrypted));
}

#[test]
fn malformed_sidecars_are_errors_that_name_the_field() {
    let whole = sidecar(17);
    for (pointer, wrong) in [
        ("/cek/key/iv", json!([1, 2, 3])),
        ("/cek/key/iv", json!([256, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("/cek/key/iv", json!([-1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("/cek/key/iv", json!("AAAA")),
        ("/cek/key/value", json!("")),
        ("/cek/key/value", json!("643")),
        ("/cek/key/value", json!("ZZ")),
        ("/cek/key/value", json!("2B2F")),
        ("/cek/key/value", json!(7)),
        ("/cipher/size_decrypted", json!(-1)),
        ("/cipher/size_decrypted", json!("17")),
        ("/cipher/size_encrypted", json!(16)),
        ("/cipher/size_encrypted", json!(48)),
        ("/kek/key/kid", json!("")),
        ("/kek/key/kid", json!(null)),
    ] {
        let mut sidecar = whole.clone();
        *sidecar.pointer_mut(pointer).unwrap() = wrong.clone();
        let error = CbcInfo::parse(sidecar.to_string().as_bytes()).unwrap_err();
        assert_eq!(error, CbcError::Info(pointer), "{wrong}");
        let mut missing = whole.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        missing.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
        assert_eq!(CbcInfo::parse(missing.to_string().as_bytes()).unwrap_err(), CbcError::Info(pointer));
    }
    for text in ["", "{", "[]", "<Error/>", "\u{0}"] {
        assert!(matches!(CbcInfo::parse(text.as_bytes()), Err(CbcError::Info(_))), "{text}");
    }
    // No block would be large enough.
    let mut huge = whole;
    huge["cipher"] = json!({"size_decrypted": u64::MAX, "size_encrypted": 0});
    assert!(CbcInfo::parse(huge.to_string().as_bytes()).is_err());
}

#[test]
fn errors_and_debug_output_have_no_secrets() {
    let text = format!("{:?} {:?}", info(17), key());
    assert!(text.contains(KID) && !text.contains("wrapped") && !text.contains("07"), "{text}");
}

/// A deterministic sequence (xorshift).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    /// Returns one to three changed bits.
    fn flip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        for _ in 0..=self.below(3) {
            changed[self.below(bytes.len())] ^= 1 << self.below(8);
        }
        changed
    }
}

/// Decrypts as the plugin does. The vault does not unwrap what it has not wrapped.
fn read(sidecar: &[u8], blob: &[u8], original: &CbcInfo) -> Option<Vec<u8>> {
    let info = CbcInfo::parse(sidecar).ok()?;
    info.check_len(blob.len() as u64).ok()?;
    if info.wrap() != original.wrap() {
        return None;
    }
    info.decrypt(&key(), blob.to_vec()).ok()
}

/// A change of the initialization vector is a change of the first block, and one of another block changes that block and
/// the next one: without authentication, nobody can know. All other changes are errors, or change nothing.
#[test]
fn damage_is_an_error_unless_cbc_cannot_know() {
    for (len, blob) in BLOBS {
        let (original, blob) = (info(len as u64), hex(blob));
        let sidecar = sidecar(len as u64).to_string().into_bytes();
        let content = vec![b'x'; len];
        assert_eq!(read(&sidecar, &blob, &original).unwrap(), content);
        for end in 0..sidecar.len() {
            assert_eq!(read(&sidecar[..end], &blob, &original), None, "{end}");
        }
        for end in 0..blob.len() {
            assert_eq!(read(&sidecar, &blob[..end], &original), None, "{end}");
        }
        let mut sequence = Sequence(len as u64 + 1);
        let (mut errors, mut others) = (0, 0);
        for _ in 0..2000 {
            let changed = sequence.flip(&sidecar);
            match read(&changed, &blob, &original) {
                None => errors += 1,
                Some(read) => {
                    let iv = CbcInfo::parse(&changed).unwrap().iv;
                    let altered: Vec<_> = content.iter().zip(iv).zip(original.iv).collect();
                    let expected: Vec<_> =
                        altered.iter().map(|((byte, new), old)| *byte ^ new ^ old).collect();
                    let first = expected.len();
                    assert_eq!((&read[..first], &read[first..]), (&expected[..], &content[first..]));
                }
            }
            let changed = sequence.flip(&blob);
            let Some(read) = read(&sidecar, &changed, &original) else {
                errors += 1;
                continue;
            };
            assert_eq!(read.len(), len);
            let is_changed = |block: usize| blob.chunks(BLOCK).nth(block) != changed.chunks(BLOCK).nth(block);
            for (block, (is, was)) in read.chunks(BLOCK).zip(content.chunks(BLOCK)).enumerate() {
                let may_differ = is_changed(block) || block > 0 && is_changed(block - 1);
                assert!(is == was || may_differ, "block {block}");
            }
            others += usize::from(read != content);
        }
        assert!(errors > 2000, "{errors}");
        assert!(others < 1500, "{others}");
    }
}
