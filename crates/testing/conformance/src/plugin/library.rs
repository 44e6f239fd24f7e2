//! The library: its exports and dependencies, the versions of Orthanc that load it, and secrets in its log.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::{BucketServer, Fault};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, Metric, StorageAreaVersion};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{
    DICOM, LoadedPlugin, UUID, assert_no_secret, configuration, content, done, library, refusal, request,
    section, uuid, with,
};

tests! {
    EveryCloud:
        only_the_entry_points_are_exported,
        only_one_cloud_is_linked,
        verbose_log_contains_no_secret;
    OneCloud:
        supported_versions_of_orthanc_load_it,
        older_versions_of_orthanc_are_refused,
        proxy_password_is_in_no_log,
}

/// Returns the standard output of a program that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn only_the_entry_points_are_exported<C: Cloud>() -> Result<()> {
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=just-symbols"]).arg(library::<C>()?);
    let output = output(&mut nm)?;
    let symbols = output.lines().map(|symbol| symbol.split('@').next().unwrap_or(symbol));
    let functions = ["Finalize", "GetName", "GetVersion", "Initialize"];
    let expected: BTreeSet<_> = functions.map(|function| format!("OrthancPlugin{function}")).into();
    assert_eq!(symbols.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    Ok(())
}

/// Checks the packages of the library: one cloud, one TLS stack, one HTTP client.
fn only_one_cloud_is_linked<C: Cloud>() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = output(Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "tree",
        "--locked",
        "--package",
        C::PLUGIN,
        "--edges=normal",
        "--prefix=none",
        "--format={p};{f}",
    ]))?;
    let lines = tree.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once(';'));
    // As `name version`, with its features.
    let packages: BTreeSet<_> = lines.collect();
    let called = |wanted: &str| -> Vec<_> {
        let is_called = |package: &str| package.split(' ').next() == Some(wanted);
        packages.iter().filter(|(package, _)| is_called(package)).collect()
    };
    let [(_, features)] = called("object_store")[..] else { bail!("not one object_store: {packages:#?}") };
    let clouds = ["aws", "azure", "gcp"].into_iter();
    let others: Vec<_> = clouds.filter(|cloud| !C::STORE_FEATURE.starts_with(cloud)).collect();
    let features: Vec<_> = features.split(',').collect();
    assert!(features.contains(&C::STORE_FEATURE) && !features.contains(&"http"), "{features:?}");
    for feature in features.iter().filter(|feature| **feature != "aws-lc-rs") {
        assert!(!others.iter().any(|cloud| feature.starts_with(cloud)), "{feature}");
    }
    for (package, _) in &packages {
        assert!(!C::FOREIGN_PACKAGES.iter().any(|name| package.starts_with(name)), "{package}");
    }
    for other in
        ["openssl", "openssl-sys", "native-tls", "hyper-tls", "ring", "boring", "aws-smithy-http-client"]
    {
        assert_eq!(called(other).len(), 0, "{other}");
    }
    for single in
        ["rustls", "hyper-rustls", "tokio-rustls", "hyper", "reqwest", "aws-lc-rs", "aws-lc-sys", "tokio"]
    {
        assert_eq!(called(single).len(), 1, "{single}");
    }
    Ok(())
}

/// Options of an Orthanc of this version, with the plugin's section.
fn options<C: Cloud>(version: &str, server: &BucketServer) -> FakeOrthancOptions {
    let configuration = configuration::<C>(section::<C>(server, &json!({})));
    FakeOrthancOptions {
        version: version.to_owned(),
        ..FakeOrthancOptions::with_configuration(configuration)
    }
}

