//! Each place where Google's credentials may come from, and none.

#[path = "common/cloud.rs"]
mod cloud;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use cloud::{Google, options};
use conformance::{
    DICOM, Machine, Outcome, Setup, UUID, configuration, content, done, section, with, without,
};
use fake_cloud::{BucketServer, GoogleOptions, Interceptor, Operation};
use serde_json::{Value, json};

#[test]
fn child() -> Result<()> {
    conformance::child::<Google>()
}

/// The section without credentials.
fn bare_section(server: &BucketServer) -> Value {
    without(section::<Google>(server, &json!({})), &["ServiceAccountFile"])
}

/// Texts of the user's file, and of tokens, which must not be in a log.
fn secrets(options: &GoogleOptions) -> Vec<String> {
    let user = options.user.clone();
    let key = options.service_accounts[0].private_key_pem().lines().nth(3).unwrap_or_default().to_owned();
    vec![user.client_secret, user.refresh_token, key, "Bearer ".to_owned()]
}

/// Runs the plugin on a machine.
fn run(machine: &Machine, options: &GoogleOptions, section: Value) -> Result<Outcome> {
    let secrets = secrets(options);
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    machine.run::<Google>(section, &secrets)
}

/// Runs the plugin on a machine where it must find credentials, for which it asks so often.
fn works(
    machine: &Machine,
    server: &BucketServer,
    options: &GoogleOptions,
    section: Value,
    tokens: u64,
) -> Result<()> {
    server.reset_counts();
    let outcome = run(machine, options, section)?;
    assert_eq!(outcome.errors, [""; 0]);
    assert_eq!(server.keys("bucket").len(), 3);
    let requests = server.requests();
    // The check and three creates: none was refused first.
    assert_eq!((requests.total, requests.of(Operation::Token)), (4 + tokens, tokens));
    Ok(())
}

#[test]
fn a_service_account_is_found_in_the_environment_and_asks_no_token_service() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    let server = BucketServer::start_google(options.clone())?;
    let key = machine.file("key.json", &options.service_accounts[0].json(&server.endpoint()).to_string())?;
    let machine = machine.set("GOOGLE_APPLICATION_CREDENTIALS", key);
    works(&machine, &server, &options, bare_section(&server), 0)
}

#[test]
fn a_user_of_gcloud_is_found_in_its_folder_and_gets_tokens_of_google() -> Result<()> {
    for (file, variable) in [
        (".config/gcloud/application_default_credentials.json", None),
        ("elsewhere/application_default_credentials.json", Some("CLOUDSDK_CONFIG")),
        ("user.json", Some("GOOGLE_APPLICATION_CREDENTIALS")),
    ] {
        let (options, mut machine) = (options()?, Machine::new()?);
        let server = BucketServer::start_google(options.clone())?;
        let google = Interceptor::start(server.port())?;
        let path = machine.file(file, &options.user.json().to_string())?;
        machine = match variable {
            None => machine,
            Some(variable @ "CLOUDSDK_CONFIG") => machine.set(variable, folder_of(&path)?),
            Some(variable) => machine.set(variable, path),
        };
        // Over TLS, at the addresses of Google: the proxy leads there.
        let authority = machine.file("authority.pem", google.authority())?;
        let machine = machine.set("HTTPS_PROXY", google.proxy());
        let mut section = bare_section(&server);
        section["Endpoint"] = json!("storage.googleapis.com");
        server.reset_counts();
        let outcome = run_with_authority(&machine, &options, section, &authority)?;
        assert_eq!(outcome.errors, [""; 0]);
        assert_eq!(server.keys("bucket").len(), 3);
        assert_eq!(server.requests().of(Operation::Token), 1, "a token is kept while it is valid");
    }
    Ok(())
}

fn folder_of(path: &std::path::Path) -> Result<PathBuf> {
    Ok(path.parent().context("no folder")?.to_owned())
}

/// As [`run`], trusting one more authority.
fn run_with_authority(
    machine: &Machine,
    options: &GoogleOptions,
    section: Value,
    authority: &std::path::Path,
) -> Result<Outcome> {
    let secrets = secrets(options);
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    let section = with(section, &json!({"MaxRetries": 0}));
    let mut configuration = configuration::<Google>(section);
    configuration["HttpsCACertificates"] = json!(authority);
    machine.run_configuration::<Google>(&configuration, &secrets)
}

#[test]
fn without_any_file_the_metadata_server_gives_tokens() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    let server = BucketServer::start_google(options.clone())?;
    let machine = machine.set("GCE_METADATA_HOST", format!("127.0.0.1:{}", server.port()));
    works(&machine, &server, &options, bare_section(&server), 1)
}

