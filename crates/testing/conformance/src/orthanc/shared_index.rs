//! The index in PostgreSQL and the attachments in the bucket: Orthanc needs no disk of its own, and several can work on
//! the same patients.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use fake_cloud::BucketServer;
use real_orthanc::{Client, Method, Orthanc, POSTGRESQL_INDEX_PLUGIN, Postgres, plugin_of_debian};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{eventually, section};
use crate::orthanc::fixture::{at_once, builder, slices};

tests! {
    OneCloud:
        new_orthanc_has_all_studies,
        two_orthancs_serve_each_others_uploads,
        two_orthancs_store_one_patient_at_once,
        attachments_of_users_are_replaced_by_revision,
}

/// The state that outlives an Orthanc.
struct Lasting {
    database: Postgres,
    bucket: BucketServer,
}

impl Lasting {
    fn start<C: Cloud>() -> Result<Self> {
        Ok(Self { database: Postgres::start()?, bucket: C::server()? })
    }

    /// Starts an Orthanc with its own folder. With the lock, only one Orthanc can use the index.
    fn orthanc<C: Cloud>(&self, lock: bool) -> Result<Orthanc> {
        let orthanc = builder::<C>(&section::<C>(&self.bucket, &json!({})))?
            .plugin(plugin_of_debian(POSTGRESQL_INDEX_PLUGIN))
            .section("PostgreSQL", self.database.section(lock))
            .section("CheckRevisions", true);
        Ok(orthanc.start()?)
    }

    /// Waits until the bucket has this many objects.
    fn expect_objects<C: Cloud>(&self, count: usize) -> Result<()> {
        let event = format!("the bucket has {count} objects");
        eventually(&event, Duration::from_secs(10), || self.bucket.keys(C::BUCKET).len() == count)
    }
}

/// A study and its slices, with Orthanc's identifiers.
struct Stored {
    study: String,
    instances: Vec<(String, Vec<u8>)>,
}

fn store(rest: &Client, study: u64, count: u32) -> Result<Stored> {
    let mut stored = Stored { study: String::new(), instances: Vec::new() };
    for slice in slices(study, count)? {
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

fn new_orthanc_has_all_studies<C: Cloud>() -> Result<()> {
    let lasting = Lasting::start::<C>()?;
    let mut first = lasting.orthanc::<C>(true)?;
    let studies = [store(first.rest(), 1, 10)?, store(first.rest(), 2, 5)?];
    first.stop()?;
    let folder = first.folder().to_owned();
    drop(first);
    ensure!(!folder.exists(), "the first Orthanc's folder is still there");

    let mut second = lasting.orthanc::<C>(true)?;
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
    lasting.expect_objects::<C>(0)?;
    second.stop()
}

fn two_orthancs_serve_each_others_uploads<C: Cloud>() -> Result<()> {
    let lasting = Lasting::start::<C>()?;
    let orthancs = [lasting.orthanc::<C>(false)?, lasting.orthanc::<C>(false)?];
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
    lasting.expect_objects::<C>(0)
}

/// Both store all slices, so that for each of them one comes second.
fn two_orthancs_store_one_patient_at_once<C: Cloud>() -> Result<()> {
    let lasting = Lasting::start::<C>()?;
    let orthancs = [lasting.orthanc::<C>(false)?, lasting.orthanc::<C>(false)?];
    let files = slices(1, 20)?;
    let acknowledged = at_once(8, |client| {
        let rest = orthancs[usize::from(client % 2 == 1)].rest();
        let mut ids = Vec::new();
        for file in files.chunks(5).nth(usize::try_from(client / 2)?).unwrap_or_default() {
            // A transaction that meets one of the other Orthanc may fail, and the client sends the file again.
            let uploaded = (0..20).find_map(|_| rest.upload(file).ok());
            ids.push((uploaded.map(|uploaded| uploaded.id), file.clone()));
        }
        Ok(ids)
    })?;
    for orthanc in &orthancs {
        for (id, file) in acknowledged.iter().flatten() {
            let id = id.as_ref().ok_or_else(|| anyhow::anyhow!("a file was refused 20 times"))?;
            ensure!(orthanc.rest().file(id)? == *file, "the bytes of {id} differ");
        }
        let patients = orthanc.rest().get_json("/patients")?;
        ensure!(patients.as_array().is_some_and(|patients| patients.len() == 1), "{patients}");
    }
    // The object of the one that came second, or whose transaction failed, is deleted.
    lasting.expect_objects::<C>(files.len())?;
    let study = orthancs[0].rest().get_json("/studies")?[0].as_str().unwrap_or_default().to_owned();
    orthancs[1].rest().delete(&format!("/studies/{study}"))?.ok()?;
    lasting.expect_objects::<C>(0)
}

fn attachments_of_users_are_replaced_by_revision<C: Cloud>() -> Result<()> {
    let lasting = Lasting::start::<C>()?;
    let orthanc = lasting.orthanc::<C>(false)?;
    let rest = orthanc.rest();
    let stored = store(rest, 1, 1)?;
    let attachment = format!("/studies/{}/attachments/1024", stored.study);
    let put = |content: &[u8], revision: &str| {
        let if_match = [("If-Match", revision)];
        let headers = if revision.is_empty() { &[][..] } else { &if_match };
        rest.request(Method::PUT, &attachment, headers, Some(content))
    };
    let current = || Ok::<_, anyhow::Error>(rest.get(&format!("{attachment}/data"))?.ok()?.body);
    let first = put(b"first report", "")?.ok()?.etag;
    assert_eq!(current()?, b"first report");
    lasting.expect_objects::<C>(2)?;

    // What Orthanc refuses leaves no object.
    for revision in ["", &first.replace("\"0-", "\"7-")] {
        let answer = put(b"lost update", revision)?;
        ensure!(answer.status == 409, "{revision}: HTTP status {}", answer.status);
    }
    assert_eq!(current()?, b"first report");
    let second = put(b"second report", &first)?.ok()?.etag;
    assert_eq!(current()?, b"second report");
    lasting.expect_objects::<C>(2)?;

    rest.request(Method::DELETE, &attachment, &[("If-Match", second.as_str())], None)?.ok()?;
    lasting.expect_objects::<C>(1)?;
    check(rest, &stored)
}
