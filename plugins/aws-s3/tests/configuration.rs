//! What is S3's own in the section: every value that the plugin refuses, with its whole message, and what it accepts.

#[path = "common/cloud.rs"]
mod cloud;

use std::time::Duration;

use anyhow::Result;
use cloud::S3;
use conformance::{DICOM, KEY, Setup, Trials, UUID, configuration, done, section, with, without};
use fake_cloud::{BucketServer, Fault, FaultRule, Options};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

#[test]
fn tags_that_s3_does_not_take_are_refused() -> Result<()> {
    let object = "an object of texts, as {\"name\": \"value\"}, is needed";
    let limits = "a key of 1 to 128 and a value of up to 256 characters is needed";
    let (key, value) = ("k".repeat(129), "v".repeat(257));
    let eleven: Value =
        (0..11).map(|tag| (tag.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    Trials::<S3>::start()?.refuse(&[
        ("Tags", json!("a=b"), &format!("is \"a=b\": {object}")),
        ("Tags", json!(["a"]), &format!("is a list: {object}")),
        ("Tags", json!(null), &format!("is null: {object}")),
        ("Tags", json!({"a": 1}), &format!("has 1 for a: {object}")),
        ("Tags", json!({"a": null}), &format!("has null for a: {object}")),
        ("Tags", json!({"": "x"}), &format!("has the tag \"\": {limits}")),
        ("Tags", json!({&key: "x"}), &format!("has the tag {key:?}: {limits}")),
        ("Tags", json!({"a": value}), &format!("has the tag \"a\": {limits}")),
        ("Tags", eleven, &"has 11 tags: at most 10 are allowed".to_owned()),
    ])
}

#[test]
fn options_that_need_each_other_are_refused_alone() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let complete = trials.section(&json!({}));
    let access_key =
        "option AwsS3Storage.AccessKey is missing: it goes together with SecretKey and SessionToken";
    let secret_key = "option AwsS3Storage.SecretKey is missing: it goes together with AccessKey";
    let kms = "option AwsS3Storage.KmsKeyId is given: \"ServerSideEncryption\": \"aws:kms\" or \"aws:kms:dsse\" is \
               needed too";
    let keyless = without(complete.clone(), &["AccessKey", "SecretKey"]);
    let flaws: Vec<_> = [
        (
            without(complete.clone(), &["BucketName"]),
            "option AwsS3Storage.BucketName is missing: a text is needed",
        ),
        (without(complete.clone(), &["Region"]), "option AwsS3Storage.Region is missing: a text is needed"),
        (
            with(complete.clone(), &json!({"BucketName": ""})),
            "option AwsS3Storage.BucketName is empty: a text is needed",
        ),
        (
            with(complete.clone(), &json!({"Region": ""})),
            "option AwsS3Storage.Region is empty: a text is needed",
        ),
        (without(complete.clone(), &["AccessKey"]), access_key),
        (without(complete.clone(), &["SecretKey"]), secret_key),
        (with(keyless.clone(), &json!({"SessionToken": "t"})), access_key),
        (with(keyless, &json!({"SessionToken": "t", "SecretKey": "s"})), access_key),
        (with(complete.clone(), &json!({"KmsKeyId": "k"})), kms),
        (with(complete, &json!({"KmsKeyId": "k", "ServerSideEncryption": "AES256"})), kms),
    ]
    .iter()
    .filter_map(|(section, message)| trials.flaw(&configuration::<S3>(section.clone()), message))
    .collect();
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    Ok(())
}

#[test]
fn an_endpoint_that_is_no_host_is_refused_without_showing_a_password() -> Result<()> {
    let needed = "[https://]host[:port] is needed";
    let more = format!("has more than a host: {needed}");
    Trials::<S3>::start()?.refuse(&[
        ("Endpoint", json!("http://"), &format!("is \"http://\": not a URL: {needed}")),
        ("Endpoint", json!("https://a b"), &format!("is \"https://a b\": not a URL: {needed}")),
        ("Endpoint", json!("host:port"), &format!("is \"host:port\": not a URL: {needed}")),
        ("Endpoint", json!("http://host:65536"), &format!("is \"http://host:65536\": not a URL: {needed}")),
        ("Endpoint", json!("s3://bucket"), &format!("is \"s3://bucket\": neither https nor http: {needed}")),
        ("Endpoint", json!("ftp://host"), &format!("is \"ftp://host\": neither https nor http: {needed}")),
        ("Endpoint", json!("https://user@host"), &more),
        ("Endpoint", json!("https://user:hunter2@host"), &more),
        ("Endpoint", json!("user:hunter2@host"), &more),
        ("Endpoint", json!("https://host/?query=1"), &more),
        ("Endpoint", json!("https://host/#fragment"), &more),
    ])
}

#[test]
fn a_bucket_cannot_be_part_of_an_ip_address() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    for endpoint in [trials.server.endpoint(), "https://[::1]:9000".to_owned(), "10.0.0.1".to_owned()] {
        let section = trials.section(&json!({"Endpoint": endpoint, "VirtualAddressing": true}));
        let message = format!(
            "option AwsS3Storage.VirtualAddressing is true, but {endpoint:?} has an IP address for a host: false is \
             needed"
        );
        assert_eq!(trials.flaw(&configuration::<S3>(section.clone()), &message), None);
        // It is the default.
        let section = without(section, &["VirtualAddressing"]);
        assert_eq!(trials.flaw(&configuration::<S3>(section), &message), None);
    }
    Ok(())
}

