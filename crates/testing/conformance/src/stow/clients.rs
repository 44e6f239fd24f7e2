//! Real clients: curl, Orthanc's own for DICOMweb, `dicomweb-client` from PyPI, and `dicom-web` of dicom-rs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::dicom::{Study, uids};
use real_orthanc::{Orthanc, plugin_of_debian};
use serde_json::json;

use super::client::RELATED;
use super::{gateway, object_of};
use crate::Cloud;
use crate::fixture::{library, request};
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    Newest:
        curl_and_orthanc_store_instances;
    Long:
        dicomweb_client_stores_instances,
        dicom_web_stores_instances;
}

const PACKAGES: [&str; 2] = ["dicomweb-client==0.61.0", "pydicom==3.0.2"];
/// The version of `dicom-web`.
const DICOM_WEB: &str = "0.7.0";

fn curl_and_orthanc_store_instances<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let file = slices(1, 1)?.remove(0);
    let folder = tempfile::tempdir()?;
    let body = folder.path().join("body");
    fs::write(&body, [b"--frontier\r\n\r\n", &file[..], b"\r\n--frontier--\r\n"].concat())?;
    let url = format!("{}/stow-rs/studies", fixture.orthanc.url());
    let expected = fixture.bucket.requests().of(request::CREATE);
    for (number, header) in (1..).zip(["Accept: */*", "Transfer-Encoding: chunked"]) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--header", header])
            .args(["--header", &format!("Content-Type: {RELATED}"), "--data-binary"])
            .arg(format!("@{}", body.display()))
            .arg(&url)
            .output()
            .context("curl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ensure!(fixture.bucket.requests().of(request::CREATE) == expected + number, "not stored");
        let object = fixture.bucket.object(C::BUCKET, &object_of(&file)?).context("no object")?;
        ensure!(object.bytes == file, "the bytes differ");
    }

    let servers = json!({"gateway": [format!("{}/stow-rs/", fixture.orthanc.url())]});
    let sender = Orthanc::builder()
        .plugin(plugin_of_debian("libOrthancDicomWeb.so"))
        .section("DicomWeb", json!({"Enable": true, "Servers": servers}))
        .start()?;
    let mut files = slices(2, 5)?;
    files.push(Study(2).multi_frame(9)?);
    for file in &files {
        sender.rest().upload(file)?;
    }
    let stow = |resources: &str| {
        let resources = sender.rest().get_json(resources)?;
        let body = json!({"Resources": resources, "Synchronous": true});
        sender.rest().post_json("/dicom-web/servers/gateway/stow", &body)
    };
    stow("/studies")?.ok()?;
    for file in &files {
        let object = fixture.bucket.object(C::BUCKET, &object_of(file)?).context("no object")?;
        ensure!(object.bytes == *file, "the bytes differ");
    }
    // It learns of a failure.
    refuse::<C>(&fixture, &uids(&files[0])?[2]);
    let answer = stow("/studies")?;
    ensure!(answer.status >= 400, "{}", answer.text());
    Ok(())
}

/// Makes the bucket refuse an instance.
fn refuse<C: Cloud>(fixture: &Fixture<C>, instance: &str) {
    let rule = FaultRule::new(Fault::status(403, C::MISSING_PERMISSION)).on(request::CREATE).key(instance);
    fixture.bucket.faults().push(rule.times(usize::MAX));
}

fn dicomweb_client_stores_instances<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let folder = tempfile::tempdir()?;
    let mut paths = Vec::new();
    for (number, file) in slices(1, 4)?.iter().enumerate() {
        let path = folder.path().join(format!("{number}.dcm"));
        fs::write(&path, file)?;
        paths.push(path);
    }
    let refused = slices(2, 1)?.remove(0);
    refuse(&fixture, &uids(&refused)?[2]);
    let path = folder.path().join("refused.dcm");
    fs::write(&path, refused)?;
    let output = Command::new(python::<C>()?)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stow/store_with_python.py"))
        .arg(format!("{}/stow-rs", fixture.orthanc.url()))
        .arg(path)
        .args(paths)
        .env("NO_PROXY", "*")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{error}\n{}", fixture.orthanc.log());
    println!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(fixture.keys().len() == 4, "{:?}", fixture.keys());
    Ok(())
}

