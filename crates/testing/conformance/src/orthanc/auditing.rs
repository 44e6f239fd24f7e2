//! The audit of Orthanc's configuration, with the documented secure configuration and with that of Debian.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use rcgen::generate_simple_self_signed;
use real_orthanc::rest::Method;
use real_orthanc::{Orthanc, configuration_of_debian};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Cloud;
use crate::fixture::{library, with};
use crate::orthanc::fixture::{Fixture, slice};

tests! {
    OneCloud:
        documented_configuration_passes,
        configuration_of_debian_has_known_findings,
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/security.md");
/// Passwords that the audit does not know.
const PASSWORDS: [(&str, &str); 2] =
    [("my-admin-password", "Jx4vQ9sR2tL7wZ1k"), ("my-password", "Bn8mT3yK6pF5hD0c")];
/// A folder on another file system than the temporary folder.
const KEY_DISK: &str = "/dev/shm";

/// Returns the blocks of the document in a language.
fn blocks(language: &str) -> Result<Vec<String>> {
    let document = fs::read_to_string(DOCUMENT)?;
    let begin = format!("```{language}\n");
    let blocks = document.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    Ok(blocks.map(str::to_owned).collect())
}

/// Returns Debian's files with options replaced, and the options in a file of their own.
fn changed(options: &Value) -> Result<Vec<(String, String)>> {
    let mut files = configuration_of_debian()?;
    for option in options.as_object().into_iter().flatten().map(|(option, _)| option) {
        for (_, text) in &mut files {
            *text = text.replace(&format!("\"{option}\""), &format!("\"{option} before the change\""));
        }
    }
    files.push(("security.json".to_owned(), options.to_string()));
    Ok(files)
}

/// The key, the script and the certificates that the samples name.
fn sample_files() -> Result<(TempDir, TempDir)> {
    let keys = tempfile::tempdir_in(KEY_DISK)?;
    fs::write(keys.path().join("master-1.key"), format!("{}=", "1".repeat(43)))?;
    let others = tempfile::tempdir()?;
    let write = |name: &str, text: &str| fs::write(others.path().join(name), text);
    write("filter.lua", blocks("lua")?.first().context("no filter")?)?;
    let certificate = generate_simple_self_signed(["orthanc".to_owned()])?;
    write("dicom.crt", &certificate.cert.pem())?;
    write("dicom.key", &certificate.signing_key.serialize_pem())?;
    write("modalities.crt", &certificate.cert.pem())?;
    Ok((keys, others))
}

/// Returns the severity of each finding that is not `ok`, and checks the counts.
fn problems(audit: &Value) -> Result<BTreeMap<String, String>> {
    let findings = audit["Findings"].as_array().context("no findings")?;
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    for (field, severity) in [("Critical", "critical"), ("Warnings", "warning"), ("Ok", "ok")] {
        let count = findings.iter().filter(|finding| finding["Severity"] == severity).count();
        ensure!(audit[field] == count, "{field}: {audit:#}");
    }
    let is_ok = |finding: &&Value| finding["Severity"] == "ok";
    let wrong = findings.iter().filter(|finding| !is_ok(finding));
    Ok(wrong.map(|finding| (text(finding, "Id"), text(finding, "Severity"))).collect())
}

/// Azure does not say that it keeps no versions.
fn unavoidable<C: Cloud>() -> BTreeMap<String, String> {
    let is_azure = C::SECTION == "AzureBlobStorage";
    is_azure.then(|| ("storage-versions".to_owned(), "warning".to_owned())).into_iter().collect()
}

fn documented_configuration_passes<C: Cloud>() -> Result<()> {
    let (keys, files) = sample_files()?;
    let bucket = C::server()?;
    let mut options = json!({});
    for block in blocks("json")? {
        options = with(options, &serde_json::from_str(&block)?);
    }
    // The section of each cloud has the same encryption.
    let section =
        options.as_object_mut().and_then(|options| options.remove("AwsS3Storage")).context("no section")?;
    let encryption = json!({"StorageEncryption": section["StorageEncryption"]});
    options[C::SECTION] = with(C::section(&bucket.endpoint()), &encryption);
    // Google's tests keep it in memory, where it has no permissions.
    if let Some(account) = options[C::SECTION]["ServiceAccountFile"].as_str() {
        let file = files.path().join("account.json");
        fs::write(&file, fs::read(account)?)?;
        options[C::SECTION]["ServiceAccountFile"] = json!(file);
    }
    let mut text = options.to_string();
    for (folder, real) in [("/etc/orthanc-keys", keys.path()), ("/etc/orthanc", files.path())] {
        text = text.replace(folder, &real.to_string_lossy());
    }
    for (example, password) in PASSWORDS {
        text = text.replace(&format!("\"{example}\""), &format!("\"{password}\""));
    }
    let builder = Orthanc::builder().complete_configuration(changed(&serde_json::from_str(&text)?)?);
    let builder = builder.login(&format!("my-admin:{}", PASSWORDS[0].1)).plugin(library::<C>()?);
    let fixture = Fixture::<C>::new(builder.as_ordinary_user().start()?, bucket);
    // As the documentation says of the folders in `/etc`, and as Debian's `/var/lib/orthanc` is.
    for folder in [fixture.orthanc.folder(), keys.path(), files.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let uploaded = fixture.rest().upload(&slice()?)?;
    let answer = fixture.rest().get("/object-storage/audit")?.ok()?;
    let audit = answer.json()?;
    ensure!(problems(&audit)? == unavoidable::<C>(), "{audit:#}\n{}", fixture.orthanc.log());
    let secrets = C::secrets().into_iter().chain(PASSWORDS.map(|(_, password)| password.to_owned()));
    for secret in secrets {
        ensure!(!answer.text().contains(&secret), "{secret} is shown");
        ensure!(!fixture.orthanc.log().contains(&secret), "{secret} is logged");
    }
    // Another audit soon after asks the server nothing.
    let (_, requests) = fixture.counted(|| fixture.rest().get_json("/object-storage/audit"))?;
    ensure!(requests.total == 0, "{requests:?}");
    let refused = fixture.rest().post("/object-storage/audit", b"")?;
    ensure!(refused.status == 405, "{refused:?}");
    expect_filter(&fixture, &uploaded.path)
}

/// Checks what each user may do.
fn expect_filter<C: Cloud>(fixture: &Fixture<C>, instance: &str) -> Result<()> {
    let url = fixture.orthanc.url().replace(&format!("my-admin:{}@", PASSWORDS[0].1), "");
    let client = |login: &str| real_orthanc::Client::new(url.replace("//", &format!("//{login}")));
    let viewer = client(&format!("my-user:{}@", PASSWORDS[1].1));
    let search = br#"{"Level": "Instance", "Query": {}}"#;
    for (method, path, body, expected) in [
        (Method::GET, instance, None, 200),
        (Method::POST, "/tools/find", Some(&search[..]), 200),
        (Method::GET, "/object-storage/status", None, 200),
        (Method::GET, "/object-storage/status/", None, 200),
        (Method::GET, "/object-storage/audit", None, 403),
        (Method::GET, "/object-storage/audit/", None, 403),
        (Method::GET, "/object-storage/audit//", None, 403),
        (Method::GET, "//object-storage//audit", None, 403),
        (Method::GET, "/object-storage/audit?x", None, 403),
        (Method::GET, "/object-storage/%61udit", None, 403),
        (Method::GET, "/instancesx", None, 403),
        (Method::POST, "/instances", Some(&b""[..]), 403),
        (Method::POST, "/object-storage/verify", Some(&b"{}"[..]), 403),
        (Method::DELETE, instance, None, 403),
    ] {
        let answer = viewer.request(method.clone(), path, &[], body)?;
        ensure!(answer.status == expected, "{method} {path}: {answer:?}");
    }
    let around = viewer.get("/instances/../object-storage/audit")?;
    ensure!(around.status != 200, "{around:?}");
    let nobody = client("").get("/object-storage/audit")?;
    ensure!(nobody.status == 401, "{nobody:?}");
    ensure!(fixture.rest().delete(instance)?.status == 200, "the administrator may not delete");
    Ok(())
}

fn configuration_of_debian_has_known_findings<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let mut files = configuration_of_debian()?;
    let section = json!({ C::SECTION: C::section(&bucket.endpoint()) });
    files.push(("section.json".to_owned(), section.to_string()));
    let builder = Orthanc::builder().complete_configuration(files).plugin(library::<C>()?);
    let fixture = Fixture::<C>::new(builder.as_ordinary_user().start()?, bucket);
    fixture.rest().upload(&slice()?)?;
    // As `/etc/orthanc` is.
    fs::set_permissions(fixture.orthanc.folder(), fs::Permissions::from_mode(0o755))?;
    let audit = fixture.rest().get_json("/object-storage/audit")?;
    let expected = [
        "dicom-always-allow-echo",
        "dicom-always-allow-store",
        "dicom-check-called-aet",
        "dicom-check-modality-host",
        "dicom-tls",
        "general-configuration-files",
        "general-limit-find-instances",
        "general-limit-find-results",
        "http-authentication",
        "http-filter",
        "http-webdav",
        "storage-encryption",
        "storage-state-directory",
    ];
    // This Debian has corrected Orthanc, which the audit does not see.
    let is_old = fixture.orthanc.version()? < [1, 12, 0];
    let expected = expected.into_iter().chain(is_old.then_some("http-write-to-file-system"));
    let expected = expected.map(|id| (id.to_owned(), "warning".to_owned()));
    let expected: BTreeMap<_, _> = expected.chain(unavoidable::<C>()).collect();
    assert_eq!(problems(&audit)?, expected, "{audit:#}");
    Ok(())
}
