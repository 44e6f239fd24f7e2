//! A snapshot of the messages about Azure's options.

use std::fmt::Write as _;

use bucket::{Answer, Cause, Operation, StorageError};
use serde_json::{Map, Value, json};
use storage_plugin::{Section, connect};
use tokio::runtime::Runtime;

use crate::key_service::{KeyOptions, explain};
use crate::{Azure, credentials};

#[test]
fn messages_match_the_snapshot() {
    let connection_strings = [
        "hunter2",
        "AccountName=hospital",
        "AccountKey=aHVudGVyMg==",
        "BlobEndpoint=https://x;AccountKey=aHVudGVyMg==",
        "AccountName=hospital;AccountKey=hunter2!",
        "AccountName=;AccountKey=aHVudGVyMg==",
        "AccountName=a;AccountName=b",
        "AccountName=My Account;AccountKey=aHVudGVyMg==",
        "AccountName=hospital;AccountKey=aHVudGVyMg==;DefaultEndpointsProtocol=ftp",
        "AccountName=hospital;AccountKey=aHVudGVyMg==;EndpointSuffix=a b",
        "BlobEndpoint=https://user:hunter2@host;AccountName=hospital;AccountKey=aHVudGVyMg==",
        "BlobEndpoint=https://host/images;AccountName=hospital;AccountKey=aHVudGVyMg==",
        "BlobEndpoint=https://hospital.blob.core.windows.net/images;SharedAccessSignature=sv=1&sig=hunter2",
        "AccountName=hospital;AccountKey=aHVudGVyMg==;EndpointSuffix=core.windows.net/images",
        "AccountName=hospital;SharedAccessSignature=hunter2",
        "AccountName=hospital;SharedAccessSignature=sv=1",
        "UseDevelopmentStorage=false",
        "AccountName=hospital;DefaultEndpointsProtocol=https,AccountKey=hunter2",
        "AccountName=hospital;AccountKey=aHVudGVyMg==;EndpointSuffix=a AccountKey=hunter2",
    ];
    let mut sections = vec![
        json!({}),
        json!({"Connectionstring": "AccountName=hospital;AccountKey=aHVudGVyMg=="}),
        json!({"ConnectionString": 7}),
        json!({"ConnectionString": "AccountName=a", "AccountName": "hospital"}),
        json!({"AccountName": "My Account"}),
        json!({"AccountName": "hospital", "AccountKey": "hunter2!"}),
        json!({"AccountName": "hospital", "BlobEndpoint": "host?sig=hunter2"}),
        json!({"AccountName": "hospital", "BlobEndpoint": "https://host/images"}),
        json!({"AccountName": "hospital", "ContainerName": "https://hospital.blob.core.windows.net/images"}),
        json!({"AccountName": "hospital"}),
        json!({"AccountName": "hospital", "ContainerName": "Orthanc"}),
        json!({"AccountName": "hospital", "ContainerName": "AccountName=hospital;AccountKey=hunter2"}),
        json!({"AccountName": "hospital", "AccessTier": "hot"}),
    ];
    sections.extend(connection_strings.map(|string| json!({"ConnectionString": string})));
    let runtime = Runtime::new().unwrap();
    let mut snapshot = String::new();
    for section in sections {
        let configuration = json!({"AzureBlobStorage": section});
        let error = connect::<Azure>(configuration.as_object().unwrap(), runtime.handle()).unwrap_err();
        let message = error.to_string();
        assert!(!message.contains("hunter2") && !message.contains("aHVudGVyMg"), "{message}");
        writeln!(snapshot, "{section}\n    {message}").unwrap();
    }
    for options in key_options() {
        let configuration = Map::from_iter([("AzureKeyVault".to_owned(), options.clone())]);
        let mut section = Section::find(&configuration, "AzureKeyVault").unwrap().unwrap();
        let message = KeyOptions::read(&mut section).unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
        writeln!(snapshot, "{options}\n    {message}").unwrap();
    }
    for error in vault_errors() {
        writeln!(snapshot, "{:?} {:?}\n    {}", error.cause, error.status(), explain(&error)).unwrap();
    }
    for service in credentials::SERVICES {
        writeln!(snapshot, "{}\n    {}", service.name, service.message("refused the request")).unwrap();
    }
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("azure-blob", snapshot) });
}

/// Options of a key in a vault that are not valid.
fn key_options() -> Vec<Value> {
    let vault = "https://hospital.vault.azure.net";
    let kid = format!("{vault}/keys/images");
    vec![
        json!({}),
        json!({"kid": 7}),
        json!({"kid": "images"}),
        json!({"kid": "http://hospital.vault.azure.net/keys/images"}),
        json!({"kid": format!("{vault}/secrets/images")}),
        json!({"kid": "images", "baseUrl": "hospital"}),
        json!({"kid": "images/1", "baseUrl": vault}),
        json!({"kid": "https://other.vault.azure.net/keys/images", "baseUrl": vault}),
        json!({"kid": kid, "clientId": "orthanc"}),
        json!({"kid": kid, "clientSecret": "hunter2"}),
        json!({"kid": kid, "tenantId": "hospital"}),
        json!({"kid": kid, "clientId": "orthanc", "clientSecret": "hunter2", "tenantId": "https://hunter2"}),
    ]
}

/// Failures of a request to a vault.
fn vault_errors() -> Vec<StorageError> {
    let kid = "https://hospital.vault.azure.net/keys/images/1";
    let refused = |operation, cause, status| {
        let answer = Answer { status, code: Some("CODE".to_owned()), ..Answer::default() };
        StorageError { answer: Some(Box::new(answer)), ..StorageError::new(operation, kid, cause) }
    };
    vec![
        refused(Operation::WrapKey, Cause::Denied, 401),
        refused(Operation::Read, Cause::Denied, 403),
        refused(Operation::UnwrapKey, Cause::NotFound, 404),
        refused(Operation::UnwrapKey, Cause::Refused, 400),
        refused(Operation::WrapKey, Cause::Refused, 400),
        refused(Operation::WrapKey, Cause::Busy, 429),
        refused(Operation::WrapKey, Cause::Foreign, 404),
        StorageError::new(Operation::WrapKey, kid, Cause::Network("REASON".to_owned())),
    ]
}
