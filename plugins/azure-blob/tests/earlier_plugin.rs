//! Blobs that the earlier plugin for Azure Key Vault stored, encrypted here with OpenSSL.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/cloud.rs"]
mod cloud;

use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use cloud::Azure;
use cloud::key_server::earlier::{Blobs, encrypt};
use cloud::key_server::vault::{HOST, Setup};
use conformance::{Cloud, DICOM, LoadedPlugin, configuration, content, eventually, section, uuid, with};
use fake_cloud::VaultOperation::{self, Token, UnwrapKey, WrapKey};
use fake_cloud::{Hold, Operation};
use serde_json::{Value, json};

const SIZE: usize = 200_000;

/// Every content type that Orthanc has, and a user's.
const TYPES: [u16; 5] = [0, 1, 2, 3, 1024];

/// A container of the earlier plugin, and this plugin with its configuration.
struct Container {
    setup: Setup,
    plugin: LoadedPlugin<Azure>,
    blobs: Blobs,
}

impl Container {
    fn new() -> Result<Self> {
        Self::with(&json!({}))
    }

    fn with(changes: &Value) -> Result<Self> {
        let setup = Setup::new()?;
        let service = setup.service(&setup.options())?;
        let blobs = Blobs::new(&setup.kid, |key| Ok(setup.wrap(&*service, key)?.wrapped))?;
        let _ = setup.vault.take_operations();
        let server = Azure::server()?;
        let options = json!({
            "EnableStorage": true, "EncryptionEnabled": true, "KeyDecayCount": 10_000, "KeyPoolSize": 10,
            "AzureKeyVault": setup.options(),
        });
        let options = with(options, changes);
        let configuration = setup.reach(configuration::<Azure>(section::<Azure>(&server, &options)));
        let plugin = LoadedPlugin::load(server, configuration)?;
        assert_eq!(setup.vault.take_operations(), [Token, WrapKey]);
        Ok(Self { setup, plugin, blobs })
    }

    fn insert(&self, name: &str, plaintext: &[u8]) -> Result<()> {
        self.plugin.insert(name, encrypt(plaintext)?);
        self.plugin
            .insert(&format!("{name}.info"), self.blobs.info(plaintext.len()).to_string().into_bytes());
        Ok(())
    }
}

#[test]
fn every_blob_is_read_with_one_request_to_the_vault() -> Result<()> {
    let container = Container::new()?;
    let plugin = &container.plugin;
    for kind in TYPES {
        for (number, len) in [SIZE, 0, 1, 16].into_iter().enumerate() {
            container.insert(&format!("{}-{kind}", uuid(number)), &content(len))?;
        }
    }
    for kind in TYPES {
        for (number, len) in [SIZE, 0, 1, 16].into_iter().enumerate() {
            let read = plugin.orthanc.read_whole(&uuid(number), kind.into());
            assert!(read == Ok(content(len)), "{kind} {len}");
        }
        let range = plugin.orthanc.read_range(&uuid(0), kind.into(), 70_000, 1000);
        assert_eq!(range, Ok(content(SIZE)[70_000..71_000].to_vec()));
    }
    assert_eq!(container.setup.vault.take_operations(), [UnwrapKey]);
    plugin.check()
}

/// Whoever reads an attachment while a move deletes its blob and its sidecar must not get the blob as it is.
#[test]
fn blob_that_is_deleted_meanwhile_is_missing() -> Result<()> {
    let container = Container::new()?;
    let (name, server) = (format!("{}-1", uuid(1)), &container.plugin.server);
    container.insert(&name, &content(SIZE))?;
    let holds = [Operation::GetObject, Operation::HeadObject].map(|asks| server.hold_key(asks, ".info"));
    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| container.plugin.orthanc.read_whole(&uuid(1), DICOM));
        let asks_for_sidecar = || holds.iter().any(|hold| hold.waiting() > 0);
        eventually("a request for the sidecar", Duration::from_secs(30), asks_for_sidecar)?;
        server.remove(Azure::BUCKET, &name);
        server.remove(Azure::BUCKET, &format!("{name}.info"));
        holds.into_iter().for_each(Hold::release);
        assert!(reader.join().unwrap().is_err());
        Ok(())
    })?;
    let error = container.plugin.new_error()?;
    assert!(error.contains("no such object"), "{error}");
    container.plugin.check()
}

#[test]
fn reads_ask_for_the_new_name_the_sidecar_and_the_blob() -> Result<()> {
    let container = Container::new()?;
    let plugin = &container.plugin;
    container.insert(&format!("{}-1", uuid(1)), &content(10_000))?;
    container.insert(&format!("{}-1", uuid(2)), &content(SIZE))?;
    let reads = |number, range: Range<usize>| -> Result<u64> {
        plugin.server.reset_counts();
        let start = u64::try_from(range.start)?;
        assert_eq!(plugin.range(&uuid(number), start, range.len())?, content(SIZE)[range]);
        Ok(requests(plugin))
    };
    assert_eq!([reads(1, 0..10_000)?, reads(1, 10..20)?], [3, 3]);
    // The first bytes are not enough, and the blob is read as a whole.
    assert_eq!(reads(2, 10..20)?, 6);
    plugin.server.reset_counts();
    assert!(plugin.read(&uuid(2))? == content(SIZE));
    assert_eq!(requests(plugin), 3);
    plugin.check()
}

