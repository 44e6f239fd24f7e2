//! The plugin with a master key in Azure Key Vault.

#[path = "common/cloud.rs"]
mod cloud;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result};
use cloud::Azure;
use cloud::key_server::vault::{HOST, Setup};
use conformance::codes::STORAGE_AREA_PLUGIN;
use conformance::{
    Cloud, DICOM, LoadedPlugin, Machine, Request, SmallServer, configuration, content, section, uuid, with,
    without,
};
use fake_cloud::VaultFault::Status;
use fake_cloud::VaultOperation::{Token, UnwrapKey, WrapKey};
use fake_orthanc::FakeOrthancOptions;
use serde_json::{Value, json};

const ASSERTION: &str = "federated-token-of-the-pod";

#[test]
fn child() -> Result<()> {
    conformance::child::<Azure>()
}

/// A plugin and its configuration.
struct Loaded {
    plugin: LoadedPlugin<Azure>,
    configuration: Value,
}

impl Loaded {
    fn start(setup: &Setup, encryption: &Value) -> Result<Self> {
        let server = Azure::server()?;
        let encryption = with(json!({"MasterKey": {"AzureKeyVault": setup.options()}}), encryption);
        let options = json!({"StorageEncryption": encryption, "EnableHttpLogs": true, "MaxRetries": 1});
        let configuration = setup.reach(configuration::<Azure>(section::<Azure>(&server, &options)));
        let plugin = LoadedPlugin::load(server, configuration.clone())?;
        Ok(Self { plugin, configuration })
    }

    fn restart(&mut self) -> Result<()> {
        let options = FakeOrthancOptions::with_configuration(self.configuration.clone());
        self.plugin.orthanc.reset(options)?;
        Ok(())
    }
}

#[test]
fn attachments_come_back() -> Result<()> {
    const SIZE: usize = 200_000;
    let setup = Setup::new()?;
    let mut loaded = Loaded::start(&setup, &json!({}))?;
    for number in 0..3 {
        loaded.plugin.create(&uuid(number), &content(SIZE))?;
    }
    // One file key serves a thousand objects.
    assert_eq!(setup.vault.take_operations(), [Token, WrapKey]);
    for starts in 1..=2 {
        for number in 0..3 {
            assert!(loaded.plugin.read(&uuid(number))? == content(SIZE));
            assert_eq!(loaded.plugin.range(&uuid(number), 70_000, 1000)?, content(SIZE)[70_000..71_000]);
        }
        // Each start asks for the first file key of new objects.
        let expected = if starts == 1 { &[][..] } else { &[Token, WrapKey, UnwrapKey] };
        assert_eq!(setup.vault.take_operations(), expected, "start {starts}");
        let logs = format!("{:?}", loaded.plugin.orthanc.logs());
        for secret in [setup.client.secret.as_str(), "eyJ", "Bearer "] {
            assert!(!logs.contains(secret), "{secret} is in the log");
        }
        loaded.plugin.check()?;
        loaded.restart()?;
    }
    let [(_, object), ..] = &objects(&loaded)?[..] else { anyhow::bail!("no object") };
    let field = [&[u8::try_from(setup.kid.len())?, 0], setup.kid.as_bytes()].concat();
    assert_eq!((&object[..2], object[6], &object[42..42 + field.len()]), (&b"A2"[..], 2, &field[..]));
    Ok(())
}

fn objects(loaded: &Loaded) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |name: String| {
        let object = loaded.plugin.server.object(Azure::BUCKET, &name).context("no object")?;
        Ok((name, object.bytes.to_vec()))
    };
    loaded.plugin.stored().into_iter().map(read).collect()
}

#[test]
fn each_object_may_have_a_key_of_its_own() -> Result<()> {
    let setup = Setup::new()?;
    let mut loaded = Loaded::start(&setup, &json!({"KeyDecayCount": 1, "KeyPoolSize": 0}))?;
    for number in 0..3 {
        loaded.plugin.create(&uuid(number), b"content")?;
    }
    // The first one was only to see whether the vault works.
    assert_eq!(setup.vault.take_operations(), [Token, WrapKey, WrapKey, WrapKey, WrapKey]);
    loaded.restart()?;
    for number in 0..3 {
        assert_eq!(loaded.plugin.read(&uuid(number))?, b"content");
    }
    assert_eq!(setup.vault.take_operations(), [Token, WrapKey, UnwrapKey, UnwrapKey, UnwrapKey]);
    loaded.plugin.check()
}

