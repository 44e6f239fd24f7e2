//! Shared parts of the tests of hybrid storage.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::Hold;
use real_orthanc::Orthanc;
use real_orthanc::rest::Uploaded;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, library, settle, within};
use crate::orthanc::fixture::{Fixture, slices};

/// Maximum duration of a job.
pub(crate) const JOB: Duration = Duration::from_secs(60);

/// Returns `StorageEncryption` with this format.
pub(crate) fn encryption(keys: &Keys, format: &str) -> Value {
    keys.section(&json!({"Format": format, "ReadUnencrypted": true}))
}

/// Returns all files below a folder, relative and sorted. Empty folders are included with a slash at the end.
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

/// Returns the files of attachments, without anything else in `StorageDirectory`, after all deletions.
pub(crate) fn stored_files(orthanc: &Orthanc) -> Vec<String> {
    settle(&orthanc.storage_folder());
    files_of_attachments(&orthanc.storage_folder())
}

/// Returns the files below a `StorageDirectory`, except those in the plugin's own folder.
pub(crate) fn files_of_attachments(storage: &Path) -> Vec<String> {
    let mut found = files(storage);
    found.retain(|name| !name.starts_with(".orthanc-object-storage/"));
    found
}

/// Returns the path of an attachment's file.
pub(crate) fn path_of(orthanc: &Orthanc, uuid: &str) -> PathBuf {
    orthanc.storage_folder().join(&uuid[0..2]).join(&uuid[2..4]).join(uuid)
}

/// Returns the UUID of an instance's DICOM file.
pub(crate) fn uuid_of<C: Cloud>(fixture: &Fixture<C>, instance: &str) -> Result<String> {
    let info = fixture.rest().get_json(&format!("/instances/{instance}/attachments/dicom/info"))?;
    Ok(info["Uuid"].as_str().context("no Uuid")?.to_owned())
}

/// Uploads a study. Returns Orthanc's answer for each instance, and its file.
pub(crate) fn upload<C: Cloud>(
    fixture: &Fixture<C>,
    study: u64,
    count: u32,
) -> Result<Vec<(Uploaded, Vec<u8>)>> {
    slices(study, count)?.into_iter().map(|file| Ok((fixture.rest().upload(&file)?, file))).collect()
}

/// Moves resources and waits until the move is done.
pub(crate) fn move_to<C: Cloud>(fixture: &Fixture<C>, target: &str, resources: &[&str]) -> Result<Value> {
    let body = json!({"Resources": resources, "TargetStorage": target});
    fixture.rest().post_json("/move-storage", &body)?.ok()?.json()
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

/// Returns the location of each attachment of a resource.
pub(crate) fn locations<C: Cloud>(fixture: &Fixture<C>, resource: &str) -> Result<Vec<String>> {
    let locations = fixture.rest().get_json(&format!("/object-storage/locations/{resource}"))?;
    let locations = locations.as_array().context("no list")?;
    Ok(locations.iter().map(|location| location["Location"].as_str().unwrap_or("?").to_owned()).collect())
}

/// Checks that the attachments of a resource are all at `location`.
pub(crate) fn expect_all_at<C: Cloud>(fixture: &Fixture<C>, resource: &str, location: &str) -> Result<()> {
    let found = locations(fixture, resource)?;
    ensure!(found.iter().all(|found| found == location), "not at {location}: {found:?}");
    Ok(())
}

/// Checks the number of attachments on the disk and in the bucket.
pub(crate) fn expect_counts<C: Cloud>(fixture: &Fixture<C>, files: usize, objects: usize) -> Result<()> {
    let stored = stored_files(&fixture.orthanc);
    let keys = fixture.keys();
    ensure!((stored.len(), keys.len()) == (files, objects), "{stored:?} {keys:?}");
    Ok(())
}

/// Returns the content of a job.
pub(crate) fn content_of<C: Cloud>(fixture: &Fixture<C>, job: &str) -> Result<Value> {
    Ok(fixture.rest().get_json(&format!("/jobs/{job}"))?["Content"].take())
}

/// Checks that the plugin has logged no error.
pub(crate) fn expect_no_errors<C: Cloud>(fixture: &Fixture<C>) -> Result<()> {
    let errors = fixture.log_lines('E');
    ensure!(errors.is_empty(), "{errors:#?}");
    Ok(())
}

/// Writes a file in the place of an attachment.
pub(crate) fn write_file(orthanc: &Orthanc, uuid: &str, content: &[u8]) -> Result<()> {
    let path = path_of(orthanc, uuid);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    Ok(fs::write(&path, content)?)
}

/// Deletes an instance while `held` holds up the upload of its attachment.
pub(crate) fn delete_during_upload<C: Cloud>(fixture: &Fixture<C>, held: Hold, instance: &str) -> Result<()> {
    thread::scope(|scope| -> Result<()> {
        let deletion = scope.spawn(|| fixture.rest().delete(&format!("/instances/{instance}")));
        // The deletion need not wait for the upload.
        within(Duration::from_secs(1), || deletion.is_finished());
        held.release();
        deletion.join().map_err(|_| anyhow!("panicked"))??.ok()?;
        Ok(())
    })
}

/// Checks that all these instances are read as they were sent.
pub(crate) fn expect_readable<C: Cloud>(fixture: &Fixture<C>, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    expect_readable_by(fixture.rest(), sent)
}

/// Checks the same as [`expect_readable`] with another client.
pub(crate) fn expect_readable_by(rest: &real_orthanc::Client, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    for (uploaded, file) in sent {
        ensure!(rest.file(&uploaded.id)? == *file, "instance {} is not as it was sent", uploaded.id);
    }
    Ok(())
}

/// Runs `before` on an Orthanc without the plugin, and restarts it with the plugin and these options.
pub(crate) fn with_existing_files<C: Cloud>(
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