/// Returns how many requests for objects there were since the counts were reset.
fn requests(plugin: &LoadedPlugin<Azure>) -> u64 {
    let requests = plugin.server.requests();
    let kinds = [Operation::GetObject, Operation::GetObjectRange, Operation::HeadObject];
    kinds.into_iter().map(|kind| requests.of(kind)).sum()
}

/// The sidecar is read before the blob, which keeps its connection until its last byte.
#[test]
fn one_connection_is_enough() -> Result<()> {
    let container = Container::with(&json!({"MaxConnections": 1, "OutageTimeout": 5}))?;
    container.insert(&format!("{}-1", uuid(1)), &content(SIZE))?;
    container.plugin.insert(&format!("{}-1", uuid(2)), content(SIZE));
    for number in [1, 2] {
        assert!(container.plugin.read(&uuid(number))? == content(SIZE));
        assert_eq!(container.plugin.range(&uuid(number), 70_000, 1000)?, content(SIZE)[70_000..71_000]);
    }
    container.plugin.check()
}

#[test]
fn plain_blobs_are_read_and_new_objects_are_envelopes() -> Result<()> {
    let container = Container::new()?;
    let plugin = &container.plugin;
    plugin.insert(&format!("{}-1", uuid(1)), content(SIZE));
    assert!(plugin.read(&uuid(1))? == content(SIZE));
    assert_eq!(plugin.range(&uuid(1), 10, 5)?, content(SIZE)[10..15]);
    plugin.create(&uuid(2), b"content")?;
    assert_eq!(plugin.read(&uuid(2))?, b"content");
    let names = plugin.stored();
    assert!(names.contains(&format!("{}.dcm.enc", uuid(2))), "{names:?}");
    assert_eq!(container.setup.vault.take_operations(), []);
    plugin.check()
}

#[test]
fn both_blobs_are_deleted() -> Result<()> {
    let container = Container::new()?;
    container.insert(&format!("{}-1", uuid(1)), &content(SIZE))?;
    container.insert(&format!("{}-1", uuid(2)), &content(SIZE))?;
    assert_eq!(container.plugin.stored().len(), 4);
    container.plugin.remove(&uuid(1))?;
    eventually("the blobs are deleted", Duration::from_secs(30), || container.plugin.stored().len() == 2)?;
    assert!(container.plugin.read(&uuid(2))? == content(SIZE));
    container.plugin.check()
}

/// The first attachment, whose blob and sidecar a test changes.
struct Damaged<'a> {
    container: &'a Container,
    name: String,
    blob: Vec<u8>,
    info: Value,
}

impl<'a> Damaged<'a> {
    fn new(container: &'a Container) -> Result<Self> {
        let info = container.blobs.info(SIZE);
        Ok(Self { container, name: format!("{}-1", uuid(1)), blob: encrypt(&content(SIZE))?, info })
    }

    /// Returns the sidecar with one field changed.
    fn with(&self, pointer: &str, value: Value) -> Vec<u8> {
        let mut info = self.info.clone();
        *info.pointer_mut(pointer).unwrap() = value;
        info.to_string().into_bytes()
    }

    /// Checks that reads of the whole and of ranges fail with `expected` and the name of the blob. Returns the operations
    /// of the vault.
    fn expect(&self, blob: &[u8], info: &[u8], expected: &str) -> Result<Vec<VaultOperation>> {
        let plugin = &self.container.plugin;
        plugin.insert(&self.name, blob.to_vec());
        plugin.insert(&format!("{}.info", self.name), info.to_vec());
        let whole = || plugin.orthanc.read_whole(&uuid(1), DICOM);
        let range = |start| plugin.orthanc.read_range(&uuid(1), DICOM, start, 10);
        for read in [&whole as &dyn Fn() -> _, &|| range(0), &|| range(100_000)] {
            let outcome = read();
            assert!(outcome.is_err(), "{expected}");
            let error = plugin.new_error()?;
            assert!(error.contains(expected) && error.contains(&self.name), "{expected}: {error}");
            assert!(error.len() < 1000, "{} bytes", error.len());
        }
        plugin.check()?;
        Ok(self.container.setup.vault.take_operations())
    }
}

