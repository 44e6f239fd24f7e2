//! The whole plugin with its master key in the service.

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use conformance::{LoadedPlugin, Machine, configuration, content, section, uuid, with, without};
use fake_cloud::{BucketServer, GoogleOptions, Interceptor, Operation};
use fake_orthanc::{FakeOrthancOptions, LogLevel};
use serde_json::{Value, json};

use crate::KEY;
use crate::cloud::{self, Google};

const SIZES: [usize; 3] = [1, 300_000, 5_000_000];

/// Starts a server with one key.
pub(crate) fn server() -> Result<(GoogleOptions, BucketServer)> {
    let options = cloud::options()?;
    options.keys.rotate(KEY);
    let server = BucketServer::start_google(options.clone())?;
    Ok((options, server))
}

/// Returns the options of the key with changes of `StorageEncryption`.
fn encryption(endpoint: Option<&str>, changes: &Value) -> Value {
    let mut service = json!({ "Key": KEY });
    if let Some(endpoint) = endpoint {
        service["Endpoint"] = endpoint.into();
    }
    json!({"StorageEncryption": with(json!({"MasterKey": {"GoogleKms": service}}), changes)})
}

/// Returns Orthanc's configuration for this server with changes of `StorageEncryption`.
pub(crate) fn configured(server: &BucketServer, changes: &Value) -> Value {
    let encryption = encryption(Some(&server.endpoint()), changes);
    let section = section::<Google>(server, &json!({"EnableHttpLogs": true}));
    configuration::<Google>(with(section, &encryption))
}

/// Returns the number of requests to unwrap a key since the last call.
fn unwrapped(server: &BucketServer) -> u64 {
    let count = server.requests().of(Operation::UnwrapKey);
    server.reset_counts();
    count
}

fn read_all(plugin: &LoadedPlugin<Google>) -> Result<()> {
    for (number, size) in SIZES.into_iter().enumerate() {
        let expected = content(size);
        assert!(plugin.read(&uuid(number))? == expected, "{size}");
        for (start, length) in [(0, 1), (size / 2, size / 4), (size - 1, 1)] {
            let range = plugin.range(&uuid(number), start as u64, length)?;
            assert!(range == expected[start..start + length], "{start}");
        }
    }
    Ok(())
}

