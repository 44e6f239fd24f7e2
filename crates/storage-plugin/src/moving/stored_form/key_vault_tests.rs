//! Moves of blobs that the earlier plugin for Azure Key Vault stored.

use std::sync::Arc;

use bucket::{Bucket, BucketOptions, ObjectStorage, Payload, RetryPolicy};
use crypto_envelope::{
    A2Header, FileKey, FileKeyOptions, FileKeys, Format, KeyRing, KeyService, KeyServiceError, Service,
    Wrapped,
};
use futures_util::future::{BoxFuture, ready};
use hybrid::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, RewriteOutcome, Side};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use storage_layout::{ContentType, Layout};

use super::*;
use crate::config::EncryptionOptions;
use crate::stop::Stop;

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
const KID: &str = "https://hospital.vault.azure.net/keys/images/1";
/// 17 times `x`, encrypted with OpenSSL 3.0: `openssl enc -aes-256-cbc -K 0707…07 -iv 000102…0f`.
const BLOB: [u8; 32] = [
    0x34, 0xc4, 0x64, 0xf5, 0xc5, 0xff, 0x7d, 0xf2, 0x23, 0x1d, 0x21, 0x90, 0x5b, 0x28, 0xdb, 0x7e, 0x9b,
    0x05, 0x6e, 0xbf, 0x59, 0x31, 0xf5, 0x6e, 0x16, 0x39, 0xda, 0x01, 0x29, 0xbf, 0xe1, 0xcc,
];

/// A vault that has wrapped one key.
#[derive(Debug)]
struct Vault {
    may_unwrap: bool,
}

impl KeyService for Vault {
    fn service(&self) -> Service {
        Service::AzureKeyVault
    }

    fn has_key(&self, key: &str) -> bool {
        key == KID
    }

    fn wrap<'a>(&'a self, _: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        Box::pin(ready(Ok(Wrapped { key: KID.to_owned(), wrapped: b"another".to_vec() })))
    }

    fn unwrap<'a>(
        &'a self,
        _: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        let refused = KeyServiceError::Refused("access denied".to_owned());
        let is_known = self.may_unwrap && wrapped == b"wrapped";
        Box::pin(ready(if is_known { Ok(FileKey::new(&[7; 32])) } else { Err(refused) }))
    }
}

fn sidecar() -> Value {
    json!({
        // The value is the text `d3JhcHBlZA`, which is "wrapped" in base64url.
        "cek": {"key": {"iv": (0..16).collect::<Vec<_>>(), "value": "64334A686348426C5A41"}},
        "cipher": {"size_decrypted": 17, "size_encrypted": 32},
        "kek": {"key": {"kid": KID}},
    })
}

/// A bucket with one blob and its sidecar, and the form of moves.
async fn storage(
    folder: &tempfile::TempDir,
    may_unwrap: bool,
    blob: &[u8],
    sidecar: &[u8],
) -> (HybridStorage, Attachment, Arc<dyn StoredForm>) {
    let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
    let put = async |name: String, content: &[u8]| {
        bucket.put(&name, Payload::Owned(Bytes::copy_from_slice(content))).await.unwrap();
    };
    put(format!("{UUID}-1"), blob).await;
    put(format!("{UUID}-1.info"), sidecar).await;
    let layout = Layout { encrypted: true, ..Layout::default() };
    let objects = ObjectStorage::new(bucket, layout, false, true).with_key_vault_blobs();
    let options = FileKeyOptions { decay: 1000, pool: 10 };
    let file_keys = FileKeys::new(Some(Arc::new(Vault { may_unwrap }) as _), [], options);
    let options = EncryptionOptions {
        ring: KeyRing::of_service(file_keys, []).unwrap(),
        format: Format::A2,
        read_formats: vec![Format::A2],
        memory: 1,
        read_unencrypted: true,
    };
    let encryption = Encryption::new(options, objects.clone(), None, Stop::new());
    encryption.keys.at_start(RetryPolicy::default()).await.unwrap();
    let files = FileStorage::new(folder.path(), FileStorageOptions { sync: false });
    let attachment = Attachment::new(UUID, ContentType::DICOM).unwrap();
    (HybridStorage::new(objects, files, Side::ObjectStorage), attachment, Arc::new(encryption))
}

