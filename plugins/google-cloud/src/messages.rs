//! A snapshot of the messages about Google's options.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use storage_plugin::connect;
use tokio::runtime::Runtime;

use crate::{Google, credentials};

#[test]
fn messages_match_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    let runtime = Runtime::new().unwrap();
    let message = |section: &Value| {
        let configuration = json!({"GoogleCloudStorage": section});
        connect::<Google>(configuration.as_object().unwrap(), runtime.handle()).unwrap_err().to_string()
    };
    let mut snapshot = String::new();
    for section in [
        json!({}),
        json!({"BucketName": "gs://images"}),
        json!({"BucketName": "b", "StorageClass": "x"}),
        json!({"BucketName": "b", "Endpoint": "https://host/b"}),
        json!({"BucketName": "b", "Endpoint": "ftp://host"}),
        json!({"BucketName": "b", "Endpoint": "https://user:hunter2@host"}),
        json!({"BucketName": "b", "ServiceAccountFile": "/nowhere/key.json"}),
        json!({"BucketName": "b", "ServiceAccountFile": "{\"private_key\": \"hunter2\"}"}),
    ] {
        let found = message(&section);
        assert!(!found.contains("hunter2"), "{found}");
        writeln!(snapshot, "{section}\n    {found}").unwrap();
    }
    for content in [
        "hunter2",
        "{}",
        r#"{"type": "external_account"}"#,
        r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1"}"#,
        r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": "hunter2"}"#,
        r#"{"type": "authorized_user", "client_id": "1", "client_secret": "hunter2", "refresh_token": "r"}"#,
    ] {
        fs::write(&file, content).unwrap();
        let found = message(&json!({"BucketName": "b", "ServiceAccountFile": file}));
        assert!(!found.contains("hunter2"), "{found}");
        writeln!(snapshot, "key.json: {content}\n    {found}").unwrap();
    }
    for service in credentials::SERVICES {
        writeln!(snapshot, "{}\n    {}", service.name, service.message("refused the request")).unwrap();
    }
    let snapshot = snapshot.replace(folder.path().to_str().unwrap(), "/folder");
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("google-cloud", snapshot) });
}
