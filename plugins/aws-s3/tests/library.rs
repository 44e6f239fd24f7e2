//! The library itself: what it exports, what it is made of, which hosts it loads in, and what it never tells.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{DICOM, STORAGE_AREA_PLUGIN, Setup, UUID, configuration, content, done, library, section, with};
use serde_json::{Value, json};
use test_bucket::{BucketServer, Fault, FaultRule, Operation, Options};
use test_host::{HostOptions, LoadError, LogLevel, StorageAreaVersion, TestHost};

/// The standard output of a program that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Packages that the library is made of, as `name version`, each with its features.
fn packages() -> Result<BTreeSet<(String, String)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = output(Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "tree",
        "--locked",
        "--package=orthanc-aws-s3-storage",
        "--edges=normal",
        "--prefix=none",
        "--format={p};{f}",
    ]))?;
    let lines = tree.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once(';'));
    Ok(lines.map(|(package, features)| (package.to_owned(), features.to_owned())).collect())
}

#[test]
#[cfg(target_os = "linux")]
fn the_four_entry_points_are_all_that_is_exported() -> Result<()> {
    let symbols = output(
        Command::new("nm").args(["--dynamic", "--defined-only", "--format=just-symbols"]).arg(library()?),
    )?;
    let symbols: BTreeSet<_> =
        symbols.lines().map(|symbol| symbol.split('@').next().unwrap_or(symbol)).collect();
    let entry_points = [
        "OrthancPluginFinalize",
        "OrthancPluginGetName",
        "OrthancPluginGetVersion",
        "OrthancPluginInitialize",
    ];
    assert_eq!(symbols, BTreeSet::from(entry_points));
    Ok(())
}

