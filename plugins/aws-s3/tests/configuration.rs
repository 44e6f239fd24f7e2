//! Options of S3 only: the values that the plugin refuses and those that it accepts.

#[path = "common/cloud.rs"]
mod cloud;

use std::time::Duration;

use anyhow::Result;
use cloud::S3;
use conformance::{Cloud as _, DICOM, KEY, LoadedPlugin, Trials, UUID, configuration, done, with, without};
use fake_cloud::{BucketServer, Fault, FaultRule, Options};
use fake_orthanc::LogLevel;
use serde_json::{Map, Value, json};

#[test]
fn tags_outside_the_limits_of_s3_are_refused() -> Result<()> {
    let key = "k".repeat(129);
    let eleven: Map<String, Value> = (0..11).map(|tag| (tag.to_string(), json!("x"))).collect();
    Trials::<S3>::start()?.refuse(&[
        ("Tags", json!("a=b"), "\"a=b\""),
        ("Tags", json!(["a"]), "list"),
        ("Tags", json!(null), "null"),
        ("Tags", json!({"a": 1}), "1"),
        ("Tags", json!({"a": null}), "null"),
        ("Tags", json!({"": "x"}), "\"\""),
        ("Tags", json!({&key: "x"}), key.as_str()),
        ("Tags", json!({"a": "v".repeat(257)}), "\"a\""),
        ("Tags", eleven.into(), "11"),
    ])
}

#[test]
fn addressing_by_path_needs_no_option_on_this_machine() -> Result<()> {
    for host in ["127.0.0.1", "localhost"] {
        let server = S3::server()?;
        let endpoint = server.endpoint().replace("127.0.0.1", host);
        let section = without(S3::section(&endpoint), &["VirtualAddressing"]);
        let plugin = LoadedPlugin::<S3>::load(server, configuration::<S3>(section))?;
        plugin.create(UUID, b"x")?;
        assert_eq!(plugin.read(UUID)?, b"x");
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn only_the_proxy_needs_to_know_the_server() -> Result<()> {
    let domain = Some("s3.test".to_owned());
    let server = BucketServer::start(Options { virtual_host_domain: domain, ..Options::default() })?;
    let section = with(
        without(S3::section("http://s3.test"), &["VirtualAddressing"]),
        &json!({"Proxy": server.endpoint()}),
    );
    let plugin = LoadedPlugin::<S3>::load(server, configuration::<S3>(section))?;
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(!warnings.iter().any(|line| line.contains("VirtualAddressing")), "{warnings:#?}");
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.read(UUID)?, b"x");
    plugin.check()
}

#[test]
fn incomplete_options_are_refused() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let complete = trials.section(&json!({}));
    let keyless = without(complete.clone(), &["AccessKey", "SecretKey"]);
    for (section, option) in [
        (without(complete.clone(), &["BucketName"]), "BucketName"),
        (without(complete.clone(), &["Region"]), "Region"),
        (with(complete.clone(), &json!({"BucketName": ""})), "BucketName"),
        (with(complete.clone(), &json!({"Region": ""})), "Region"),
        (without(complete.clone(), &["AccessKey"]), "AccessKey"),
        (without(complete.clone(), &["SecretKey"]), "SecretKey"),
        (with(keyless.clone(), &json!({"SessionToken": "t"})), "SessionToken"),
        (with(keyless, &json!({"SessionToken": "t", "SecretKey": "s"})), "AccessKey"),
        (with(complete.clone(), &json!({"KmsKeyId": "k"})), "KmsKeyId"),
        (with(complete, &json!({"KmsKeyId": "k", "ServerSideEncryption": "AES256"})), "KmsKeyId"),
    ] {
        trials.refused(&configuration::<S3>(section), &[format!("AwsS3Storage.{option}")])?;
    }
    Ok(())
}

#[test]
fn malformed_endpoints_are_refused() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    for endpoint in ["http://", "https://a b", "http://host:65536", "s3://bucket", "ftp://host"] {
        trials.refuse(&[("Endpoint", json!(endpoint), format!("{endpoint:?}"))])?;
    }
    for endpoint in ["host:port", "user@host", "user:hunter2@host", "host/?query=1", "host/#fragment"] {
        for scheme in ["", "https://"] {
            let section = trials.section(&json!({"Endpoint": format!("{scheme}{endpoint}")}));
            let line = trials.refused(&configuration::<S3>(section), &["AwsS3Storage.Endpoint"])?;
            assert!(!line.contains("hunter2"), "{line}");
        }
    }
    Ok(())
}

