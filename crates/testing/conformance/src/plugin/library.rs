//! The library itself: what it exports, what it is made of, which hosts it loads in, and what it never tells.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::{BucketServer, Fault, FaultRule};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{
    DICOM, Setup, UUID, configuration, content, done, library, load, request, section, with,
};

tests![
    the_four_entry_points_are_all_that_is_exported,
    of_object_store_only_the_cloud_of_this_plugin_is_linked,
    there_is_one_tls_stack_and_one_http_client,
    it_loads_in_old_and_new_versions_of_orthanc,
    a_version_of_orthanc_that_is_too_old_is_refused,
    the_most_talkative_log_has_no_secret,
    an_ordinary_log_has_no_lines_of_the_http_client,
    the_password_of_a_proxy_is_in_no_log,
];

/// The standard output of a program that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Packages that the library is made of, as `name version`, each with its features.
fn packages<C: Cloud>() -> Result<BTreeSet<(String, String)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = output(Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "tree",
        "--locked",
        "--package",
        C::PLUGIN.package(),
        "--edges=normal",
        "--prefix=none",
        "--format={p};{f}",
    ]))?;
    let lines = tree.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once(';'));
    Ok(lines.map(|(package, features)| (package.to_owned(), features.to_owned())).collect())
}

fn the_four_entry_points_are_all_that_is_exported<C: Cloud>() -> Result<()> {
    let symbols = output(
        Command::new("nm")
            .args(["--dynamic", "--defined-only", "--format=just-symbols"])
            .arg(library::<C>()?),
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

fn of_object_store_only_the_cloud_of_this_plugin_is_linked<C: Cloud>() -> Result<()> {
    let packages = packages::<C>()?;
    let stores: Vec<_> =
        packages.iter().filter(|(package, _)| package.starts_with("object_store ")).collect();
    let [(_, features)] = stores.as_slice() else { anyhow::bail!("not one object_store: {stores:#?}") };
    let features: BTreeSet<_> = features.split(',').collect();
    assert!(features.contains(C::STORE_FEATURE), "{features:?}");
    let others = ["aws", "azure", "gcp"].into_iter().filter(|cloud| !C::STORE_FEATURE.starts_with(cloud));
    let others: Vec<_> = others.collect();
    let of_others = |feature: &&&str| {
        // The one is a store of its own, the other what all stores sign with.
        **feature == "http"
            || **feature != "aws-lc-rs" && others.iter().any(|cloud| feature.starts_with(cloud))
    };
    assert_eq!(features.iter().find(of_others), None);
    let foreign = |package: &str| C::FOREIGN_PACKAGES.iter().any(|name| package.starts_with(name));
    let found = packages.iter().filter(|(package, _)| foreign(package));
    assert_eq!(found.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    Ok(())
}

fn there_is_one_tls_stack_and_one_http_client<C: Cloud>() -> Result<()> {
    let packages = packages::<C>()?;
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

fn it_loads_in_old_and_new_versions_of_orthanc<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    for version in ["1.9.0", "1.10.1", "1.12.9", "mainline"] {
        let options = FakeOrthancOptions {
            version: version.to_owned(),
            ..FakeOrthancOptions::with_configuration(configuration::<C>(section::<C>(&server, &json!({}))))
        };
        let host = FakeOrthanc::load(library::<C>()?, options)?;
        assert_eq!(host.name(), C::NAME);
        assert_eq!(host.version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(host.description().as_deref(), Some(C::DESCRIPTION));
        assert_eq!(host.registered(), StorageAreaVersion::Two);
        done(host.create(UUID, DICOM, b"x"))?;
        assert_eq!(done(host.read_range(UUID, DICOM, 0, 1))?, b"x");
        assert_eq!(host.violations(), [""; 0]);
    }
    Ok(())
}

fn a_version_of_orthanc_that_is_too_old_is_refused<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let name = C::NAME;
    for version in ["1.8.2", "1.0.0", "", "nonsense"] {
        let options = FakeOrthancOptions {
            version: version.to_owned(),
            ..FakeOrthancOptions::with_configuration(configuration::<C>(section::<C>(&server, &json!({}))))
        };
        let Err(LoadError::Initialize { code: -1, logs }) = FakeOrthanc::load(library::<C>()?, options)
        else {
            anyhow::bail!("{version} is not refused");
        };
        let line = format!("{name}: Orthanc must be version 1.9.0 or newer, got '{version}'");
        assert_eq!(logs, [(LogLevel::Error, line)]);
    }
    assert_eq!(server.requests().total, 0);
    Ok(())
}

/// All that a session logs in which much goes wrong.
fn eventful_session<C: Cloud>(server: BucketServer, section: Value) -> Result<String> {
    let setup = Setup::<C>::load(server, configuration::<C>(section))?;
    done(setup.host.create(UUID, DICOM, &content(1_000_000)))?;
    done(setup.host.read_whole(UUID, DICOM))?;
    for (operation, fault) in [
        (request::CREATE, Fault::CloseAfterRequestBytes(1000)),
        (request::CREATE, Fault::status(403, "SignatureDoesNotMatch")),
        (request::READ, Fault::CloseAfterResponseBytes(1000)),
        (request::READ_RANGE, Fault::status(400, "InvalidToken")),
        (request::READ, Fault::CorruptResponseByte(3)),
        (request::REMOVE, Fault::status(501, "NotImplemented")),
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
    Ok(text(setup.host.logs()))
}

fn text(logs: Vec<(LogLevel, String)>) -> String {
    logs.into_iter().map(|line| line.1 + "\n").collect()
}

fn the_most_talkative_log_has_no_secret<C: Cloud>() -> Result<()> {
    let (server, section) = C::with_every_secret()?;
    let section = with(section, &json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1}));
    let log = eventful_session::<C>(server, section)?;
    assert!(log.contains("method=PUT path="), "the log is not talkative:\n{log}");
    for secret in C::secrets() {
        assert!(!log.contains(&secret), "{secret} is in the log:\n{log}");
    }

    // Sessions that the server never lets in.
    let mut refused = 0;
    for number in 0.. {
        let (server, section) = C::with_every_secret()?;
        let Some(refusal) = C::refusals(&server.endpoint()).into_iter().nth(number) else { break };
        let Some(wrong) = refusal.secret else { continue };
        let section = with(with(section, &json!({C::HTTP_LOG_OPTION: true})), &refusal.changes);
        let outcome = load::<C>(configuration::<C>(section))?;
        let Err(LoadError::Initialize { logs, .. }) = outcome else { bail!("not refused: {outcome:?}") };
        let log = text(logs);
        assert!(log.contains(&refusal.cause), "{log}");
        for secret in C::secrets().into_iter().chain([wrong]) {
            assert!(!log.contains(&secret), "{secret} is in the log:\n{log}");
        }
        refused += 1;
    }
    ensure!(refused > 0, "no wrong secret was tried");
    Ok(())
}

fn an_ordinary_log_has_no_lines_of_the_http_client<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let section = section::<C>(&server, &json!({"MaxRetries": 1}));
    let log = eventful_session::<C>(server, section)?;
    assert!(!log.contains("method="), "{log}");
    Ok(())
}

fn the_password_of_a_proxy_is_in_no_log<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let options = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 0});
    let mut configuration = configuration::<C>(with(C::section("https://storage.test"), &options));
    let proxy = server.endpoint().replace("http://", "http://user:hunter2@");
    configuration["HttpProxy"] = json!(proxy);
    // The server is no proxy for TLS and refuses; then it is away.
    let setup = Setup::<C>::load(server, configuration)?;
    assert!(setup.host.create(UUID, DICOM, b"x").is_err());
    setup.server.stop();
    assert!(setup.host.create(UUID, DICOM, b"x").is_err());
    let log = text(setup.host.logs());
    // Also as it is sent: base64 of user:hunter2.
    assert!(!log.contains("hunter2") && !log.contains("dXNlcjpodW50ZXIy"), "{log}");
    setup.check()
}