fn dicom_web_stores_instances<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let client = dicom_web::<C>()?;
    let folder = tempfile::tempdir()?;
    let store = |study: Option<&str>, files: &[Vec<u8>]| -> Result<(bool, String)> {
        let mut command = Command::new(&client);
        command.args(["--url", &format!("{}/stow-rs", fixture.orthanc.url()), "stow"]).env("NO_PROXY", "*");
        command.args(study.iter().flat_map(|study| ["--study", *study]));
        for (number, file) in files.iter().enumerate() {
            let path = folder.path().join(format!("{number}.dcm"));
            fs::write(&path, file)?;
            command.arg("--instances").arg(path);
        }
        let output = command.output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let files = slices(1, 4)?;
    let study = &uids(&files[0])?[0];
    for study in [None, Some(study.as_str())] {
        let (is_stored, text) = store(study, &files)?;
        ensure!(is_stored && text.contains("ReferencedSOPSequence"), "{text}\n{}", fixture.orthanc.log());
        let mut expected: Vec<_> = files.iter().map(|file| object_of(file)).collect::<Result<_>>()?;
        expected.sort();
        ensure!(fixture.keys() == expected, "{:?}", fixture.keys());
        for file in &files {
            // The client writes files anew, so that only their data sets are the same.
            let object = fixture.bucket.object(C::BUCKET, &object_of(file)?).context("no object")?;
            ensure!(object.bytes.ends_with(&file[file.len() / 2..]), "the pixels differ");
        }
        fixture.bucket.clear();
    }
    refuse(&fixture, &uids(&files[0])?[2]);
    let (is_stored, text) = store(None, &files)?;
    // Status 202 is a success for this client; the answer names the failed instance.
    ensure!(is_stored && text.contains("FailedSOPSequence"), "{text}");
    let (is_stored, text) = store(None, &files[..1])?;
    ensure!(!is_stored && text.contains("409"), "{text}");
    Ok(())
}

/// Returns Python of a virtual environment with the client.
fn python<C: Cloud>() -> Result<PathBuf> {
    let folder = installed::<C>("dicomweb-client", &PACKAGES.join("_"), |folder| {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
        let python = folder.join("bin/python");
        run(Command::new(python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))
    })?;
    Ok(folder.join("bin/python"))
}

/// Returns the program `dicom-web`.
fn dicom_web<C: Cloud>() -> Result<PathBuf> {
    let folder = installed::<C>("dicom-web", DICOM_WEB, |folder| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut install = Command::new(cargo);
        install.args(["install", "--quiet", "--locked", "--force", "--features", "cli"]);
        install.args(["--version", DICOM_WEB, "dicom-web", "--root"]).arg(folder);
        run(install.arg("--target-dir").arg(folder.join("build")))
    })?;
    Ok(folder.join("bin/dicom-web"))
}

/// Returns the folder of a client, which `install` fills once per target folder and version.
fn installed<C: Cloud>(
    name: &str,
    version: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let library = library::<C>()?;
    let target = library.parent().and_then(Path::parent).context("no target folder")?;
    let folder = target.join("tmp").join(name);
    let done = folder.join(version);
    if !done.exists() {
        // Tests run at the same time; only one may make the folder.
        fs::create_dir_all(target.join("tmp"))?;
        let lock = fs::File::create(target.join("tmp").join(format!("{name}.lock")))?;
        lock.lock()?;
        if !done.exists() {
            install(&folder)?;
            fs::write(done, "")?;
        }
    }
    Ok(folder)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
