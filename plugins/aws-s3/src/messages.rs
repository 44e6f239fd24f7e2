//! A snapshot of the messages about the options of S3.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use serde_json::json;
use storage_plugin::connect;
use tokio::runtime::Runtime;

use crate::smithy_http::Metadata;
use crate::{S3, credentials};

#[test]
fn messages_match_the_snapshot() {
    let runtime = Runtime::new().unwrap();
    let tags = |count| (0..count).map(|tag| (tag.to_string(), "v")).collect::<BTreeMap<_, _>>();
    let mut snapshot = String::new();
    for options in [
        json!({"BucketName": null}),
        json!({"Region": ""}),
        json!({"Region": "eu-central-1a"}),
        json!({"Region": "https://hunter2"}),
        json!({"BucketName": "arn:aws:s3:eu-west-1:123456789012:accesspoint/images"}),
        json!({"Endpoint": "https://host/bucket"}),
        json!({"AccessKey": "hunter2"}),
        json!({"SecretKey": "hunter2"}),
        json!({"AccessKey": "hunter2", "SecretkKey": "hunter2"}),
        json!({"SessionToken": "hunter2"}),
        json!({"Endpoint": "http://"}),
        json!({"Endpoint": "host:port"}),
        json!({"Endpoint": "s3://bucket"}),
        json!({"Endpoint": "user:hunter2@host"}),
        json!({"Endpoint": "10.0.0.1", "VirtualAddressing": true}),
        json!({"StorageClass": "x"}),
        json!({"Checksum": "x"}),
        json!({"ServerSideEncryption": "x"}),
        json!({"KmsKeyId": "key"}),
        json!({"Tags": tags(11)}),
        json!({"Tags": {"": "value"}}),
    ] {
        let mut section = json!({"BucketName": "bucket", "Region": "eu-central-1"});
        for (option, value) in options.as_object().unwrap() {
            section[option] = value.clone();
        }
        let configuration = json!({"AwsS3Storage": section});
        let error = connect::<S3>(configuration.as_object().unwrap(), runtime.handle()).unwrap_err();
        let message = error.to_string();
        assert!(!message.contains("hunter2"), "{message}");
        writeln!(snapshot, "{options}\n    {message}").unwrap();
    }
    for (name, error) in [
        ("CredentialsNotLoaded", CredentialsError::not_loaded("hunter2")),
        ("ProviderTimedOut", CredentialsError::provider_timed_out(std::time::Duration::ZERO)),
        ("InvalidConfiguration", CredentialsError::invalid_configuration("hunter2")),
        ("ProviderError", CredentialsError::provider_error("hunter2")),
        ("Unhandled", CredentialsError::unhandled("hunter2")),
    ] {
        let explained = credentials::explain(&error, Metadata::NotAsked, Some(false), false);
        writeln!(snapshot, "{name}\n    {explained}").unwrap();
    }
    let error = CredentialsError::not_loaded("hunter2");
    let silent = credentials::explain(&error, Metadata::Silent, None, false);
    writeln!(snapshot, "the metadata service is silent\n    {silent}").unwrap();
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("aws-s3", snapshot) });
}
