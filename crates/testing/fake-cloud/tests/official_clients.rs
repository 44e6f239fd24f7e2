//! The clients of Microsoft and Google work with the local key services.
//!
//! These tests require `python3` with `venv`, and install packages from PyPI once per target folder. Only the long run
//! (`cargo xtask test --long`) has them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_cloud::{BucketServer, CRYPTO_KEY, GoogleOptions, KeyVault, Operation, VaultClient, VaultOperation};
use libtest_mimic::{Arguments, Trial};

/// The environment variable that selects the long run, with the value `long`.
const TESTS_VARIABLE: &str = "ORTHANC_TESTS";

const OF_MICROSOFT: &[&str] = &["azure-keyvault-keys==4.11.3", "azure-identity==1.27.0"];
const OF_GOOGLE: &[&str] = &["google-cloud-kms==3.18.0", "google-crc32c==1.9.0", "requests==2.34.2"];

fn main() {
    let tests: [(&str, fn()); 2] = [
        ("client_of_microsoft_wraps_and_unwraps", client_of_microsoft_wraps_and_unwraps),
        ("client_of_google_wraps_and_unwraps", client_of_google_wraps_and_unwraps),
    ];
    let is_long = std::env::var(TESTS_VARIABLE).is_ok_and(|value| value == "long");
    let trial = |(name, test): (&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = tests.into_iter().filter(|_| is_long).map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns Python of a virtual environment with the packages, which is created once per target folder.
fn python(name: &str, packages: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = folder.join("bin/python");
    let done = folder.join(packages.join("_"));
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages));
        fs::write(done, "").unwrap();
    }
    python
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn client_of_microsoft_wraps_and_unwraps() {
    let client = VaultClient::default();
    let vault = KeyVault::start(client.clone()).unwrap();
    vault.create_key("images").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    fs::write(&authority, vault.authority()).unwrap();
    run(Command::new(python("key-vault-client", OF_MICROSOFT))
        .arg(script("key_vault_client.py"))
        .args(["https://hospital.vault.azure.net", "images", &client.tenant, &client.id, &client.secret])
        .arg(authority)
        .env("HTTPS_PROXY", vault.proxy())
        .env_remove("NO_PROXY"));
    let operations = vault.take_operations();
    let count = |operation| operations.iter().filter(|other| **other == operation).count();
    let [get, wrap, unwrap] =
        [VaultOperation::GetKey, VaultOperation::WrapKey, VaultOperation::UnwrapKey].map(count);
    assert_eq!((get, wrap, unwrap), (1, 1, 3), "{operations:?}");
}

fn client_of_google_wraps_and_unwraps() {
    let options = GoogleOptions::new().unwrap();
    options.keys.rotate(CRYPTO_KEY);
    let ciphertext = options.keys.encrypt(CRYPTO_KEY, &[7; 32], b"orthanc-object-storage A2").unwrap();
    options.keys.rotate(CRYPTO_KEY);
    let server = BucketServer::start_google(options.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let account = folder.path().join("account.json");
    fs::write(&account, options.service_accounts[0].json(&server.endpoint()).to_string()).unwrap();
    let hex: String = ciphertext.iter().map(|byte| format!("{byte:02x}")).collect();
    run(Command::new(python("google-kms-client", OF_GOOGLE))
        .arg(script("google_kms_client.py"))
        .args([&server.port().to_string(), CRYPTO_KEY])
        .arg(account)
        .arg(hex)
        .env("NO_PROXY", "*"));
    let counts = server.requests();
    assert_eq!((counts.of(Operation::WrapKey), counts.of(Operation::UnwrapKey)), (2, 4));
}