#[test]
fn endpoints_are_accepted_with_slashes_and_blanks_and_with_a_path() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let endpoint = trials.server.endpoint();
    for spelled in [format!("{endpoint}/"), format!("{endpoint}//"), format!(" {endpoint} ")] {
        let section = trials.section(&json!({"Endpoint": spelled}));
        assert_eq!(trials.accept(configuration::<S3>(section))?, [""; 0]);
    }
    // Some gateways serve S3 under a folder. This server takes the folder for the bucket, which makes no difference.
    trials.server.insert("gateway", "some", "object");
    let section = trials.section(&json!({"Endpoint": format!("{endpoint}/gateway/")}));
    assert_eq!(trials.accept(configuration::<S3>(section))?, [""; 0]);
    done(trials.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(trials.server.keys("gateway"), [&format!("bucket/{}", KEY), "some"]);
    Ok(())
}

#[test]
fn an_endpoint_without_a_scheme_is_https() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    let endpoint = format!("127.0.0.1:{}", trials.server.port());
    let section = trials.section(&json!({"Endpoint": endpoint}));
    // The server speaks no TLS: a greeting in TLS is no request to it, and its answer none to the plugin.
    let warnings = trials.accept(configuration::<S3>(section))?;
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].starts_with("cannot check s3://bucket: cannot connect: "), "{warnings:#?}");
    assert_eq!(trials.server.requests().total, 0);
    Ok(())
}

#[test]
fn an_endpoint_in_clear_beyond_this_machine_gets_a_warning() -> Result<()> {
    let server = BucketServer::start(Options {
        virtual_host_domain: Some("s3.test".to_owned()),
        ..Options::default()
    })?;
    let section = section::<S3>(&server, &json!({"Endpoint": "http://s3.test", "VirtualAddressing": true}));
    let mut configuration = configuration::<S3>(section);
    configuration["HttpProxy"] = json!(server.endpoint());
    let setup = Setup::<S3>::load(server, configuration)?;
    let warnings = setup.lines(LogLevel::Warning);
    let warning = "the endpoint http://bucket.s3.test/ is not encrypted: use https";
    assert!(warnings.iter().any(|line| line == warning), "{warnings:#?}");
    Ok(())
}

#[test]
fn every_storage_class_and_server_side_encryption_is_accepted_and_sent() -> Result<()> {
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
        let section = trials.section(options);
        assert_eq!(trials.accept(configuration::<S3>(section))?, [""; 0]);
        done(trials.host.create(UUID, DICOM, b"x"))?;
        let stored = trials.server.remove("bucket", KEY);
        let stored = stored.map(|stored| (stored.storage_class, stored.server_side_encryption));
        let sent = |option: &str| options[option].as_str().map(str::to_owned);
        assert_eq!(stored, Some((sent("StorageClass"), sent("ServerSideEncryption"))));
    }
    Ok(())
}

#[test]
fn both_spellings_of_the_connection_timeout_count_and_the_newer_one_wins() -> Result<()> {
    let mut trials = Trials::<S3>::start()?;
    for (options, seconds) in [
        (json!({"ConnectTimeout": 1}), 1),
        (json!({"ConnectionTimeout": 2}), 2),
        (json!({"ConnectionTimeout": 1, "ConnectTimeout": 604_800}), 1),
    ] {
        // Silence of the server at the start is a warning, which tells the limit.
        let rule = FaultRule::new(Fault::Delay(Duration::from_secs(5)));
        trials.server.faults().push(rule);
        let section = trials.section(&options);
        let warning = format!(
            "cannot check s3://bucket: nothing moved for {seconds} s; going on, since the server may \
             come up later"
        );
        assert_eq!(trials.accept(configuration::<S3>(section))?, [warning]);
    }
    Ok(())
}