#[test]
fn damaged_blobs_are_errors() -> Result<()> {
    let container = Container::new()?;
    let damaged = Damaged::new(&container)?;
    let right = damaged.info.to_string().into_bytes();
    let blob = &damaged.blob;
    for (info, expected) in [
        (Vec::new(), "JSON"),
        (b"{".to_vec(), "JSON"),
        (right[..right.len() - 1].to_vec(), "JSON"),
        (b"\xff\xfe".to_vec(), "JSON"),
        (vec![b'['; 60_000], "JSON"),
        (vec![b' '; 100_000], "65536"),
        (b"null".to_vec(), "/kek/key/kid"),
        (b"[]".to_vec(), "/kek/key/kid"),
        (damaged.with("/kek/key/kid", json!(7)), "/kek/key/kid"),
        (damaged.with("/cek/key/iv", json!([1])), "/cek/key/iv"),
        (damaged.with("/cek/key/iv/0", json!(256)), "/cek/key/iv"),
        (damaged.with("/cek/key/value", json!("00")), "/cek/key/value"),
        (damaged.with("/cek/key/value", json!("")), "/cek/key/value"),
        (damaged.with("/cipher/size_decrypted", json!(-1)), "/cipher/size_decrypted"),
        (damaged.with("/cipher/size_decrypted", json!(SIZE + 16)), "/cipher/size_encrypted"),
        (damaged.with("/cipher/size_encrypted", json!(u64::MAX)), "/cipher/size_encrypted"),
        // Both sizes are right for another blob.
        (container.blobs.info(SIZE + 16).to_string().into_bytes(), "its sidecar says"),
    ] {
        assert_eq!(damaged.expect(blob, &info, expected)?, [], "{expected}");
    }
    for end in [1, 15, 16, 1024, SIZE - SIZE % 16, blob.len() - 1] {
        assert_eq!(damaged.expect(&blob[..end], &right, "its sidecar says")?, []);
    }
    assert_eq!(damaged.expect(&[&blob[..], &[0; 16]].concat(), &right, "its sidecar says")?, []);
    // The key is in the pool afterwards.
    let mut altered = blob.clone();
    altered[blob.len() - 1] ^= 1;
    assert_eq!(damaged.expect(&altered, &right, "cannot be decrypted")?, [UnwrapKey]);
    // Of the same size, but the padding is longer.
    let info = damaged.with("/cipher/size_decrypted", json!(SIZE - 1));
    let is_same_block = (SIZE - 1) / 16 == SIZE / 16;
    let expected = if is_same_block { "cannot be decrypted" } else { "/cipher/size_encrypted" };
    assert_eq!(damaged.expect(blob, &info, expected)?, []);
    Ok(())
}

/// Whoever can write to the container can alter sidecars.
#[test]
fn sidecars_cannot_name_other_vaults() -> Result<()> {
    let container = Container::new()?;
    let damaged = Damaged::new(&container)?;
    let version = container.setup.vault.create_key("other")?;
    let kid = &container.setup.kid;
    let hosts = container.setup.hosts();
    for other in [
        kid.replace(HOST, "attacker.example"),
        kid.replace(HOST, "other.vault.azure.net"),
        kid.replace(HOST, &format!("{HOST}.attacker.example")),
        kid.replace(HOST, &format!("{HOST}@attacker.example")),
        kid.replace(HOST, &format!("{HOST}:8443")),
        kid.replace("https", "http"),
        format!("https://{HOST}/keys/other/{version}"),
        format!("{kid}/../../other/{version}"),
        format!("https://{HOST}/secrets/images/{version}"),
        "images".to_owned(),
        "x".repeat(60_000),
    ] {
        let info = damaged.with("/kek/key/kid", json!(other));
        let operations = damaged.expect(&damaged.blob, &info, "not configured")?;
        assert_eq!(operations, [], "{other:.100}");
    }
    assert_eq!(container.setup.hosts(), hosts);
    Ok(())
}

#[test]
fn refusals_of_the_vault_are_errors() -> Result<()> {
    let container = Container::new()?;
    let damaged = Damaged::new(&container)?;
    let right = damaged.info.to_string().into_bytes();
    let kid = &container.setup.kid;
    let version = kid.rsplit('/').next().unwrap();
    let three = [UnwrapKey; 3];
    // The pool has no key of a failed request.
    let other = container.setup.vault.create_key("images")?;
    for (kid, expected) in [
        (format!("{kid}0"), "HTTP 404 KeyNotFound"),
        (kid.replace(version, &other), "the file key was wrapped with another key"),
    ] {
        let info = damaged.with("/kek/key/kid", json!(kid));
        assert_eq!(damaged.expect(&damaged.blob, &info, expected)?, three);
    }
    let mut wrapped = damaged.info["cek"]["key"]["value"].as_str().unwrap().to_owned();
    wrapped.replace_range(..2, if wrapped.starts_with("41") { "42" } else { "41" });
    let info = damaged.with("/cek/key/value", json!(wrapped));
    assert_eq!(damaged.expect(&damaged.blob, &info, "or is damaged")?, three);
    container.setup.vault.permit(&[WrapKey]);
    assert_eq!(damaged.expect(&damaged.blob, &right, "permissions get, wrapKey and unwrapKey")?, three);
    container.setup.vault.permit(&[WrapKey, UnwrapKey]);
    container.setup.vault.enable(version, false);
    assert_eq!(damaged.expect(&damaged.blob, &right, "it is disabled")?, three);
    container.setup.vault.enable(version, true);
    assert!(container.plugin.read(&uuid(1))? == content(SIZE));
    Ok(())
}
