//! A snapshot of the messages about Azure's options.

use std::fmt::Write as _;

use serde_json::json;
use storage_plugin::connect;
use tokio::runtime::Runtime;

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
        json!({"AccountName": "hospital", "EncryptionEnabled": true}),
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
    for service in credentials::SERVICES {
        writeln!(snapshot, "{}\n    {}", service.name, service.message("refused the request")).unwrap();
    }
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("azure-blob", snapshot) });
}
