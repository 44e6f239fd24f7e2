//! A snapshot of the messages about Google's options, and about its key service.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use bucket::{Answer, Cause, Operation, StorageError};
use serde_json::{Value, json};
use storage_plugin::{Provider as _, ProviderContext, Section, connect};
use tokio::runtime::Runtime;

use crate::key_service::explain;
use crate::{Google, credentials};

const KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k";

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
    for options in [
        json!({}),
        json!({"Key": 7}),
        json!({"Key": "hunter2hunter2hunter2hunter2hunter2hunter2="}),
        json!({"Key": "projects/p/locations/l"}),
        json!({"Key": format!("{KEY}/cryptoKeyVersions/3")}),
        json!({"Key": KEY, "Endpoint": "https://host/v1"}),
        json!({"Key": KEY, "Endpoint": "http://192.0.2.1"}),
        json!({"Key": KEY, "ServiceAccountFile": "/nowhere/key.json"}),
    ] {
        let found = key_message(&options, &runtime);
        assert!(!found.contains("hunter2"), "{found}");
        let options = options.to_string().replace("hunter2", "");
        writeln!(snapshot, "GoogleKms: {options}\n    {found}").unwrap();
    }
    for error in key_service_errors() {
        writeln!(snapshot, "{}", explain(error)).unwrap();
    }
    let snapshot = snapshot.replace(folder.path().to_str().unwrap(), "/folder");
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("google-cloud", snapshot) });
}

/// The message about the options of a key.
fn key_message(options: &Value, runtime: &Runtime) -> String {
    let configuration = json!({"GoogleCloudStorage": {}, "GoogleKms": options});
    let configuration = configuration.as_object().unwrap();
    let mut own = Section::find(configuration, Google::SECTION).unwrap().unwrap();
    let context = ProviderContext::read::<Google>(&mut own, configuration, runtime.handle()).unwrap();
    let mut service = Section::find(configuration, "GoogleKms").unwrap().unwrap();
    Google::key_service(&mut service, &mut own, &context).unwrap_err().to_string()
}

fn key_service_errors() -> Vec<StorageError> {
    let target = format!("Google Cloud KMS ({KEY})");
    let refused = |operation, cause, status, code: &str, message: &str| {
        let answer = Answer {
            status,
            code: Some(code.to_owned()),
            message: Some(message.to_owned()),
            ..Answer::default()
        };
        StorageError { answer: Some(Box::new(answer)), ..StorageError::new(operation, target.clone(), cause) }
    };
    let wrap = Operation::WrapKey;
    let denied = format!("Permission 'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource '{KEY}'");
    let disabled = format!("{KEY}/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.");
    let scopes = "Request had insufficient authentication scopes.";
    let wrong = "Decryption failed: verify that 'name' refers to the correct CryptoKey.";
    vec![
        refused(wrap, Cause::Denied, 401, "UNAUTHENTICATED", "Invalid credentials."),
        refused(wrap, Cause::Denied, 403, "PERMISSION_DENIED", &denied),
        refused(wrap, Cause::Denied, 403, "PERMISSION_DENIED", scopes),
        refused(wrap, Cause::NotFound, 404, "NOT_FOUND", "CryptoKey not found."),
        refused(wrap, Cause::Refused, 400, "FAILED_PRECONDITION", &disabled),
        refused(wrap, Cause::Refused, 400, "INVALID_ARGUMENT", "The key has another purpose."),
        refused(Operation::UnwrapKey, Cause::Refused, 400, "INVALID_ARGUMENT", wrong),
        refused(wrap, Cause::Busy, 503, "UNAVAILABLE", "The service is currently unavailable."),
        StorageError::new(wrap, target.clone(), Cause::Foreign),
        StorageError::new(wrap, target.clone(), Cause::Unanswered(Duration::from_secs(20))),
    ]
}
