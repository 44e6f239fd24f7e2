//! Features of Azure only: creation of containers, shared access signatures, access tiers, the old section.

#[path = "common/cloud.rs"]
mod cloud;

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use cloud::{Azure, later, section};
use conformance::{
    Cloud as _, DICOM, KEY, LoadedPlugin, Trials, UUID, configuration, content, done, library, load,
    own_lines, uuid, with, without,
};
use fake_cloud::{AzureOptions, BucketServer, Operation, Sas};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel};
use serde_json::{Value, json};

/// A container that no server has at first.
const NEW: &str = "new-container";

/// Checks that the plugin refuses to start with one error line that contains all `fragments`.
fn expect_refused(section: Value, fragments: &[&str]) -> Result<()> {
    let outcome = load::<Azure>(configuration::<Azure>(section))?;
    let Err(LoadError::Initialize { logs, .. }) = outcome else { bail!("not refused: {outcome:?}") };
    let errors = own_lines::<Azure>(&logs, LogLevel::Error);
    let [line] = &errors[..] else { bail!("{errors:#?}") };
    for fragment in fragments {
        ensure!(line.contains(fragment), "{fragment:?} is not in {line:?}");
    }
    Ok(())
}

/// Returns a signature with these permissions.
fn with_permissions(permissions: &str) -> Sas {
    Sas { permissions: permissions.to_owned(), ..Sas::until(later()) }
}

/// Runs each operation and checks that it is one request.
fn round_trip(plugin: &LoadedPlugin<Azure>) -> Result<()> {
    let bytes = content(100_000);
    plugin.server.reset_counts();
    plugin.create(UUID, &bytes)?;
    assert!(plugin.read(UUID)? == bytes);
    assert!(plugin.range(UUID, 5, 1000)? == bytes[5..1005]);
    plugin.remove(UUID)?;
    plugin.settle();
    let requests = plugin.server.requests();
    assert_eq!((requests.of(Operation::DeleteObject), requests.total), (1, 4), "no batches: {requests:?}");
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

#[test]
fn missing_container_is_created_by_default() -> Result<()> {
    let options = AzureOptions::default();
    for flag in [json!({}), json!({"CreateContainerIfNotExists": true})] {
        let server = BucketServer::start_azure(&options)?;
        let mut section = section(&options.connection_string(&server.endpoint()));
        section["ContainerName"] = json!(format!("  {NEW}\n"));
        let section = with(without(section, &["CreateContainerIfNotExists"]), &flag);
        let orthanc = load::<Azure>(configuration::<Azure>(section))??;
        let warnings = own_lines::<Azure>(&orthanc.logs(), LogLevel::Warning);
        let is_about_creation =
            |line: &String| line.contains(&format!("azure://{NEW}")) && line.contains("created");
        assert!(warnings.iter().any(is_about_creation), "{warnings:#?}");
        assert_eq!(server.requests().of(Operation::CreateBucket), 1);
        done(orthanc.create(UUID, DICOM, b"x"))?;
        assert_eq!(server.keys(NEW), [KEY]);
    }
    Ok(())
}

#[test]
fn existing_container_is_not_created() -> Result<()> {
    let plugin = LoadedPlugin::<Azure>::with(&json!({"CreateContainerIfNotExists": true}))?;
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.server.requests().of(Operation::CreateBucket), 0);
    Ok(())
}

#[test]
fn account_signature_may_create_the_container() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let signature = options.account_sas(&Sas::until(later()));
    let section = with(
        section(&options.sas_connection_string(&server.endpoint(), &signature)),
        &json!({"ContainerName": NEW, "CreateContainerIfNotExists": true}),
    );
    let plugin = LoadedPlugin::<Azure>::load(server, configuration::<Azure>(section))?;
    round_trip(&plugin)?;
    assert!(plugin.server.keys(NEW).is_empty());
    Ok(())
}

#[test]
fn container_signature_creates_no_container() -> Result<()> {
    let options = AzureOptions::default();
    let create = json!({"CreateContainerIfNotExists": true});
    let server = BucketServer::start_azure(&options)?;
    let signed = |container: &str| {
        let signature = options.service_sas(container, &with_permissions("rcwd"));
        let section = section(&options.sas_connection_string(&server.endpoint(), &signature));
        with(with(section, &create), &json!({ "ContainerName": container }))
    };
    expect_refused(signed(NEW), &[&format!("azure://{NEW}"), "HTTP 403"])?;
    let section = signed("bucket");
    round_trip(&LoadedPlugin::<Azure>::load(server, configuration::<Azure>(section))?)
}

