use std::sync::atomic::{AtomicUsize, Ordering};

use bucket::{Bucket, BucketOptions};
use crypto_envelope::{FileKey, FileKeyOptions, FileKeys, KeyService, Service, Wrapped};
use futures_util::future::{BoxFuture, pending};
use hybrid::Version;
use object_store::memory::InMemory;
use storage_layout::{ContentType, Layout};

use super::*;

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

/// A service that wraps by flipping all bits, or never answers.
#[derive(Debug, Default)]
struct Fake {
    requests: AtomicUsize,
    is_silent: bool,
}

impl Fake {
    async fn flip(&self, bytes: &[u8]) -> Vec<u8> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_silent {
            pending::<()>().await;
        }
        bytes.iter().map(|byte| !byte).collect()
    }
}

impl KeyService for Fake {
    fn service(&self) -> Service {
        Service::AwsKms
    }

    fn has_key(&self, _: &str) -> bool {
        true
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        Box::pin(async { Ok(Wrapped { key: String::new(), wrapped: self.flip(file_key.expose()).await }) })
    }

    fn unwrap<'a>(
        &'a self,
        _: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        Box::pin(async { Ok(FileKey::new(self.flip(wrapped).await.as_slice().try_into().unwrap())) })
    }
}

fn encryption(service: &Arc<Fake>, pool: usize, stop: &Stop) -> Encryption {
    let options = FileKeyOptions { decay: 1000, pool };
    let file_keys = FileKeys::new(Some(Arc::clone(service) as _), [], options);
    let options = EncryptionOptions {
        ring: KeyRing::of_service(file_keys, []).unwrap(),
        format: Format::A2,
        read_formats: vec![Format::A2],
        memory: 1,
        read_unencrypted: false,
    };
    let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
    let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
    Encryption::new(options, objects, None, stop.clone())
}

fn head(size: u64) -> Arc<Head> {
    Arc::new(Head {
        name: "name".to_owned(),
        naming: Naming::Envelope,
        size,
        range: 0..size,
        sidecar: None,
        version: Version::Object(None),
    })
}

fn attachment() -> Attachment {
    Attachment::new(UUID, ContentType::DICOM).unwrap()
}

#[test]
fn key_service_is_asked_once_for_many_attachments() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = Arc::<Fake>::default();
    let stop = Stop::new();
    let writer = encryption(&service, 10, &stop);
    let envelopes: Vec<_> =
        (0..5).map(|_| writer.seal(runtime.handle(), &attachment(), b"content").unwrap()).collect();
    let reader = encryption(&service, 10, &stop);
    for envelope in &envelopes {
        for encryption in [&writer, &reader] {
            let opened = encryption.open(runtime.handle(), &attachment(), envelope);
            assert_eq!(opened.unwrap(), b"content");
        }
    }
    // One key was wrapped, and unwrapped by the one that had not made it.
    assert_eq!(service.requests.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_is_remembered_without_a_pool() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = Arc::<Fake>::default();
    for pool in [0, 1] {
        let encryption = encryption(&service, pool, &Stop::new());
        let envelope = encryption.seal(runtime.handle(), &attachment(), b"content").unwrap();
        let header = A2Header::parse(&envelope).unwrap().unwrap();
        let _key = encryption.file_key(runtime.handle(), &header).unwrap();
        let opener = Arc::new(A2Opener::unwrap(encryption.ring(), header, UUID).unwrap());
        encryption.remember(&attachment(), &opener, &head(envelope.len() as u64));
        assert_eq!(encryption.known(&attachment()).is_some(), pool > 0);
    }
}

#[test]
fn stop_ends_the_wait_for_a_silent_key_service() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let envelope =
        encryption(&Arc::default(), 10, &Stop::new()).seal(runtime.handle(), &attachment(), b"content");
    let stop = Stop::new();
    let silent = Arc::new(Fake { is_silent: true, ..Fake::default() });
    let encryption = encryption(&silent, 10, &stop);
    stop.now();
    let sealed = encryption.seal(runtime.handle(), &attachment(), b"content");
    assert!(matches!(sealed, Err(SealError::Stopping)), "{sealed:?}");
    let opened = encryption.open(runtime.handle(), &attachment(), &envelope.unwrap());
    assert!(matches!(opened, Err(OpenError::Stopping)), "{opened:?}");
    assert!(silent.requests.load(Ordering::Relaxed) >= 1);
}