#[test]
fn of_object_store_only_the_cloud_of_this_plugin_is_linked() -> Result<()> {
    let packages = packages()?;
    let stores: Vec<_> =
        packages.iter().filter(|(package, _)| package.starts_with("object_store ")).collect();
    let [(_, features)] = stores.as_slice() else { anyhow::bail!("not one object_store: {stores:#?}") };
    let features: BTreeSet<_> = features.split(',').collect();
    assert!(features.contains("aws-base"), "{features:?}");
    let of_others =
        |feature: &&&str| **feature == "http" || feature.starts_with("azure") || feature.starts_with("gcp");
    assert_eq!(features.iter().find(of_others), None);
    let forbidden = ["rusoto", "azure", "google-cloud", "gcp"];
    let found = packages.iter().filter(|(package, _)| forbidden.iter().any(|name| package.starts_with(name)));
    assert_eq!(found.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    Ok(())
}

#[test]
fn there_is_one_tls_stack_and_one_http_client() -> Result<()> {
    let packages = packages()?;
    let name = |package: &str| package.split(' ').next().unwrap_or_default().to_owned();
    let versions = |wanted: &str| packages.iter().filter(|(package, _)| name(package) == wanted).count();
    for other in
        ["openssl", "openssl-sys", "native-tls", "hyper-tls", "ring", "boring", "aws-smithy-http-client"]
    {
        assert_eq!(versions(other), 0, "{other}");
    }
    for single in
        ["rustls", "hyper-rustls", "tokio-rustls", "hyper", "reqwest", "aws-lc-rs", "aws-lc-sys", "tokio"]
    {
        assert_eq!(versions(single), 1, "{single}");
    }
    Ok(())
}

#[test]
fn it_loads_in_old_and_new_versions_of_orthanc() -> Result<()> {
    let server = BucketServer::start(Options::default())?;
    for version in ["1.9.0", "1.10.1", "1.12.9", "mainline"] {
        let options = HostOptions {
            version: version.to_owned(),
            ..HostOptions::with_configuration(configuration(&section(&server)))
        };
        let host = TestHost::load(library()?, options)?;
        assert_eq!(host.name(), "AWS S3 Storage");
        assert_eq!(host.version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(host.description().as_deref(), Some("Stores the Orthanc storage area in AWS S3"));
        assert_eq!(host.registered(), StorageAreaVersion::Two);
        done(host.create(UUID, DICOM, b"x"))?;
        assert_eq!(done(host.read_range(UUID, DICOM, 0, 1))?, b"x");
        assert_eq!(host.violations(), [""; 0]);
    }
    Ok(())
}

#[test]
fn a_version_of_orthanc_that_is_too_old_is_refused() -> Result<()> {
    let server = BucketServer::start(Options::default())?;
    for version in ["1.8.2", "1.0.0", "", "nonsense"] {
        let options = HostOptions {
            version: version.to_owned(),
            ..HostOptions::with_configuration(configuration(&section(&server)))
        };
        let Err(LoadError::Initialize { code: -1, logs }) = TestHost::load(library()?, options) else {
            anyhow::bail!("{version} is not refused");
        };
        let line = format!("AWS S3 Storage: Orthanc 1.9.0 or newer is needed, this is version '{version}'");
        assert_eq!(logs, [(LogLevel::Error, line)]);
    }
    assert_eq!(server.requests().total, 0);
    Ok(())
}

/// All that a session logs in which much goes wrong.
fn eventful_session(server: BucketServer, options: &Value) -> Result<String> {
    let section = with(section(&server), options);
    let setup = Setup::load(server, configuration(&section))?;
    done(setup.host.create(UUID, DICOM, &content(1_000_000)))?;
    done(setup.host.read_whole(UUID, DICOM))?;
    for (operation, fault) in [
        (Operation::PutObject, Fault::CloseAfterRequestBytes(1000)),
        (Operation::PutObject, Fault::status(403, "SignatureDoesNotMatch")),
        (Operation::GetObject, Fault::CloseAfterResponseBytes(1000)),
        (Operation::GetObjectRange, Fault::status(400, "InvalidToken")),
        (Operation::GetObject, Fault::CorruptResponseByte(3)),
        (Operation::DeleteObject, Fault::status(501, "NotImplemented")),
    ] {
        setup.server.faults().push(FaultRule::new(fault).on(operation));
    }
    assert_eq!(setup.host.create(UUID, DICOM, &content(1_000_000)), Err(STORAGE_AREA_PLUGIN));
    assert!(setup.host.read_whole(UUID, DICOM).is_err());
    assert!(setup.host.read_whole(UUID, DICOM).is_err());
    assert!(setup.host.remove(UUID, DICOM).is_err());
    done(setup.host.remove(UUID, DICOM))?;
    setup.server.stop();
    assert!(setup.host.create(UUID, DICOM, b"x").is_err());
    setup.check()?;
    Ok(setup.host.logs().into_iter().map(|line| line.1 + "\n").collect())
}

#[test]
fn the_most_talkative_log_has_no_secret() -> Result<()> {
    let (secret_key, token) = ("secret/key+0123456789", "session-token//=");
    let options = Options {
        secret_key: secret_key.to_owned(),
        session_token: Some(token.to_owned()),
        ..Options::default()
    };
    let section = json!({
        "SecretKey": secret_key, "SessionToken": token, "EnableAwsSdkLogs": true, "MaxRetries": 1,
    });
    let log = eventful_session(BucketServer::start(options.clone())?, &section)?;
    assert!(log.contains("method=PUT path="), "the log is not talkative:\n{log}");
    let hidden = [secret_key, token, "test-access-key", "Signature=", "AWS4-HMAC"];
    for secret in hidden {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }

    // A session that the server never lets in.
    let server = BucketServer::start(options)?;
    let wrong = "another/secret+key";
    let section = with(common::section(&server), &with(section, &json!({"SecretKey": wrong})));
    let loaded = TestHost::load(library()?, HostOptions::with_configuration(configuration(&section)));
    let Err(LoadError::Initialize { logs, .. }) = loaded else { anyhow::bail!("not refused") };
    let log: String = logs.into_iter().map(|line| line.1 + "\n").collect();
    assert!(log.contains("SignatureDoesNotMatch"), "{log}");
    for secret in hidden.into_iter().chain([wrong]) {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
    Ok(())
}

#[test]
fn an_ordinary_log_has_no_lines_of_the_http_client() -> Result<()> {
    let log = eventful_session(BucketServer::start(Options::default())?, &json!({"MaxRetries": 1}))?;
    assert!(!log.contains("method="), "{log}");
    Ok(())
}

#[test]
fn the_password_of_a_proxy_is_in_no_log() -> Result<()> {
    let server = BucketServer::start(Options::default())?;
    let options = json!({"Endpoint": "https://s3.test", "EnableAwsSdkLogs": true, "MaxRetries": 0});
    let mut configuration = configuration(&with(section(&server), &options));
    let proxy = server.endpoint().replace("http://", "http://user:hunter2@");
    configuration["HttpProxy"] = json!(proxy);
    // The server is no proxy for TLS and refuses; then it is away.
    let setup = Setup::load(server, configuration)?;
    assert!(setup.host.create(UUID, DICOM, b"x").is_err());
    setup.server.stop();
    assert!(setup.host.create(UUID, DICOM, b"x").is_err());
    let log: String = setup.host.logs().into_iter().map(|line| line.1 + "\n").collect();
    // Also as it is sent: base64 of user:hunter2.
    assert!(!log.contains("hunter2") && !log.contains("dXNlcjpodW50ZXIy"), "{log}");
    setup.check()
}
