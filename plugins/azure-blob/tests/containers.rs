//! What is Azure's own: containers that are made, signatures, access tiers, the older section.

#[path = "common/cloud.rs"]
mod cloud;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use cloud::{Azure, later, section};
use conformance::{
    Cloud as _, DICOM, KEY, Setup, Trials, UUID, configuration, content, done, load, own_lines, with,
};
use fake_cloud::{AzureOptions, BucketServer, Operation, Sas};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel};
use serde_json::{Value, json};

/// The container that no server has at first.
const NEW: &str = "new-container";

/// The log lines with which the plugin refuses to start.
fn refused(section: Value) -> Result<Vec<String>> {
    match load::<Azure>(configuration::<Azure>(section))? {
        Err(LoadError::Initialize { logs, .. }) => Ok(own_lines::<Azure>(&logs, LogLevel::Error)),
        outcome => anyhow::bail!("not refused: {outcome:?}"),
    }
}

/// What allows exactly this.
fn allowing(permissions: &str) -> Sas {
    Sas { permissions: permissions.to_owned(), ..Sas::until(later()) }
}

#[test]
fn a_missing_container_is_made_if_that_is_wanted_and_is_the_default() -> Result<()> {
    let options = AzureOptions::default();
    for flag in [json!({}), json!({"CreateContainerIfNotExists": true})] {
        let server = BucketServer::start_azure(&options)?;
        let mut section = section(&options.connection_string(&server.endpoint()));
        section["ContainerName"] = json!(format!("  {NEW}\n"));
        section.as_object_mut().context("no object")?.remove("CreateContainerIfNotExists");
        let host = load::<Azure>(configuration::<Azure>(with(section, &flag)))??;
        let warning = format!("azure://{NEW} was missing and has been created: check that it is private");
        assert!(own_lines::<Azure>(&host.logs(), LogLevel::Warning).contains(&warning));
        assert_eq!(server.requests().of(Operation::CreateBucket), 1);
        done(host.create(UUID, DICOM, b"x"))?;
        assert_eq!(server.keys(NEW), [KEY]);
    }
    Ok(())
}

#[test]
fn a_container_that_is_there_is_not_made() -> Result<()> {
    let setup = Setup::<Azure>::with(&json!({"CreateContainerIfNotExists": true}))?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(setup.server.requests().of(Operation::CreateBucket), 0);
    Ok(())
}

#[test]
fn a_missing_container_is_one_clear_line_where_none_is_to_be_made() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let section =
        with(section(&options.connection_string(&server.endpoint())), &json!({"ContainerName": NEW}));
    let lines = refused(section)?;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let expected = format!(
        "cannot check azure://{NEW}: the bucket does not exist: create it, or correct its name in the configuration (HTTP 404 \
         ContainerNotFound: "
    );
    assert!(lines[0].starts_with(&expected), "{lines:#?}");
    assert!(server.keys(NEW).is_empty());
    Ok(())
}

#[test]
fn a_signature_of_the_account_does_all_and_makes_the_container() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let signature = options.account_sas(&Sas::until(later()));
    let section = with(
        section(&options.sas_connection_string(&server.endpoint(), &signature)),
        &json!({"ContainerName": NEW, "CreateContainerIfNotExists": true}),
    );
    let setup = Setup::<Azure>::load(server, configuration::<Azure>(section))?;
    round_trip(&setup)?;
    assert!(setup.server.keys(NEW).is_empty());
    Ok(())
}

#[test]
fn a_signature_of_the_container_does_all_but_make_it() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let signature = options.service_sas("bucket", &allowing("rcwd"));
    let connection = options.sas_connection_string(&server.endpoint(), &signature);
    let create = json!({"CreateContainerIfNotExists": true});
    let setup = Setup::<Azure>::load(server, configuration::<Azure>(with(section(&connection), &create)))?;
    round_trip(&setup)?;

    let signature = options.service_sas(NEW, &allowing("rcwd"));
    let connection = options.sas_connection_string(&setup.server.endpoint(), &signature);
    let section = with(with(section(&connection), &create), &json!({"ContainerName": NEW}));
    let lines = refused(section)?;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let expected = format!("cannot create azure://{NEW}: access denied: ");
    assert!(lines[0].starts_with(&expected), "{lines:#?}");
    Ok(())
}

