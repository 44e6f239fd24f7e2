//! A snapshot of the messages about options that all clouds share.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use crypto_envelope::{FileKey, KeyService, KeyServiceError, Service, Wrapped};
use futures_util::future::BoxFuture;
use orthanc_ffi::InitializeError;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::Section;
use crate::start::section::{common, section};
use crate::{Connection, Provider, ProviderContext, bucket_name, endpoint_option};

/// A cloud with one option of each kind.
pub(crate) struct Cloud;

impl Provider for Cloud {
    const SERVER: &'static str = "a server";
    const READ_PERMISSIONS: &'static str = "permissions";
    const WRITE_PERMISSIONS: &'static str = "permissions";
    const DELETE_PERMISSIONS: &'static str = "permissions";
    const NAME: &'static CStr = c"Cloud";
    const DESCRIPTION: &'static str = "A cloud";
    const SECTION: &'static str = "Cloud";
    const KEY_SERVICE: Option<&'static str> = Some("AwsKms");
    const HTTP_LOG_OPTION: Option<&'static str> = Some("EnableSdkLogs");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Connection, InitializeError> {
        bucket_name(section, "BucketName")?;
        section.secret("Password")?;
        section.strings("Tags")?;
        if let Some(endpoint) = section.non_empty("Endpoint")? {
            endpoint_option(section, "Endpoint", &endpoint)?;
        }
        context.http()?;
        section.check_names()?;
        Err(InitializeError::new("accepted"))
    }

    fn key_service(
        service: &mut Section<'_>,
        _: &mut Section<'_>,
        _: &ProviderContext<'_>,
    ) -> Result<Arc<dyn KeyService>, InitializeError> {
        service.required("KeyId")?;
        Ok(Arc::new(Refusing))
    }
}

/// A key service.
#[derive(Debug)]
struct Refusing;

impl KeyService for Refusing {
    fn service(&self) -> Service {
        Service::AwsKms
    }

    fn has_key(&self, _: &str) -> bool {
        false
    }

    fn wrap<'a>(&'a self, _: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        Box::pin(async { Err(KeyServiceError::Refused(String::new())) })
    }

    fn unwrap<'a>(&'a self, _: &'a str, _: &'a [u8]) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        Box::pin(async { Err(KeyServiceError::Refused(String::new())) })
    }
}

/// Returns the message about a configuration, which is read as by `StoragePlugin`.
fn message(configuration: &Value, runtime: &Runtime) -> String {
    let configuration = configuration.as_object().unwrap();
    let read = || -> Result<(), InitializeError> {
        let mut section = section::<Cloud>(configuration)?.unwrap();
        let context = ProviderContext::read::<Cloud>(&mut section, configuration, runtime.handle())?;
        common::<Cloud>(&mut section, configuration, &context, &Arc::default())?;
        Cloud::connect(&mut section, &context)?;
        Ok(())
    };
    read().unwrap_err().to_string()
}

