//! The same in Orthanc itself.

use anyhow::{Context, Result};
use end_to_end::workspace::{Plugin, Profile, plugin_library};
use end_to_end::{Builder, Orthanc, dicom};
use serde_json::{Value, json};
use test_bucket::{BucketServer, Options};

use crate::support::{Keys, section};

/// Orthanc with the plugin, on a bucket of its own. Orthanc is dropped before the server.
struct Bench {
    orthanc: Orthanc,
    server: BucketServer,
    keys: Keys,
}

impl Bench {
    /// `encryption` are options of `StorageEncryption`; `None` is none at all.
    fn start(encryption: Option<&Value>, change: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let (server, keys) = (BucketServer::start(Options::default())?, Keys::new()?);
        let section = configuration(&server, &keys, encryption);
        let builder = Orthanc::builder()
            .plugin(plugin_library(Plugin::AwsS3, Profile::Dev)?)
            .section("AwsS3Storage", section);
        let orthanc = change(builder).start()?;
        Ok(Self { orthanc, server, keys })
    }

    /// Stores a file and returns Orthanc's id of it.
    fn upload(&self, file: &[u8]) -> Result<String> {
        let uploaded = self.orthanc.rest().upload(file)?;
        assert_eq!(uploaded.status, "Success");
        Ok(uploaded.id)
    }

    /// How many objects have names that end so.
    fn count(&self, end: &str) -> usize {
        self.server.keys("bucket").iter().filter(|key| key.ends_with(end)).count()
    }

    fn restart(&mut self) -> Result<()> {
        self.orthanc.stop()?;
        Ok(self.orthanc.start_again()?)
    }
}

fn configuration(server: &BucketServer, keys: &Keys, encryption: Option<&Value>) -> Value {
    let mut section = section(server);
    if let Some(encryption) = encryption {
        section["StorageEncryption"] = keys.section(encryption);
    }
    section
}

/// Stores five slices and a multi-frame, reads them before and after a restart, and deletes them.
fn store_read_delete(format: &str, headers: usize, change: impl FnOnce(Builder) -> Builder) -> Result<()> {
    let mut bench = Bench::start(Some(&json!({ "Format": format })), change)?;
    let mut files = dicom::ct_series(5, 64, 64).collect::<Result<Vec<_>, _>>()?;
    files.push(dicom::multi_frame(6)?);
    let ids = files.iter().map(|file| bench.upload(file)).collect::<Result<Vec<_>>>()?;
    assert_eq!((bench.count(".dcm.enc"), bench.count(".dcm.head.enc")), (6, headers));
    assert_eq!(bench.server.keys("bucket").len(), 6 + headers);
    for object in bench.server.objects("bucket").values() {
        assert!(object.bytes.starts_with(format.as_bytes()));
        // The patient's name of every file.
        assert!(!object.bytes.windows(12).any(|window| window == b"DEMO^PATIENT"));
    }
    for _ in 0..2 {
        for (id, file) in ids.iter().zip(&files) {
            assert!(bench.orthanc.rest().file(id)? == *file);
            let tags = bench.orthanc.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
            assert_eq!(tags["PatientName"], "DEMO^PATIENT");
            let frame = bench.orthanc.rest().get(&format!("/instances/{id}/frames/0/raw"))?;
            assert_eq!(frame.status, 200);
        }
        bench.restart()?;
    }
    for id in &ids {
        assert_eq!(bench.orthanc.rest().delete(&format!("/instances/{id}"))?.status, 200);
    }
    assert!(bench.server.keys("bucket").is_empty());
    bench.orthanc.stop()?;
    Ok(())
}

#[test]
fn a1_in_orthanc_has_headers_as_attachments_of_their_own() -> Result<()> {
    store_read_delete("A1", 6, |builder| builder)
}

#[test]
fn a2_in_orthanc_needs_no_headers() -> Result<()> {
    store_read_delete("A2", 0, |builder| builder)
}

#[test]
fn compressed_attachments_are_encrypted_too() -> Result<()> {
    // What is compressed cannot be read in ranges, so that Orthanc stores headers by themselves.
    store_read_delete("A2", 6, |builder| builder.section("StorageCompression", true))
}

#[test]
fn orthanc_resets_itself_with_encryption() -> Result<()> {
    let bench = Bench::start(Some(&json!({ "Format": "A2" })), |builder| builder)?;
    let files = dicom::ct_series(3, 64, 64).collect::<Result<Vec<_>, _>>()?;
    for file in &files {
        let id = bench.upload(file)?;
        bench.orthanc.rest().post("/tools/reset", b"")?.ok()?;
        // It answers before it has reset itself.
        let read = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            bench.orthanc.rest().file(&id).ok()
        });
        assert!(read.context("Orthanc does not come back")? == *file);
    }
    assert_eq!(bench.count(".dcm.enc"), 3);
    Ok(())
}

#[test]
fn encryption_is_switched_on_for_a_bucket_in_clear() -> Result<()> {
    let mut bench = Bench::start(None, |builder| builder)?;
    let files = dicom::ct_series(4, 64, 64).collect::<Result<Vec<_>, _>>()?;
    let mut ids = vec![bench.upload(&files[0])?, bench.upload(&files[1])?];
    for (round, format) in ["A1", "A2"].into_iter().enumerate() {
        let options = json!({ "Format": format, "ReadUnencrypted": true });
        let section = configuration(&bench.server, &bench.keys, Some(&options));
        bench.orthanc.configure(|builder| builder.section("AwsS3Storage", section));
        bench.restart()?;
        ids.push(bench.upload(&files[2 + round])?);
        for (id, file) in ids.iter().zip(&files) {
            assert!(bench.orthanc.rest().file(id)? == *file, "{format}");
            let tags = bench.orthanc.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
            assert_eq!(tags["PatientName"], "DEMO^PATIENT");
        }
    }
    assert_eq!((bench.count(".dcm"), bench.count(".dcm.enc"), bench.count(".dcm.head.enc")), (2, 2, 1));

    // Switched off again, what is in clear is not to be had.
    let section = configuration(&bench.server, &bench.keys, Some(&json!({ "Format": "A2" })));
    bench.orthanc.configure(|builder| builder.section("AwsS3Storage", section));
    bench.restart()?;
    let statuses = ids
        .iter()
        .map(|id| Ok(bench.orthanc.rest().get(&format!("/instances/{id}/file"))?.status))
        .collect::<Result<Vec<_>>>()?;
    assert_eq!(statuses, [404, 404, 200, 200]);

    for id in &ids[2..] {
        assert_eq!(bench.orthanc.rest().delete(&format!("/instances/{id}"))?.status, 200);
    }
    assert_eq!(bench.server.keys("bucket").len(), 2);
    Ok(())
}

#[test]
fn the_tags_of_a_500_mb_object_cost_less_than_200_kib() -> Result<()> {
    let mut bench = Bench::start(Some(&json!({ "Format": "A2" })), |builder| builder)?;
    let file = dicom::multi_frame(500)?;
    let size = file.len() as u64;
    assert!(size > 500_000_000);
    let id = bench.upload(&file)?;
    drop(file);
    bench.restart()?;
    bench.server.reset_counts();
    let tags = bench.orthanc.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
    assert_eq!(tags["PatientName"], "DEMO^PATIENT");
    let counts = bench.server.requests();
    println!("{} requests, {} bytes of {size}", counts.total, counts.body_bytes_sent);
    assert!(counts.total >= 1 && counts.body_bytes_sent < 200 * 1024, "{counts:?}");
    Ok(())
}