#[test]
fn virtual_addressing_needs_a_host_name() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    for endpoint in [trials.server.endpoint(), "https://[::1]:9000".to_owned(), "10.0.0.1".to_owned()] {
        let section = trials.section(&json!({"Endpoint": endpoint, "VirtualAddressing": true}));
        let fragments = ["AwsS3Storage.VirtualAddressing", endpoint.as_str()];
        trials.refused(&configuration::<S3>(section), &fragments)?;
    }
    Ok(())
}

#[test]
fn endpoints_may_have_slashes_and_blanks() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let endpoint = trials.server.endpoint();
    for spelling in [format!("{endpoint}/"), format!("{endpoint}//"), format!(" {endpoint} ")] {
        let section = trials.section(&json!({"Endpoint": spelling}));
        assert_eq!(trials.accept(section)?, [""; 0]);
    }
    Ok(())
}

#[test]
fn endpoint_without_a_scheme_is_https() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let address = format!("127.0.0.1:{}", trials.server.port());
    let configuration = configuration::<S3>(trials.section(&json!({"Endpoint": address})));
    trials.refused(&configuration, &["the server does not speak TLS on this port", "Endpoint"])?;
    Ok(())
}

#[test]
fn storage_classes_and_encryptions_are_sent() -> Result<()> {
    let classes = [
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "OUTPOSTS",
        "GLACIER_IR",
        "SNOW",
    ]
    .map(|class| json!({"StorageClass": class}));
    let encryptions = ["AES256", "aws:kms", "aws:kms:dsse"].map(|name| json!({"ServerSideEncryption": name}));
    let mut trials = Trials::<S3>::start()?;
    for options in classes.iter().chain(&encryptions) {
        assert_eq!(trials.accept(trials.section(options))?, [""; 0]);
        done(trials.orthanc.create(UUID, DICOM, b"x"))?;
        let stored = trials.server.remove("bucket", KEY);
        let attributes = stored.map(|stored| (stored.storage_class, stored.server_side_encryption));
        let sent = |option: &str| options[option].as_str().map(str::to_owned);
        assert_eq!(attributes, Some((sent("StorageClass"), sent("ServerSideEncryption"))));
    }
    Ok(())
}

#[test]
fn connection_timeout_has_two_spellings() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    for (options, limit) in [
        (json!({"ConnectTimeout": 1}), "1 s"),
        (json!({"ConnectionTimeout": 2}), "2 s"),
        (json!({"ConnectionTimeout": 1, "ConnectTimeout": 604_800}), "1 s"),
    ] {
        // A silent server causes a warning with the limit.
        trials.server.faults().push(FaultRule::new(Fault::Delay(Duration::from_secs(5))));
        let warnings = trials.accept(trials.section(&options))?;
        let [warning] = &warnings[..] else { anyhow::bail!("{warnings:#?}") };
        assert!(warning.contains(S3::URL) && warning.contains(limit), "{warning}");
    }
    Ok(())
}

/// Notes must be readable at each start, so they are not in the class that attachments are archived in.
#[test]
fn note_about_the_key_has_no_storage_class() -> Result<()> {
    const NOTE: &str = ".orthanc-object-storage/key-3";
    let mut trials = Trials::<S3>::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("key");
    std::fs::write(&path, "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=")?;
    let options = json!({
        "StorageClass": "GLACIER", "Tags": {"a": "b"}, "ServerSideEncryption": "AES256",
        "StorageEncryption": {"MasterKey": [3, path], "Format": "A2"},
    });
    trials.accept(trials.section(&options))?;
    let note = trials.server.object("bucket", NOTE);
    let attributes = note.map(|note| (note.storage_class, note.tags.len(), note.server_side_encryption));
    assert_eq!(attributes, Some((None, 0, Some("AES256".to_owned()))));
    Ok(())
}