#[test]
fn tokens_that_expire_soon_are_renewed() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    // Less than the margin in which they are renewed: so each request asks again.
    options.tokens.life(Duration::from_secs(60));
    let server = BucketServer::start_google(options.clone())?;
    let machine = machine.set("GCE_METADATA_HOST", format!("127.0.0.1:{}", server.port()));
    // Requests within a tenth of a second share one.
    server.latency(Duration::from_millis(150));
    let outcome = run(&machine, &options, bare_section(&server))?;
    assert_eq!(outcome.errors, [""; 0]);
    let requests = server.requests();
    assert!(requests.of(Operation::Token) > 1, "{requests:?}");
    assert_eq!(server.keys("bucket").len(), 3);
    Ok(())
}

#[test]
fn a_machine_that_is_none_of_googles_refuses_to_start_with_one_clear_line() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    let server = BucketServer::start_google(options.clone())?;
    // Nobody listens there.
    let machine = machine.set("GCE_METADATA_HOST", "127.0.0.1:9").set("GCE_METADATA_IP", "127.0.0.1:9");
    let outcome = run(&machine, &options, bare_section(&server))?;
    let line = "Google Cloud Storage: cannot check gs://bucket: no credentials: the metadata server cannot be used: cannot \
                connect: Connection refused (os error 111): name the key of a service account in ServiceAccountFile, or \
                give this machine a service account";
    assert_eq!(outcome.errors, [line]);
    assert_eq!(server.requests().total, 0);
    Ok(())
}

#[test]
fn files_that_are_of_no_use_refuse_to_start_with_one_clear_line() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    let server = BucketServer::start_google(options.clone())?;
    let broken = machine.file("broken.json", "{\"type\": \"service_account\", \"private_key\": \"hunter2")?;
    let federated = machine.file("federated.json", "{\"type\": \"external_account\"}")?;
    let option = "option GoogleCloudStorage.ServiceAccountFile names";
    for (section, expected) in [
        (
            with(bare_section(&server), &json!({"ServiceAccountFile": "/nowhere/key.json"})),
            format!(
                "{option} \"/nowhere/key.json\", which cannot be read: No such file or directory (os error 2)"
            ),
        ),
        (
            with(bare_section(&server), &json!({"ServiceAccountFile": broken})),
            format!("{option} {broken:?}, which is no JSON: download the key of the service account anew"),
        ),
        (
            with(bare_section(&server), &json!({"ServiceAccountFile": federated})),
            format!(
                "{option} {federated:?}, whose \"type\" is not known here: service_account or authorized_user is needed"
            ),
        ),
    ] {
        let outcome = run(&machine, &options, section)?;
        assert_eq!(outcome.errors, [format!("Google Cloud Storage: {expected}")]);
    }
    assert_eq!(server.requests().total, 0);
    Ok(())
}

#[test]
fn a_refusal_of_the_token_service_is_one_clear_line() -> Result<()> {
    let (options, machine) = (options()?, Machine::new()?);
    let server = BucketServer::start_google(options.clone())?;
    let google = Interceptor::start(server.port())?;
    let mut user = options.user.clone();
    user.refresh_token = "1//of-somebody-who-has-left".to_owned();
    machine.file(".config/gcloud/application_default_credentials.json", &user.json().to_string())?;
    let authority = machine.file("authority.pem", google.authority())?;
    let machine = machine.set("HTTPS_PROXY", google.proxy());
    let mut section = bare_section(&server);
    section["Endpoint"] = json!("storage.googleapis.com");
    let outcome = run_with_authority(&machine, &options, section, &authority)?;
    let [line] = outcome.errors.as_slice() else { panic!("{:#?}", outcome.errors) };
    let expected = "Google Cloud Storage: cannot check gs://bucket: no credentials: Google's token service refused: run \
                    gcloud auth application-default login again (HTTP 400 invalid_grant";
    assert!(line.starts_with(expected), "{line}");
    assert!(!line.contains("of-somebody"), "{line}");
    Ok(())
}

#[test]
fn uploads_carry_the_storage_class_and_a_checksum_that_google_compares() -> Result<()> {
    for (changes, class) in [(json!({}), None), (json!({"StorageClass": "NEARLINE"}), Some("NEARLINE"))] {
        let setup = Setup::<Google>::with(&changes)?;
        done(setup.host.create(UUID, DICOM, &content(100_000)))?;
        let stored = setup.server.object("bucket", conformance::KEY).context("nothing stored")?;
        assert_eq!(stored.storage_class.as_deref(), class);
        assert_eq!(setup.server.requests().total, 1);
    }
    Ok(())
}