#[test]
fn outage_of_the_vault_passes() -> Result<()> {
    let setup = Setup::new()?;
    // Two attempts at start, and two of the first store.
    setup.vault.fault(WrapKey, &Status(503, None), 4);
    let loaded = Loaded::start(&setup, &json!({}))?;
    assert_eq!(loaded.plugin.orthanc.create(&uuid(1), DICOM, b"content"), Err(STORAGE_AREA_PLUGIN));
    let error = loaded.plugin.new_error()?;
    assert!(
        error.contains("Azure Key Vault: cannot wrap a file key with") && error.contains("HTTP 503"),
        "{error}"
    );
    assert_eq!(loaded.plugin.stored(), [""; 0]);
    loaded.plugin.create(&uuid(1), b"content")?;
    assert_eq!(loaded.plugin.read(&uuid(1))?, b"content");
    loaded.plugin.check()
}

/// Returns an envelope with another key wrap algorithm and wrapped key.
fn with_wrap(object: &[u8], algorithm: u8, field: &[u8]) -> Result<Vec<u8>> {
    let old = usize::from(u16::from_le_bytes([object[8], object[9]]));
    let len = u16::try_from(field.len())?.to_le_bytes();
    let start = [&object[..6], &[algorithm], &object[7..8], &len, &object[10..42]].concat();
    Ok([&start, field, &object[42 + old..]].concat())
}

/// Returns the field of a wrapped key with the name of its key.
fn named(kid: &str, wrapped: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(kid.len())?.to_le_bytes();
    Ok([&len, kid.as_bytes(), wrapped].concat())
}

/// Whoever can write to the container can alter headers.
#[test]
fn headers_cannot_name_other_keys() -> Result<()> {
    const SIZE: usize = 200_000;
    let setup = Setup::new()?;
    let mut loaded = Loaded::start(&setup, &json!({}))?;
    loaded.plugin.create(&uuid(1), &content(SIZE))?;
    loaded.restart()?;
    let _ = setup.vault.take_operations();
    let [(name, object)] = &objects(&loaded)?[..] else { anyhow::bail!("not one object") };
    let wrapped = &object[42 + 2 + setup.kid.len()..][..256];
    assert!(with_wrap(object, 2, &named(&setup.kid, wrapped)?)? == *object);
    let google = "projects/attacker/locations/l/keyRings/r/cryptoKeys/k";
    let other = setup.vault.create_key("images")?;
    let version = setup.kid.rsplit('/').next().unwrap_or_default();
    let none = "not configured";
    for (algorithm, field, expected, unwraps) in [
        (2, named(&setup.kid.replace(HOST, "attacker.example"), wrapped)?, none, 0),
        (2, named(&setup.kid.replace(HOST, "other.vault.azure.net"), wrapped)?, none, 0),
        (2, named(&setup.kid.replace(HOST, &format!("{HOST}@attacker.example")), wrapped)?, none, 0),
        (2, named(&format!("https://{HOST}/keys/other/{version}"), wrapped)?, none, 0),
        (2, named(&"x".repeat(60_000), wrapped)?, none, 0),
        (2, named("images\nforged", wrapped)?, "(imagesforged…), which is not configured", 0),
        (3, wrapped.to_vec(), none, 0),
        (3, b"arn:aws:kms:eu-central-1:111122223333:key/attacker".to_vec(), none, 0),
        (3, vec![7; 65_535], none, 0),
        (4, named(google, wrapped)?, none, 0),
        (4, named(&setup.kid, wrapped)?, none, 0),
        // The vault has these versions.
        (2, named(&setup.kid.replace(version, "0123"), wrapped)?, "KeyNotFound", 1),
        (2, named(&setup.kid.replace(version, &other), wrapped)?, "another key", 1),
        (2, named(&setup.kid, &[7; 256])?, "another key", 1),
        (2, named(&setup.kid, &vec![7; 65_000 - setup.kid.len()])?, "another key", 1),
        (2, named(&setup.kid, b"")?, "", 0),
        (2, b"\xff\xff".to_vec(), "", 0),
        (2, b"".to_vec(), "", 0),
        (4, b"\x01".to_vec(), "", 0),
        (0, wrapped.to_vec(), "", 0),
        (5, wrapped.to_vec(), "", 0),
        (255, wrapped.to_vec(), "", 0),
    ] {
        loaded.plugin.insert(name, with_wrap(object, algorithm, &field)?);
        let whole = || loaded.plugin.orthanc.read_whole(&uuid(1), DICOM);
        let range = |start| loaded.plugin.orthanc.read_range(&uuid(1), DICOM, start, 10);
        for read in [&whole as &dyn Fn() -> _, &|| range(0), &|| range(150_000)] {
            let outcome = read();
            assert!(outcome.is_err(), "{algorithm} {expected}");
            let error = loaded.plugin.new_error()?;
            assert!(error.contains(expected) && error.contains(name), "{algorithm} {expected}: {error}");
            assert!(error.len() < 1000, "{} bytes", error.len());
            assert_eq!(setup.count(UnwrapKey), unwraps, "{algorithm} {expected}");
        }
    }
    assert!(setup.hosts().is_empty());
    loaded.plugin.insert(name, object.clone());
    assert!(loaded.plugin.read(&uuid(1))? == content(SIZE));
    loaded.plugin.check()
}