#[tokio::test]
async fn blob_becomes_an_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, attachment, form) = storage(&folder, true, &BLOB, sidecar().to_string().as_bytes()).await;
    let outcome = storage.move_to(&attachment, Side::FileSystem, 1, &form).await.unwrap();
    assert!(matches!(outcome, MoveOutcome::Moved { .. }), "{outcome:?}");
    let copies = storage.locate(&attachment, 1000).await.unwrap();
    let [copy] = copies.as_slice() else { panic!("{copies:?}") };
    let header = A2Header::parse(&copy.start).unwrap().unwrap();
    assert_eq!((copy.side, header.service()), (Side::FileSystem, Some(Service::AzureKeyVault)));
}

/// Of 17 times `x`.
const MD5: Md5 =
    [0x3e, 0xf8, 0x28, 0x39, 0x67, 0x9f, 0x05, 0xef, 0x26, 0x0e, 0x3a, 0xc9, 0x82, 0xde, 0x93, 0xcd];

#[tokio::test]
async fn blob_is_rewritten_only_with_its_md5() {
    for (md5, expected) in
        [(None, "StoreMD5ForAttachments"), (Some([0; 16]), "does not have the MD5"), (Some(MD5), "")]
    {
        let folder = tempfile::tempdir().unwrap();
        let (storage, attachment, form) =
            storage(&folder, true, &BLOB, sidecar().to_string().as_bytes()).await;
        let result = storage.rewrite(&attachment, 1, md5, &form).await;
        let names = storage.objects().read_each(&attachment, 1000).await.unwrap();
        let names: Vec<_> = names.into_iter().map(|found| found.name).collect();
        if expected.is_empty() {
            assert!(matches!(result.unwrap().outcome, RewriteOutcome::Rewritten { .. }));
            assert_eq!(names, [format!("{UUID}.dcm.enc")]);
            let again = storage.rewrite(&attachment, 1, md5, &form).await.unwrap();
            assert_eq!(again.outcome, RewriteOutcome::AlreadyCurrent);
        } else {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert_eq!(names, [format!("{UUID}-1")]);
        }
    }
}

#[tokio::test]
async fn damaged_blob_stays() {
    let altered = |place: usize| {
        let mut blob = BLOB;
        blob[place] ^= 1;
        blob.to_vec()
    };
    let changed = |pointer: &str, value: Value| {
        let mut sidecar = sidecar();
        *sidecar.pointer_mut(pointer).unwrap() = value;
        sidecar.to_string()
    };
    let right = sidecar().to_string();
    let attacker = "https://attacker.example/keys/images/1";
    for (may_unwrap, blob, sidecar, expected) in [
        (true, BLOB.to_vec(), "{".to_owned(), "JSON"),
        (true, BLOB.to_vec(), changed("/cek/key/iv", json!([1])), "/cek/key/iv"),
        (true, BLOB.to_vec(), changed("/cipher/size_decrypted", json!(16)), "cannot be decrypted"),
        (true, BLOB.to_vec(), changed("/kek/key/kid", json!(attacker)), "not configured"),
        (true, BLOB.to_vec(), " ".repeat(70_000), "65536"),
        (true, BLOB[..16].to_vec(), right.clone(), "its sidecar says"),
        (true, altered(31), right.clone(), "cannot be decrypted"),
        (false, BLOB.to_vec(), right.clone(), "access denied"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (storage, attachment, form) = storage(&folder, may_unwrap, &blob, sidecar.as_bytes()).await;
        let error = storage.move_to(&attachment, Side::FileSystem, 1, &form).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(UUID), "{expected}: {error}");
        let located = storage.locate(&attachment, 1000).await;
        if expected == "65536" {
            assert!(located.unwrap_err().to_string().contains(expected));
            continue;
        }
        let copies = located.unwrap();
        let [copy] = copies.as_slice() else { panic!("{copies:?}") };
        assert_eq!((copy.side, copy.head.naming), (Side::ObjectStorage, Naming::KeyVault));
        assert_eq!(&copy.start[..], blob);
    }
}