#[test]
fn access_tier_applies_to_all_uploads() -> Result<()> {
    for tier in ["Hot", "Cool", "Cold"] {
        let plugin = LoadedPlugin::<Azure>::with(&json!({"AccessTier": tier, "TransferPoolSize": 4}))?;
        let expect_tier = |key: &str| -> Result<()> {
            let stored = plugin.server.object("bucket", key).context("not stored")?;
            assert_eq!(stored.storage_class.as_deref(), Some(tier));
            Ok(())
        };
        plugin.create(UUID, b"small")?;
        expect_tier(KEY)?;
        // The first upload shows that the connection is slow, so that the second one has parts.
        plugin.server.bandwidth_per_connection(Some(20_000_000));
        let large = content(20_000_000);
        for number in 1..=2 {
            plugin.create(&uuid(number), &large)?;
            expect_tier(&format!("{}.dcm", uuid(number)))?;
        }
        assert!(plugin.read(&uuid(2))? == large);
        assert!(plugin.server.requests().of(Operation::UploadPart) > 1, "no upload in parts");
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn archived_object_is_an_error() -> Result<()> {
    let plugin = LoadedPlugin::<Azure>::with(&json!({"AccessTier": "Archive"}))?;
    plugin.create(UUID, b"x")?;
    assert!(plugin.read(UUID).is_err());
    let line = plugin.new_error()?;
    assert!(line.contains("HTTP 409 BlobArchived"), "{line}");
    Ok(())
}

#[test]
fn old_section_is_deprecated() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let old = json!({
        "ContainerName": Azure::BUCKET, "AccountName": options.account, "AccountKey": options.key,
        "BlobEndpoint": options.blob_endpoint(&server.endpoint()),
    });
    let configuration = FakeOrthancOptions::with_configuration(json!({ "BlobStorage": old }));
    let orthanc = FakeOrthanc::load(library::<Azure>()?, configuration)?;
    let warnings = own_lines::<Azure>(&orthanc.logs(), LogLevel::Warning);
    let is_about_section =
        |line: &String| line.contains("\"BlobStorage\"") && line.contains("AzureBlobStorage");
    assert!(warnings.iter().any(is_about_section), "{warnings:#?}");
    done(orthanc.create(UUID, DICOM, b"x"))?;
    assert_eq!(server.keys("bucket"), [KEY]);
    Ok(())
}

#[test]
fn emulator_needs_only_its_name() -> Result<()> {
    let options = AzureOptions { port: Some(10_000), ..AzureOptions::default() };
    let server = BucketServer::start_azure(&options).context("the emulator's port 10000 must be free")?;
    let section = section(" UseDevelopmentStorage=true;\n");
    round_trip(&LoadedPlugin::<Azure>::load(server, configuration::<Azure>(section))?)
}

#[test]
fn mistakes_are_refused() -> Result<()> {
    let mut trials = Trials::<Azure>::start()?;
    trials.refuse(&[
        ("ConnectionString", json!(""), "AccountName"),
        ("AccountName", json!("hospital"), "ConnectionString"),
        ("ContainerName", json!("Orthanc"), "\"Orthanc\""),
        ("ContainerName", json!("ab"), "\"ab\""),
        ("ContainerName", json!("a--b"), "\"a--b\""),
        ("ContainerName", json!("-ab"), "\"-ab\""),
        ("EnableStorage", json!("yes"), "EnableStorage"),
        ("EncryptionEnabled", json!(true), "AzureKeyVault"),
        ("AzureKeyVault", json!({}), "kid"),
    ])?;
    let section = trials.section(&json!({"ConnectionString": "hunter2"}));
    let line = trials.refused(&configuration::<Azure>(section), &["AzureBlobStorage.ConnectionString"])?;
    assert!(!line.contains("hunter2"), "{line}");
    Ok(())
}

#[test]
fn expired_signature_is_one_error() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let expiry = SystemTime::now() + Duration::from_secs(5);
    let signature = options.account_sas(&Sas::until(expiry));
    let connection = options.sas_connection_string(&server.endpoint(), &signature);
    let plugin = LoadedPlugin::<Azure>::load(server, configuration::<Azure>(section(&connection)))?;
    plugin.create(UUID, b"x")?;
    thread::sleep(Duration::from_secs(6));
    assert!(plugin.read(UUID).is_err());
    let line = plugin.new_error()?;
    assert!(line.contains("HTTP 403") && !line.contains("sig="), "{line}");
    Ok(())
}
