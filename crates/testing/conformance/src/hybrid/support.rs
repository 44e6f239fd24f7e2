//! What the tests of hybrid storage have in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::Orthanc;
use real_orthanc::rest::Uploaded;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{library, request};
use crate::orthanc::fixture::{Fixture, slices};

/// How long a job may take.
pub(crate) const JOB: Duration = Duration::from_secs(60);

/// A master key in a file, and the section that names it.
pub(crate) struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")?;
        Ok(Self { folder })
    }

    /// `StorageEncryption` with this format.
    pub(crate) fn section(&self, format: &str) -> Value {
        json!({"MasterKey": [7, self.folder.path().join("key")], "Format": format, "ReadUnencrypted": true})
    }
}

/// All files under a folder, relative, in order. Folders that are empty count with a slash at their end.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, root: &Path, found: &mut Vec<String>) {
        let entries: Vec<_> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        if entries.is_empty() && folder != root {
            found.push(format!("{}/", folder.strip_prefix(root).unwrap_or(folder).display()));
        }
        for path in entries {
            if path.is_dir() {
                collect(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.sort();
    found
}

/// The files that hold attachments, and nothing else that may be in `StorageDirectory`.
pub(crate) fn stored_files(orthanc: &Orthanc) -> Vec<String> {
    let mut found = files(&orthanc.storage_folder());
    // Where files are before they have their names.
    found.retain(|name| name != ".orthanc-object-storage/");
    found
}

/// Where Orthanc files an attachment.
pub(crate) fn path_of(orthanc: &Orthanc, uuid: &str) -> PathBuf {
    orthanc.storage_folder().join(&uuid[0..2]).join(&uuid[2..4]).join(uuid)
}

/// The UUID of an instance's DICOM file.
pub(crate) fn uuid_of<C: Cloud>(fixture: &Fixture<C>, instance: &str) -> Result<String> {
    let info = fixture.rest().get_json(&format!("/instances/{instance}/attachments/dicom/info"))?;
    Ok(info["Uuid"].as_str().context("no Uuid")?.to_owned())
}

/// Uploads a study. Returns what Orthanc says of each instance, and its file.
pub(crate) fn upload<C: Cloud>(
    fixture: &Fixture<C>,
    study: u64,
    count: u32,
) -> Result<Vec<(Uploaded, Vec<u8>)>> {
    slices(study, count)?.into_iter().map(|file| Ok((fixture.rest().upload(&file)?, file))).collect()
}

/// Moves resources and waits.
pub(crate) fn move_to<C: Cloud>(fixture: &Fixture<C>, target: &str, resources: &[&str]) -> Result<Value> {
    let body = json!({"Resources": resources, "TargetStorage": target});
    Ok(fixture.rest().post_json("/move-storage", &body)?.ok()?.json()?)
}

/// Starts a job that moves resources. Returns its id.
pub(crate) fn start_moving<C: Cloud>(
    fixture: &Fixture<C>,
    target: &str,
    resources: &[&str],
) -> Result<String> {
    let body = json!({"Resources": resources, "TargetStorage": target, "Asynchronous": true});
    let answer = fixture.rest().post_json("/move-storage", &body)?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

/// Where each attachment of a resource is.
pub(crate) fn locations<C: Cloud>(fixture: &Fixture<C>, resource: &str) -> Result<Vec<String>> {
    let locations = fixture.rest().get_json(&format!("/object-storage/locations/{resource}"))?;
    let locations = locations.as_array().context("no list")?;
    Ok(locations.iter().map(|location| location["Location"].as_str().unwrap_or("?").to_owned()).collect())
}

/// That all these instances can be read as they were sent.
pub(crate) fn expect_readable<C: Cloud>(fixture: &Fixture<C>, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    expect_readable_by(fixture.rest(), sent)
}

/// As [`expect_readable`], by another client.
pub(crate) fn expect_readable_by(rest: &real_orthanc::Client, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    for (uploaded, file) in sent {
        ensure!(rest.file(&uploaded.id)? == *file, "instance {} is not as it was sent", uploaded.id);
    }
    Ok(())
}

/// An Orthanc with its own storage, which has the files, and then the plugin beside a bucket with these options.
pub(crate) fn after_years_on_files<C: Cloud>(
    changes: &Value,
    before: impl FnOnce(&real_orthanc::Client) -> Result<()>,
) -> Result<Fixture<C>> {
    let bucket = C::server()?;
    let mut orthanc = Orthanc::builder().start()?;
    before(orthanc.rest())?;
    orthanc.stop()?;
    let section = crate::fixture::with(C::section(&bucket.endpoint()), changes);
    let library = library::<C>()?;
    orthanc.configure(|builder| builder.plugin(library).section(C::SECTION, section));
    orthanc.start_again()?;
    Ok(Fixture::new(orthanc, bucket))
}

/// Requests for an object that is read whole.
pub(crate) fn reads(counts: &fake_cloud::RequestCounts) -> u64 {
    counts.of(request::READ) + counts.of(request::READ_RANGE)
}