/// Everything that Orthanc asks of a storage area, one request for each.
fn round_trip(setup: &Setup<Azure>) -> Result<()> {
    let bytes = content(100_000);
    setup.server.reset_counts();
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert!(done(setup.host.read_whole(UUID, DICOM))? == bytes);
    assert!(done(setup.host.read_range(UUID, DICOM, 5, 1000))? == bytes[5..1005]);
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!(setup.server.requests().total, 4);
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

#[test]
fn the_access_tier_is_that_of_objects_in_one_request_and_of_those_in_parts() -> Result<()> {
    for tier in ["Hot", "Cool", "Cold"] {
        let setup = Setup::<Azure>::with(&json!({"AccessTier": tier, "TransferPoolSize": 4}))?;
        done(setup.host.create(UUID, DICOM, b"small"))?;
        let stored = setup.server.object("bucket", KEY).context("nothing stored")?;
        assert_eq!(stored.storage_class.as_deref(), Some(tier));
        // One slow connection, from which the engine learns that parts help.
        setup.server.bandwidth_per_connection(Some(20_000_000));
        let large = content(20_000_000);
        for number in 1..=2 {
            done(setup.host.create(&conformance::uuid(number), DICOM, &large))?;
            let key = format!("{}.dcm", conformance::uuid(number));
            let stored = setup.server.object("bucket", &key).context("nothing stored")?;
            assert!(stored.bytes == large);
            assert_eq!(stored.storage_class.as_deref(), Some(tier), "{number}");
        }
        assert!(setup.server.requests().of(Operation::UploadPart) > 1, "no upload in parts");
        setup.check()?;
    }
    Ok(())
}

#[test]
fn what_is_archived_cannot_be_read_and_the_line_says_so() -> Result<()> {
    let setup = Setup::<Azure>::with(&json!({"AccessTier": "Archive"}))?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    assert!(setup.host.read_whole(UUID, DICOM).is_err());
    assert!(setup.only_error().contains("(HTTP 409 BlobArchived: "), "{}", setup.only_error());
    Ok(())
}

#[test]
fn the_older_section_is_read_with_a_warning_where_the_newer_one_is_missing() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let older = json!({
        "ContainerName": Azure::BUCKET, "AccountName": options.account, "AccountKey": options.key,
        "BlobEndpoint": options.blob_endpoint(&server.endpoint()),
    });
    let host = FakeOrthanc::load(
        conformance::library::<Azure>()?,
        FakeOrthancOptions::with_configuration(json!({"BlobStorage": older})),
    )?;
    let warning = "the section \"BlobStorage\" is deprecated: call it \"AzureBlobStorage\"".to_owned();
    assert!(own_lines::<Azure>(&host.logs(), LogLevel::Warning).contains(&warning), "{:#?}", host.logs());
    done(host.create(UUID, DICOM, b"x"))?;
    assert_eq!(server.keys("bucket"), [KEY]);
    Ok(())
}

#[test]
fn the_emulator_of_this_machine_needs_no_more_than_its_name() -> Result<()> {
    // Its port is given.
    let options = AzureOptions { port: Some(10_000), ..AzureOptions::default() };
    let Ok(server) = BucketServer::start_azure(&options) else {
        println!("SKIPPED: port 10000 is in use");
        return Ok(());
    };
    let section = section(" UseDevelopmentStorage=true;\n");
    let setup = Setup::<Azure>::load(server, configuration::<Azure>(section))?;
    round_trip(&setup)
}

#[test]
fn what_is_deleted_is_deleted_with_one_request_and_again_without_an_error() -> Result<()> {
    let setup = Setup::<Azure>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.server.reset_counts();
    done(setup.host.remove(UUID, DICOM))?;
    done(setup.host.remove(UUID, DICOM))?;
    let requests = setup.server.requests();
    assert_eq!((requests.of(Operation::DeleteObject), requests.total), (2, 2), "no batches: {requests:?}");
    Ok(())
}

#[test]
fn mistakes_stop_orthanc_with_one_line_and_no_secret() -> Result<()> {
    let container = "3 to 63 letters from a to z, digits and single hyphens between them are needed";
    let key_vault = "belongs to the plugin for Azure Key Vault, whose files this release cannot read yet: remove it for a \
                     storage without";
    Trials::<Azure>::start()?.refuse(&[
        ("ConnectionString", json!(""), "is missing: it, or an AccountName, is needed".to_owned()),
        (
            "ConnectionString",
            json!("hunter2"),
            "is malformed: Name=value pairs with semicolons between are needed".to_owned(),
        ),
        (
            "AccountName",
            json!("hospital"),
            "is given beside ConnectionString: one of them is needed".to_owned(),
        ),
        ("ContainerName", json!("Orthanc"), format!("is \"Orthanc\": {container}")),
        ("ContainerName", json!("ab"), format!("is \"ab\": {container}")),
        ("ContainerName", json!("a--b"), format!("is \"a--b\": {container}")),
        ("ContainerName", json!("-ab"), format!("is \"-ab\": {container}")),
        ("EnableStorage", json!(true), key_vault.to_owned()),
        ("EncryptionEnabled", json!(true), key_vault.to_owned()),
        ("AzureKeyVault", json!({}), key_vault.to_owned()),
    ])
}

#[test]
fn a_signature_that_expires_while_orthanc_runs_is_one_clear_line_for_each_request() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let expiry = SystemTime::now() + Duration::from_secs(5);
    let signature = options.account_sas(&Sas::until(expiry));
    let connection = options.sas_connection_string(&server.endpoint(), &signature);
    let setup = Setup::<Azure>::load(server, configuration::<Azure>(section(&connection)))?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    std::thread::sleep(Duration::from_secs(6));
    assert!(setup.host.read_whole(UUID, DICOM).is_err());
    let line = setup.only_error();
    assert!(line.contains("access denied: check the credentials") && !line.contains("sig="), "{line}");
    Ok(())
}
