//! Several Orthancs with one bucket.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use fake_cloud::BucketServer;
use fake_orthanc::{FakeOrthanc, LogLevel};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::INEXISTENT_FILE;
use crate::fixture::{DICOM, configuration, done, eventually, load, request, section, uuid};
use crate::write_back::support::{SOON, StateFolder, and, numbered, without_uploads, write_back};

tests! {
    OneCloud:
        attachment_is_readable_elsewhere_once_it_is_uploaded,
        pending_files_of_an_orthanc_that_has_ended_are_uploaded,
}

/// Adoption is tried once a minute.
const LONG: Duration = Duration::from_secs(90);

/// Loads the plugin with a state directory and a folder for files.
fn orthanc<C: Cloud>(server: &BucketServer, folder: &Path, options: &Value) -> Result<FakeOrthanc> {
    let options = and(options, &json!({"StateDirectory": folder.join("state")}));
    let mut configuration = configuration::<C>(section::<C>(server, &options));
    configuration["StorageDirectory"] = json!(folder.join("storage"));
    Ok(load::<C>(configuration)??)
}

fn attachment_is_readable_elsewhere_once_it_is_uploaded<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let first = orthanc::<C>(&server, folders[0].path(), &write_back(&json!({})))?;
    let second = orthanc::<C>(&server, folders[1].path(), &write_back(&json!({})))?;
    let held = server.hold_key(request::CREATE, ".dcm");
    done(first.create(&uuid(1), DICOM, &numbered(1)))?;
    assert_eq!(second.read_whole(&uuid(1), DICOM), Err(INEXISTENT_FILE));
    held.release();
    eventually("the second sees it", SOON, || second.read_whole(&uuid(1), DICOM).is_ok())?;
    assert_eq!(second.read_whole(&uuid(1), DICOM), Ok(numbered(1)));
    Ok(())
}

fn pending_files_of_an_orthanc_that_has_ended_are_uploaded<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let folder = tempfile::tempdir()?;
    // Pending files do not depend on the other options.
    let options = and(&write_back(&json!({})), &json!({"DeletionDelay": 1}));
    let first = orthanc::<C>(&server, folder.path(), &options)?;
    let mut second = orthanc::<C>(&server, folder.path(), &without_uploads())?;
    let [of_first, of_second] =
        ["0", "1"].map(|name| StateFolder::at(folder.path().join("state").join(name)));
    for number in 0..10 {
        done(second.create(&uuid(number), DICOM, &numbered(number)))?;
    }
    assert_eq!((of_first.pending().len(), of_second.pending().len()), (0, 10));
    second.finalize();
    let uploaded = || server.keys(C::BUCKET).iter().filter(|key| key.ends_with(".dcm")).count() == 10;
    eventually("the first uploads what the second has left", LONG, uploaded)?;
    eventually("nothing is pending", SOON, || {
        of_first.pending().is_empty() && of_second.pending().is_empty()
    })?;
    for number in 0..10 {
        assert_eq!(first.read_whole(&uuid(number), DICOM), Ok(numbered(number)));
    }
    assert_eq!(first.logs_at(LogLevel::Error), [""; 0]);
    Ok(())
}