#[test]
fn attachments_are_encrypted_with_keys_of_the_service() -> Result<()> {
    let (options, server) = server()?;
    let often = configured(&server, &json!({"KeyDecayCount": 1}));
    let rarely = configured(&server, &json!({}));
    let mut plugin = LoadedPlugin::<Google>::load(server, rarely.clone())?;
    for (number, size) in SIZES.into_iter().enumerate() {
        plugin.create(&uuid(number), &content(size))?;
    }
    read_all(&plugin)?;
    assert_eq!((options.keys.plaintexts().len(), unwrapped(&plugin.server)), (1, 0));
    let mut logs = plugin.orthanc.logs();
    // As another process: the plugin knows no key.
    plugin.orthanc.reset(FakeOrthancOptions::with_configuration(rarely))?;
    options.keys.rotate(KEY);
    read_all(&plugin)?;
    assert_eq!(unwrapped(&plugin.server), 1);
    logs.extend(plugin.orthanc.logs());
    plugin.orthanc.reset(FakeOrthancOptions::with_configuration(often))?;
    let before = options.keys.plaintexts().len();
    for number in 10..13 {
        plugin.create(&uuid(number), b"content")?;
    }
    // The first key was wrapped at start.
    assert_eq!((options.keys.plaintexts().len() - before, unwrapped(&plugin.server)), (2, 0));
    read_all(&plugin)?;
    assert_eq!(unwrapped(&plugin.server), 1);
    logs.extend(plugin.orthanc.logs());
    plugin.check()?;
    let errors: Vec<_> = logs.iter().filter(|line| line.0 == LogLevel::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_no_secrets(&options, &plugin, &logs)
}

/// Checks that no line has a file key, a wrapped one or a token.
fn assert_no_secrets(
    options: &GoogleOptions,
    plugin: &LoadedPlugin<Google>,
    logs: &[(LogLevel, String)],
) -> Result<()> {
    let keys = options.keys.plaintexts();
    // One at each start, and two more.
    assert_eq!(keys.len(), 5);
    let mut secrets = vec!["Bearer ".to_owned(), "eyJ".to_owned()];
    for number in (0..3).chain(10..13) {
        let key = format!("{}.dcm.enc", uuid(number));
        let object = plugin.server.object("bucket", &key).context("not stored")?.bytes;
        // Key wrap algorithm 4, and the field: length and name of the key, ciphertext.
        assert_eq!((&object[..2], object[6]), (&b"A2"[..], 4));
        let (name, wrapped) = object[44..].split_at(KEY.len());
        assert_eq!(name, KEY.as_bytes());
        secrets.push(BASE64.encode(&wrapped[..30]));
    }
    for key in keys {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = key[..8].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        secrets.extend([BASE64.encode(&key[..30]), hex.to_uppercase(), hex, list]);
    }
    let requests = logs.iter().filter(|line| line.1.contains(":encrypt")).count();
    assert!(requests >= 4, "the log is not verbose: {requests} lines");
    for secret in secrets {
        let leak = logs.iter().find(|(_, text)| text.contains(&secret));
        assert_eq!(leak, None);
    }
    Ok(())
}

/// At the service's own address over TLS, with the tokens of a user.
#[test]
fn default_endpoint_is_that_of_google() -> Result<()> {
    let (options, server) = server()?;
    let google = Interceptor::start(server.port())?;
    let machine = Machine::new()?;
    let authority = machine.file("authority.pem", google.authority())?;
    let user = options.user.json().to_string();
    machine.file(".config/gcloud/application_default_credentials.json", &user)?;
    let machine = machine.set("HTTPS_PROXY", google.proxy());
    let own = without(section::<Google>(&server, &encryption(None, &json!({}))), &["ServiceAccountFile"]);
    let own = with(own, &json!({"Endpoint": "storage.googleapis.com"}));
    let mut configuration = configuration::<Google>(own);
    configuration["HttpsCACertificates"] = json!(authority);
    let secrets = [options.user.refresh_token.as_str(), options.user.client_secret.as_str(), "ya29."];
    let outcome = machine.run::<Google>(&configuration, &secrets)?;
    assert_eq!(outcome.errors, [""; 0]);
    let requests = server.requests();
    // One token for the bucket, one for the key.
    assert_eq!((requests.of(Operation::WrapKey), requests.of(Operation::Token)), (1, 2));
    Ok(())
}

/// The stacks of Orthanc's HTTP threads have 100 kB.
#[test]
fn small_stacks_suffice() -> Result<()> {
    let (_, server) = server()?;
    let google = Interceptor::start(server.port())?;
    let machine = Machine::new()?;
    let authority = machine.file("authority.pem", google.authority())?;
    let options = json!({"Endpoint": "storage.googleapis.com", "Proxy": google.proxy()});
    // The first key is wrapped at start, the second one for the second attachment.
    let encryption = encryption(None, &json!({"KeyDecayCount": 1}));
    let own = with(section::<Google>(&server, &encryption), &options);
    let mut configuration = configuration::<Google>(own);
    configuration["HttpsCACertificates"] = json!(authority);
    let mut plugin = LoadedPlugin::<Google>::load(server, configuration.clone())?;
    let on_small_stack = |plugin: &LoadedPlugin<Google>, work: fn(&LoadedPlugin<Google>) -> Result<()>| {
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(100 * 1024);
            let thread = thread.spawn_scoped(scope, move || work(plugin))?;
            thread.join().map_err(|_| anyhow!("panicked"))?
        })
    };
    on_small_stack(&plugin, |plugin| {
        plugin.create(&uuid(0), b"content")?;
        plugin.create(&uuid(1), b"content")
    })?;
    plugin.orthanc.reset(FakeOrthancOptions::with_configuration(configuration))?;
    on_small_stack(&plugin, |plugin| {
        assert_eq!(plugin.read(&uuid(0))?, b"content");
        Ok(())
    })
}