fn supported_versions_of_orthanc_load_it<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    // What the version has: integer metrics, names of threads, and the end of such a name.
    for (version, [has_integers, has_names, has_ends]) in [
        ("1.9.0", [false; 3]),
        ("1.10.1", [false; 3]),
        ("1.12.1", [true, false, false]),
        ("1.12.7", [true, true, false]),
        ("1.13.0", [true; 3]),
        ("mainline", [true; 3]),
    ] {
        let mut orthanc = FakeOrthanc::load(library::<C>()?, options::<C>(version, &server))?;
        assert_eq!(orthanc.name(), C::NAME);
        assert_eq!(orthanc.version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(orthanc.registered(), StorageAreaVersion::Two);
        done(orthanc.create(UUID, DICOM, b"x"))?;
        assert_eq!(done(orthanc.read_range(UUID, DICOM, 0, 1))?, b"x");
        let metrics = orthanc.metrics();
        let one = if has_integers { Metric::Integer(1) } else { Metric::Float(1.0) };
        assert_eq!(metrics.get("object_storage_create_bytes"), Some(&one), "{version}: {metrics:?}");
        let has_name =
            |orthanc: &FakeOrthanc| orthanc.thread_names().iter().any(|name| name == "OBJECT-STORAGE");
        assert_eq!(has_name(&orthanc), has_names, "{version}");
        orthanc.finalize();
        assert_eq!(has_name(&orthanc), has_names && !has_ends, "{version}");
        assert_eq!(orthanc.violations(), [""; 0]);
    }
    Ok(())
}

fn older_versions_of_orthanc_are_refused<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    for version in ["1.8.2", "1.0.0", "", "nonsense"] {
        let outcome = FakeOrthanc::load(library::<C>()?, options::<C>(version, &server));
        let line = refusal::<C, _>(outcome)?;
        assert!(line.contains("1.9.0") && line.contains(version), "{line}");
    }
    assert_eq!(server.requests().total, 0);
    Ok(())
}

/// Returns the log of a session with successful and failed operations.
fn eventful_session<C: Cloud>(server: BucketServer, section: Value) -> Result<String> {
    let plugin = LoadedPlugin::<C>::load(server, configuration::<C>(section))?;
    let bytes = content(1_000_000);
    plugin.create(UUID, &bytes)?;
    plugin.read(UUID)?;
    for (operation, fault) in [
        (request::CREATE, Fault::CloseAfterRequestBytes(1000)),
        (request::CREATE, Fault::status(403, "SignatureDoesNotMatch")),
        (request::READ, Fault::CloseAfterResponseBytes(1000)),
        (request::READ_RANGE, Fault::status(400, "InvalidToken")),
        (request::READ, Fault::CorruptResponseByte(3)),
        (request::READ, Fault::CorruptResponseByte(3)),
        (request::REMOVE, Fault::status(501, "NotImplemented")),
    ] {
        plugin.fault(operation, fault, 1);
    }
    assert!(plugin.create(&uuid(1), &bytes).is_err());
    assert!(plugin.read(UUID).is_err());
    assert!(plugin.read(UUID).is_err());
    plugin.remove(UUID)?;
    plugin.settle();
    plugin.server.stop();
    assert!(plugin.create(UUID, b"x").is_err());
    plugin.check()?;
    Ok(text(&plugin))
}

fn text<C: Cloud>(plugin: &LoadedPlugin<C>) -> String {
    plugin.orthanc.logs().into_iter().map(|(_, line)| line + "\n").collect()
}

fn verbose_log_contains_no_secret<C: Cloud>() -> Result<()> {
    for is_verbose in [true, false] {
        let (server, section) = C::with_every_secret()?;
        let options = json!({C::HTTP_LOG_OPTION: is_verbose, "MaxRetries": 1});
        let log = eventful_session::<C>(server, with(section, &options))?;
        assert_eq!(log.contains("method=PUT path="), is_verbose, "{log}");
        assert_no_secret::<C>(&log, None);
    }
    Ok(())
}

fn proxy_password_is_in_no_log<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let options = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 0});
    let mut configuration = configuration::<C>(with(C::section("https://storage.test"), &options));
    configuration["HttpProxy"] = json!(server.endpoint().replace("http://", "http://user:hunter2@"));
    // The server refuses to be a proxy.
    let plugin = LoadedPlugin::<C>::load(server, configuration)?;
    assert!(plugin.create(UUID, b"x").is_err());
    plugin.server.stop();
    assert!(plugin.create(UUID, b"x").is_err());
    let log = text(&plugin);
    assert!(log.contains("proxy: http://127.0.0.1:"), "{log}");
    // `user:hunter2` in base64 is the form in which it is sent.
    assert!(!log.contains("hunter2") && !log.contains("dXNlcjpodW50ZXIy"), "{log}");
    plugin.check()
}