#[test]
fn messages_match_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let key_text = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let key = file("good.key", key_text);
    let short = file("short.key", "aHVudGVyMg==");
    let missing = folder.path().join("missing");
    let encryptions = [
        json!(true),
        json!({"Format": "A2"}),
        json!({"MasterKey": "hunter2"}),
        json!({"MasterKey": [3]}),
        json!({"MasterKey": [-1, key]}),
        json!({"MasterKey": [3, missing]}),
        json!({"MasterKey": [3, short]}),
        json!({"MasterKey": [3, key_text]}),
        json!({"MasterKey": [3, &key_text[1..]]}),
        json!({"MasterKey": [3, folder.path().join("no/such/folder.key")]}),
        json!({"MasterKey": [3, "/dev/zero"]}),
        json!({"MasterKey": [3, "master.key"]}),
        json!(key_text),
        json!("hunter2"),
        json!({"MasterKey": [3, key], "Format": key_text}),
        json!({"MasterKey": [3, key], "ReadFormats": "A2"}),
        json!({"MasterKey": [3, key], "ReadFormats": []}),
        json!({"MasterKey": [3, key], "ReadFormats": ["A1", "a2"]}),
        json!({"MasterKey": [3, key], "ReadFormats": ["A2"]}),
        json!({"MasterKey": [3, key], "ReadFormats": ["A1", 2]}),
        json!({"MasterKey": [3, key], "ReadFormats": ["A1"], "Format": "A2"}),
        json!({"MasterKey": [3, key], "PreviousMasterKeys": "hunter2"}),
        json!({"MasterKey": [3, key], "PreviousMasterKeys": [3, key]}),
        json!({"MasterKey": [3, key], "PreviousMasterKeys": [[7]]}),
        json!({"MasterKey": [3, key], "PreviousMasterKeys": [[3, key]]}),
        json!({"MasterKey": [3, key], "Format": "A3"}),
        json!({"MasterKey": [3, key], "MaxConcurrentInputSize": 0}),
        json!({"MasterKey": [3, key], "format": "A2"}),
        json!({"MasterKeys": [3, key]}),
        json!({"MasterKey": {}}),
        json!({"MasterKey": {"KeyId": "alias/images"}}),
        json!({"MasterKey": {"AwsKms": "alias/images"}}),
        json!({"MasterKey": {"AwsKms": {}}}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images", "keyid": "hunter2"}}}),
        json!({"MasterKey": {"AzureKeyVault": {"kid": "https://name.vault.azure.net/keys/key"}}}),
        json!({"MasterKey": [3, key], "PreviousMasterKeys": [[4, key], {"AwsKms": {}}]}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images"}}, "Format": "A1"}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images"}}, "ReadFormats": ["A1"]}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images"}}, "KeyDecayCount": 0}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images"}}, "KeyPoolSize": -1}),
        json!({"MasterKey": {"AwsKms": {"KeyId": "alias/images"}}, "PreviousMasterKeys": [[3, key], [3, key]]}),
        json!({
            "MasterKey": {"AwsKms": {"KeyId": "alias/images"}},
            "PreviousMasterKeys": [[3, key], {"AwsKms": {"KeyId": "alias/older"}}], "KeyPoolSize": 0,
        }),
        json!({"Enable": false, "MasterKy": [3, key]}),
    ];
    let mut sections = vec![
        json!(5),
        json!({}),
        json!({"BucketName": ""}),
        json!({"BucketName": 7}),
        json!({"BucketName": null}),
        json!({"BucketName": ["b"]}),
        json!({"BucketName": {}}),
        json!({"BucketName": " "}),
        json!({"BucketName": "s3://images/ct"}),
        json!({"BucketName": "arn:aws:s3:::images"}),
        json!({"BucketName": "images/ct"}),
        json!({"BuckeName": "b"}),
        json!({"bucketname": "b"}),
        json!({"StorageEncyption": {"MasterKey": [3, key]}}),
        json!({"MasterKey": [3, key]}),
        json!({"EnableSdkLogs": "yes"}),
        json!({"Password": 7}),
        json!({"Tags": "a"}),
        json!({"Tags": {"a": 1}}),
        json!({"MaxRetries": -1}),
        json!({"MaxRetries": 1.5}),
        json!({"MaxRetries": 1001}),
        json!({"StorageStructure": "x"}),
        json!({"StorageStructure": "x".repeat(81)}),
        json!({"RootPath": "/a"}),
        json!({"RootPath": "a//b"}),
        json!({"Endpoint": "a b"}),
        json!({"Endpoint": "ftp://host"}),
        json!({"Endpoint": "https://user:hunter2@host"}),
        json!({"Endpoint": "https://host/bucket"}),
        json!({"Endpoint": "https://host/?sig=hunter2"}),
        json!({"HybridMode": "WriteToFileSystem", "Offload": {"AfterDays": 30}}),
        json!({"HybridMode": "Writeback"}),
        json!({"WriteBack": {}}),
        json!({"HybridMode": "WriteToFileSystem", "WriteBack": {"MaxCacheMB": 5}}),
        json!({"HybridMode": "WriteBack", "WriteBack": true}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"MaxCacheMb": 5}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"MaxCacheMB": "5"}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"KeepFreeMB": -1}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"MaxPendingMB": 1.5}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"UploadDelay": 86401}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"Uploads": 0}}),
        json!({"HybridMode": "WriteBack", "WriteBack": {"CacheReads": "yes"}}),
        json!({"HybridMode": "WriteBack", "MaxCacheMB": 5}),
        json!({"HybridMode": "WriteBack", "WriteBack": {}}),
        json!({"Verification": true}),
        json!({"Verification": {"Schedule": "2-6"}}),
        json!({"Verification": {"EveryDays": 0}}),
        json!({"Verification": {"Depth": "deep"}}),
        json!({"Verification": {"Hours": 3}}),
        json!({"Verification": {}}),
    ];
    sections.extend(encryptions.map(|encryption| json!({"StorageEncryption": encryption})));
    let mut configurations: Vec<Value> = sections
        .into_iter()
        .map(|mut section| {
            let is_named = |options: &&mut Map<String, Value>| {
                ["BuckeName", "bucketname"].iter().any(|name| options.contains_key(*name))
            };
            if let Some(options) =
                section.as_object_mut().filter(|options| !options.is_empty() && !is_named(options))
            {
                options.entry("BucketName").or_insert(json!("b"));
            }
            json!({"Cloud": section})
        })
        .collect();
    let two = json!({"StorageEncryption": {"MasterKey": [3, key]}, "Cloud": {"StorageEncryption": {"Enable": false}}});
    configurations.push(two);
    configurations.push(json!({"StorageDirectory": 5, "Cloud": {"HybridMode": "WriteToFileSystem"}}));
    configurations.push(json!({"HttpsCACertificates": missing, "Cloud": {"BucketName": "b"}}));
    configurations.push(json!({"HttpsCACertificates": short, "Cloud": {"BucketName": "b"}}));
    let inline = "-----BEGIN CERTIFICATE-----\nhunter2";
    configurations.push(json!({"HttpsCACertificates": inline, "Cloud": {"BucketName": "b"}}));
    configurations.push(json!({"HttpProxy": "user:hunter2@:80", "Cloud": {"BucketName": "b"}}));
    configurations.push(json!({"Cloud": {"BucketName": "b", "Proxy": "user:hunter2@:80"}}));

    configurations.push(json!({"CLOUD": {}}));
    configurations.push(json!({"Cloud": {}, "StorageEncyption": {}}));
    configurations.push(json!({"Cloud": {}, "PreviousMasterkeys": []}));

    let runtime = Runtime::new().unwrap();
    let mut snapshot = String::new();
    for configuration in configurations {
        let message = message(&configuration, &runtime);
        assert!(!message.contains("hunter2") && !message.contains(&key_text[1..]), "{message}");
        writeln!(snapshot, "{configuration}\n    {message}").unwrap();
    }
    let snapshot = snapshot.replace(folder.path().to_str().unwrap(), "/folder");
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("storage-plugin", snapshot) });
}