/// Each byte of the header, and the length of the object, is bound to the content.
#[test]
fn damaged_headers_are_errors() -> Result<()> {
    let setup = Setup::new()?;
    let loaded = Loaded::start(&setup, &json!({}))?;
    loaded.plugin.create(&uuid(1), b"content")?;
    let [(name, object)] = &objects(&loaded)?[..] else { anyhow::bail!("not one object") };
    let expect_error = |damaged: Vec<u8>, place: usize| {
        loaded.plugin.insert(name, damaged);
        assert!(loaded.plugin.orthanc.read_whole(&uuid(1), DICOM).is_err(), "{place}");
        assert!(loaded.plugin.orthanc.read_range(&uuid(1), DICOM, 1, 3).is_err(), "{place}");
    };
    for place in (0..object.len()).step_by(7).chain(0..12) {
        let mut damaged = object.clone();
        damaged[place] ^= 1 << (place % 8);
        expect_error(damaged, place);
        expect_error(object[..place].to_vec(), place);
    }
    assert_eq!(setup.hosts(), ["login.microsoftonline.com", HOST]);
    loaded.plugin.check()
}

/// Runs the plugin on a machine with an identity, and stores three attachments.
fn works(setup: &Setup, machine: &Machine) -> Result<()> {
    let server = Azure::server()?;
    let key = without(setup.options(), &["clientId", "clientSecret", "tenantId"]);
    let options = json!({"StorageEncryption": {"MasterKey": {"AzureKeyVault": key}}, "EnableHttpLogs": true});
    let configuration = setup.reach(configuration::<Azure>(section::<Azure>(&server, &options)));
    let outcome = machine.run::<Azure>(&configuration, &[ASSERTION, "eyJ", "Bearer "])?;
    assert_eq!(outcome.errors, [""; 0]);
    assert_eq!(setup.vault.take_operations(), [WrapKey]);
    Ok(())
}

#[test]
fn managed_identity_has_a_token_for_the_vault() -> Result<()> {
    let setup = Setup::new()?;
    let answer =
        json!({"access_token": setup.vault.token("https://vault.azure.net"), "expires_on": "9999999999"});
    let service = SmallServer::start(move |request: &Request| {
        let is_valid = request.target.contains("resource=https%3A%2F%2Fvault.azure.net&client_id=chosen");
        if is_valid { (200, answer.to_string()) } else { (400, String::new()) }
    })?;
    let machine =
        Machine::new()?.set("IDENTITY_ENDPOINT", service.url("/msi")).set("AZURE_CLIENT_ID", "chosen");
    works(&setup, &machine)?;
    assert_eq!(service.requests().len(), 1);
    Ok(())
}

#[test]
fn workload_identity_has_a_token_for_the_vault() -> Result<()> {
    let setup = Setup::new()?;
    let answer = json!({"access_token": setup.vault.token("https://vault.azure.net"), "expires_in": 3599});
    let entra = SmallServer::start(move |request: &Request| {
        let is_valid = request.target == "POST /hospital/oauth2/v2.0/token"
            && request.body.contains("client_assertion=federated-token-of-the-pod&")
            && request.body.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default");
        if is_valid { (200, answer.to_string()) } else { (401, String::new()) }
    })?;
    let machine = Machine::new()?
        .set("AZURE_TENANT_ID", "hospital")
        .set("AZURE_CLIENT_ID", "orthanc")
        .set("AZURE_AUTHORITY_HOST", entra.url("/"));
    let file = machine.file("token", ASSERTION)?;
    works(&setup, &machine.set("AZURE_FEDERATED_TOKEN_FILE", file))?;
    assert_eq!(entra.requests().len(), 1);
    Ok(())
}

#[test]
fn azure_cli_has_a_token_for_the_vault() -> Result<()> {
    let setup = Setup::new()?;
    let machine = Machine::new()?;
    let answer =
        json!({"accessToken": setup.vault.token("https://vault.azure.net"), "expires_on": 9_999_999_999_u64});
    let answer = machine.file("answer.json", &answer.to_string())?;
    let script = format!("#!/bin/sh\necho \"$@\" >> \"$0.arguments\"\ncat {}\n", answer.display());
    let program = machine.file("bin/az", &script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/bin:/bin", program.parent().context("no folder")?.display());
    // No service listens at the address of the managed identity.
    let machine = machine.set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/").set("PATH", path);
    works(&setup, &machine)?;
    let arguments = fs::read_to_string(program.with_extension("arguments"))?;
    assert_eq!(arguments, "account get-access-token --output json --resource https://vault.azure.net\n");
    Ok(())
}
