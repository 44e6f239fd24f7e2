//! Conversion to the present format and key.

use std::sync::Arc;

use bucket::{Bucket, BucketOptions, ObjectStorage, RetryPolicy};
use crypto_envelope::{Format, KeyRing, MasterKey, decrypt, encrypt, identify};
use hybrid::{FormError, Md5, StoredContent, StoredForm};
use object_store::memory::InMemory;
use storage_layout::{ContentType, Layout};

use super::*;
use crate::config::EncryptionOptions;
use crate::stop::Stop;

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
/// Of `content`.
const MD5: Md5 =
    [0x9a, 0x03, 0x64, 0xb9, 0xe9, 0x9b, 0xb4, 0x80, 0xdd, 0x25, 0xe1, 0xf0, 0x28, 0x4c, 0x85, 0x55];

/// Keys 3 and 7, of which one is the current one.
fn ring(current: u32) -> KeyRing {
    let key = |id: u32| MasterKey::new(&[u8::try_from(id).unwrap(); 32]).unwrap();
    let other = 10 - current;
    KeyRing::new(current, key(current), [(other, key(other))]).unwrap()
}

async fn form(format: Format, read_formats: &[Format]) -> Arc<dyn StoredForm> {
    Arc::new(encryption(format, read_formats).await)
}

async fn encryption(format: Format, read_formats: &[Format]) -> Encryption {
    let options = EncryptionOptions {
        ring: ring(7),
        format,
        read_formats: read_formats.to_vec(),
        memory: 1,
        read_unencrypted: true,
    };
    let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://keys"));
    let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
    let encryption = Encryption::new(options, objects, None, Stop::new());
    encryption.keys.at_start(RetryPolicy::default()).await.unwrap();
    encryption
}

fn stored(naming: Naming, bytes: impl Into<Bytes>) -> StoredContent {
    StoredContent { naming, sidecar: None, bytes: bytes.into() }
}

/// On a thread that may block.
async fn convert(
    form: &Arc<dyn StoredForm>,
    content: StoredContent,
    md5: Option<Md5>,
) -> (Result<bool, FormError>, Result<Bytes, FormError>) {
    let form = Arc::clone(form);
    let attachment = Attachment::new(UUID, ContentType::DICOM).unwrap();
    bucket::blocking(move || {
        let is_current = form.is_current(&attachment, &content);
        (is_current, form.convert(&attachment, content, md5))
    })
    .await
}

#[tokio::test]
async fn everything_but_the_present_form_is_converted() {
    const ALL: [Format; 2] = [Format::A1, Format::A2];
    for format in ALL {
        let form = form(format, &ALL).await;
        let envelopes = ALL.into_iter().flat_map(|format| [3, 7].map(|key| (format, key)));
        let envelopes = envelopes.map(|(found, key)| {
            let envelope = encrypt(&ring(key), found, UUID, b"content").unwrap();
            (stored(Naming::Envelope, envelope), (found, key) == (format, 7))
        });
        for (content, expected) in envelopes.chain([(stored(Naming::Clear, "content"), false)]) {
            for md5 in [None, Some(MD5)] {
                let (is_current, converted) = convert(&form, content.clone(), md5).await;
                assert_eq!(is_current, Ok(expected));
                let converted = converted.unwrap();
                let header = identify(&converted).unwrap();
                assert_eq!((header.format, header.key_id), (format, 7));
                assert_eq!(decrypt(&ring(7), UUID, &converted).unwrap(), b"content");
            }
        }
    }
}

#[tokio::test]
async fn everything_is_decrypted_when_encryption_is_off() {
    let formats = [Format::A1, Format::A2];
    let form: Arc<dyn StoredForm> = Arc::new(encryption(Format::A2, &formats).await.only_reading());
    for format in formats {
        let content = stored(Naming::Envelope, encrypt(&ring(3), format, UUID, b"content").unwrap());
        let (is_current, converted) = convert(&form, content, Some(MD5)).await;
        assert_eq!((is_current, converted), (Ok(false), Ok("content".into())));
        // An envelope in an envelope could not be told from one that is to be decrypted.
        let inner = encrypt(&ring(3), format, UUID, &[b'x'; 200]).unwrap();
        let outer = stored(Naming::Envelope, encrypt(&ring(3), format, UUID, &inner).unwrap());
        let (_, converted) = convert(&form, outer, None).await;
        assert!(converted.unwrap_err().reason.contains("looks encrypted"));
    }
    let (is_current, converted) = convert(&form, stored(Naming::Clear, "content"), None).await;
    assert_eq!((is_current, converted), (Ok(true), Ok("content".into())));
}

#[tokio::test]
async fn content_that_is_not_what_was_stored_stays() {
    let form = form(Format::A2, &[Format::A2]).await;
    let envelope =
        |format, uuid| stored(Naming::Envelope, encrypt(&ring(3), format, uuid, b"content").unwrap());
    let other = UUID.replace('f', "e");
    for (content, md5, expected) in [
        (stored(Naming::Clear, "other"), Some(MD5), "does not have the MD5"),
        (envelope(Format::A2, UUID), Some([0; 16]), "does not have the MD5"),
        (envelope(Format::A2, other.as_str()), None, "authentic"),
        (envelope(Format::A1, UUID), None, "ReadFormats does not contain A1"),
        (stored(Naming::Envelope, "content"), None, "ReadUnencrypted is false"),
    ] {
        let (_, converted) = convert(&form, content, md5).await;
        let FormError { reason, transient } = converted.unwrap_err();
        assert!(reason.contains(expected) && !transient, "{expected}: {reason}");
    }
    let off: Arc<dyn StoredForm> = Arc::new(Unchanged);
    let (is_current, converted) = convert(&off, stored(Naming::Clear, "content"), Some(MD5)).await;
    assert_eq!((is_current, converted), (Ok(true), Ok("content".into())));
}
