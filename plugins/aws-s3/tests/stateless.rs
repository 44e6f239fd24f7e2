//! An Orthanc without anything of its own: the index in PostgreSQL, the files in the bucket.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fake_cloud::{BucketServer, Options};
use real_orthanc::dicom::Study;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use real_orthanc::{Client, Orthanc, POSTGRESQL_INDEX_PLUGIN, Postgres};
use serde_json::json;

const BUCKET: &str = "bucket";

/// What outlives an Orthanc.
struct Lasting {
    database: Postgres,
    bucket: BucketServer,
}

impl Lasting {
    fn start() -> Result<Self> {
        Ok(Self { database: Postgres::start()?, bucket: BucketServer::start(Options::default())? })
    }

    /// An Orthanc in a folder of its own. With the lock, the index belongs to one Orthanc at a time.
    fn orthanc(&self, lock: bool) -> Result<Orthanc> {
        let options = Options::default();
        let section = json!({
            "BucketName": BUCKET,
            "Region": options.region,
            "AccessKey": options.access_key,
            "SecretKey": options.secret_key,
            "Endpoint": self.bucket.endpoint(),
            "VirtualAddressing": false,
        });
        let orthanc = Orthanc::builder()
            .plugin(POSTGRESQL_INDEX_PLUGIN)
            .plugin(plugin_library(Plugin::named("aws-s3")?, Profile::Dev)?)
            .section("PostgreSQL", self.database.section(lock))
            .section("AwsS3Storage", section);
        Ok(orthanc.start()?)
    }
}

/// Slices of a study, and what Orthanc calls them.
struct Stored {
    study: String,
    instances: Vec<(String, Vec<u8>)>,
}

fn store(rest: &Client, study: u64, slices: u32) -> Result<Stored> {
    let mut stored = Stored { study: String::new(), instances: Vec::new() };
    for slice in Study(study).ct_series(slices, 64, 64) {
        let slice = slice?;
        let uploaded = rest.upload(&slice)?;
        stored.study = uploaded.study;
        stored.instances.push((uploaded.id, slice));
    }
    Ok(stored)
}

fn check(rest: &Client, stored: &Stored) -> Result<()> {
    let instances = rest.get_json(&format!("/studies/{}/instances", stored.study))?;
    let count = instances.as_array().map_or(0, Vec::len);
    ensure!(count == stored.instances.len(), "{count} instances of {}", stored.instances.len());
    for (id, slice) in &stored.instances {
        ensure!(rest.file(id)? == *slice, "instance {id} came back as another one");
        rest.get(&format!("/instances/{id}/tags"))?.ok()?;
    }
    Ok(())
}

#[test]
fn a_new_orthanc_has_every_study_of_the_one_whose_folder_was_deleted() -> Result<()> {
    let lasting = Lasting::start()?;
    let mut first = lasting.orthanc(true)?;
    let studies = [store(first.rest(), 1, 10)?, store(first.rest(), 2, 5)?];
    first.stop()?;
    let folder = first.folder().to_owned();
    drop(first);
    ensure!(!folder.exists(), "the first Orthanc's folder is still there");

    let mut second = lasting.orthanc(true)?;
    ensure!(second.folder() != folder, "the second Orthanc has the folder of the first");
    for study in &studies {
        check(second.rest(), study)?;
    }
    let own = walk(&second.storage_folder());
    ensure!(own == 0, "{own} files are in the second Orthanc's own storage");
    for study in &studies {
        second.rest().delete(&format!("/studies/{}", study.study))?.ok()?;
    }
    second.stop()?;
    ensure!(lasting.bucket.keys(BUCKET).is_empty(), "left: {:?}", lasting.bucket.keys(BUCKET));
    Ok(())
}

/// Number of entries in a folder that may not exist.
fn walk(folder: &std::path::Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn two_orthancs_serve_each_others_uploads() -> Result<()> {
    let lasting = Lasting::start()?;
    let orthancs = [lasting.orthanc(false)?, lasting.orthanc(false)?];
    let studies = [store(orthancs[0].rest(), 1, 5)?, store(orthancs[1].rest(), 2, 5)?];
    for orthanc in &orthancs {
        for study in &studies {
            check(orthanc.rest(), study)?;
        }
    }
    // What one deletes, the other one does not have any more.
    for (orthanc, study) in orthancs.iter().rev().zip(&studies) {
        orthanc.rest().delete(&format!("/studies/{}", study.study))?.ok()?;
    }
    for orthanc in &orthancs {
        let left = orthanc.rest().get_json("/studies")?;
        ensure!(left == json!([]), "there are studies left: {left}");
    }
    wait_until_empty(&lasting.bucket)
}

/// Deletions may end in the background.
fn wait_until_empty(bucket: &BucketServer) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !bucket.keys(BUCKET).is_empty() {
        ensure!(Instant::now() < deadline, "left: {:?}", bucket.keys(BUCKET));
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
