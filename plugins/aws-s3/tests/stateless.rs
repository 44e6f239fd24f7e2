//! A stateless Orthanc: the index in PostgreSQL, the attachments in the bucket.

#[path = "common/cloud.rs"]
mod cloud;

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use cloud::S3;
use conformance::{Cloud as _, eventually};
use fake_cloud::BucketServer;
use real_orthanc::dicom::Study;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use real_orthanc::{Client, Orthanc, POSTGRESQL_INDEX_PLUGIN, Postgres};
use serde_json::json;

/// The state that outlives an Orthanc.
struct Lasting {
    database: Postgres,
    bucket: BucketServer,
}

impl Lasting {
    fn start() -> Result<Self> {
        Ok(Self { database: Postgres::start()?, bucket: S3::server()? })
    }

    /// Starts an Orthanc with its own folder. With the lock, only one Orthanc can use the index.
    fn orthanc(&self, lock: bool) -> Result<Orthanc> {
        let orthanc = Orthanc::builder()
            .plugin(POSTGRESQL_INDEX_PLUGIN)
            .plugin(plugin_library(Plugin::named("aws-s3")?, Profile::Dev)?)
            .section("PostgreSQL", self.database.section(lock))
            .section(S3::SECTION, S3::section(&self.bucket.endpoint()));
        Ok(orthanc.start()?)
    }
}

/// A study and its slices, with Orthanc's identifiers.
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
        ensure!(rest.file(id)? == *slice, "the bytes of instance {id} differ");
        rest.get(&format!("/instances/{id}/tags"))?.ok()?;
    }
    Ok(())
}

#[test]
fn new_orthanc_has_all_studies() -> Result<()> {
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
    let own_files: Vec<_> =
        fs::read_dir(second.storage_folder())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(
        own_files == [".orthanc-object-storage"],
        "{own_files:?} are in the second Orthanc's own storage"
    );
    for study in &studies {
        second.rest().delete(&format!("/studies/{}", study.study))?.ok()?;
    }
    eventually("the bucket is empty", Duration::from_secs(10), || {
        lasting.bucket.keys(S3::BUCKET).is_empty()
    })?;
    second.stop()
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
    // Each deletes a study of the other.
    for (orthanc, study) in orthancs.iter().rev().zip(&studies) {
        orthanc.rest().delete(&format!("/studies/{}", study.study))?.ok()?;
    }
    for orthanc in &orthancs {
        let left = orthanc.rest().get_json("/studies")?;
        ensure!(left == json!([]), "there are studies left: {left}");
    }
    eventually("the bucket is empty", Duration::from_secs(10), || lasting.bucket.keys(S3::BUCKET).is_empty())
}
