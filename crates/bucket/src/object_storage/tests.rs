use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;
use storage_layout::{ContentType, NamePrefix, RootPath};

use super::*;
use crate::options::BucketOptions;

#[tokio::test]
async fn content_decides_about_the_name_of_a_confirmed_object() {
    let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
    for configured in [false, true] {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let layout = Layout { encrypted: configured, ..Layout::default() };
        let objects = ObjectStorage::new(bucket, layout, false, true);
        for encrypted in [false, true] {
            let content = Bytes::from(format!("encrypted: {encrypted}"));
            assert!(!objects.has(&attachment, encrypted, &content).await.unwrap());
            objects.create_confirmed(&attachment, encrypted, content.clone()).await.unwrap();
            assert!(objects.has(&attachment, encrypted, &content).await.unwrap());
        }
        for (suffix, size) in [(".dcm", 16), (".dcm.enc", 15)] {
            let name = format!("{}{suffix}", attachment.uuid);
            assert_eq!(objects.bucket.head(&name).await.unwrap().size, size, "{name}, {configured}");
        }
    }
}

#[tokio::test]
async fn blobs_of_the_earlier_key_vault_plugin_are_found_and_removed() {
    let uuid = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
    // In the blobs, Orthanc has called the types of users unknown.
    for (content_type, in_name, encrypted) in
        [(1024, 0, false), (1024, 0, true), (1024, 1024, true), (1, 1, false), (1, 1, true)]
    {
        let attachment = Attachment::new(uuid, ContentType(content_type)).unwrap();
        let (name, sidecar) = (format!("{uuid}-{in_name}"), format!("{uuid}-{in_name}.info"));
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        // That plugin knew no root path.
        let layout = Layout { root: RootPath::new("a/b").unwrap(), encrypted: true, ..Layout::default() };
        let without = ObjectStorage::new(bucket, layout, false, false);
        let with = without.clone().with_key_vault_blobs();
        let put = async |name: &str| without.bucket.put(name, Payload::Owned("x".into())).await.unwrap();
        put(&name).await;
        if encrypted {
            put(&sidecar).await;
        }
        let naming = if encrypted { Naming::KeyVault } else { Naming::Clear };
        let error = without.read(&attachment, ReadRange::Whole).await.unwrap_err();
        assert_eq!(error.cause, Cause::NotFound);
        let found = with.read(&attachment, ReadRange::Whole).await.unwrap();
        assert_eq!((found.name, found.naming), (name.clone(), naming));
        let described = with.describe(&attachment).await.unwrap().unwrap();
        assert_eq!((described.name, described.naming), (name.clone(), naming));
        assert_eq!(found.sidecar.as_deref(), encrypted.then_some(&b"x"[..]));

        // A new object has precedence.
        with.create(&attachment, Payload::Owned("new".into())).await.unwrap();
        let found = with.read(&attachment, ReadRange::Whole).await.unwrap();
        assert_eq!(found.naming, Naming::Envelope);
        with.remove_many(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
        assert!(with.describe(&attachment).await.unwrap().is_none());
        put(&name).await;
        put(&sidecar).await;
        with.remove(&attachment).await.unwrap();
        assert!(with.bucket.head(&sidecar).await.is_err());
        put(&name).await;
        put(&sidecar).await;
        with.remove_everywhere(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
        assert!(with.bucket.head(&name).await.is_err() && with.bucket.head(&sidecar).await.is_err());
        put(&sidecar).await;
        without.remove_everywhere(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
        assert!(with.bucket.head(&sidecar).await.is_ok(), "not a name of this configuration");
    }
}

fn every_configuration(root: &str, check: impl Fn(&ObjectStorage)) {
    for structure in [Structure::Flat, Structure::Legacy] {
        for encrypted in [false, true] {
            for backslash_names in [None, Some(true)] {
                let store = Arc::new(InMemory::new());
                let options =
                    BucketOptions { backslash_names, ..BucketOptions::new(store, "memory://bucket") };
                let layout = Layout { root: RootPath::new(root).unwrap(), structure, encrypted };
                let objects = ObjectStorage::new(Bucket::new(options), layout, true, true);
                check(&objects);
                check(&objects.with_key_vault_blobs());
            }
        }
    }
}

proptest! {
    #[test]
    fn every_name_leads_back_to_its_attachment(
        uuid in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", content_type in 0..=65535i32,
        root in "|[^/\\x00-\\x1f\\x7f.]{1,12}(/[^/\\x00-\\x1f\\x7f.]{1,12}){0,3}",
    ) {
        let attachment = Attachment::new(&uuid, ContentType(content_type)).unwrap();
        every_configuration(&root, |objects| {
            let names = objects.object_names();
            let prefixes = names.prefixes();
            let all = [objects.every_name(&attachment), objects.sidecars(&attachment)].concat();
            for name in all {
                let found = names.attachment_of(&name);
                assert_eq!(found.map(|found| found.uuid), Some(attachment.uuid), "{name} below {root:?}");
                let lists = |prefix: &NamePrefix| {
                    let rest = name.strip_prefix(&*prefix.prefix);
                    rest.is_some_and(|rest| prefix.folders || !rest.contains('/'))
                };
                assert!(prefixes.iter().any(lists), "{name} below {root:?}");
            }
        });
    }
}

#[tokio::test]
async fn objects_of_windows_are_found_and_removed() {
    let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
    let names =
        [r"a/b\fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm", r"a\b\fb\4b\fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11"];
    for (structure, name) in [Structure::Flat, Structure::Legacy].into_iter().zip(names) {
        for backslash_names in [true, false] {
            let store = Arc::new(InMemory::new());
            let options = BucketOptions {
                backslash_names: Some(backslash_names),
                ..BucketOptions::new(Arc::clone(&store), "memory://bucket")
            };
            let layout = Layout { root: RootPath::new("a/b").unwrap(), structure, encrypted: false };
            let objects = ObjectStorage::new(Bucket::new(options), layout, false, false);
            for other in names {
                objects.bucket.put(other, Payload::Owned("x".into())).await.unwrap();
            }
            let found = objects.read(&attachment, ReadRange::Whole).await.map(|found| found.name);
            assert_eq!(found.ok().as_deref(), backslash_names.then_some(name));
            let described = objects.describe(&attachment).await.unwrap().map(|described| described.size);
            assert_eq!(described, backslash_names.then_some(1));
            objects.remove(&attachment).await.unwrap();
            let gone = objects.bucket.head(name).await.is_err();
            assert_eq!(gone, backslash_names, "{name}");
            // With another structure, for deletions of an earlier configuration.
            objects.remove_everywhere(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
            for other in names {
                assert_eq!(objects.bucket.head(other).await.is_err(), backslash_names, "{other}");
            }
        }
    }
}
