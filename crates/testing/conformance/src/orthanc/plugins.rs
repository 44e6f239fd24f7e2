//! With other plugins of Debian's packages, which read and store attachments in their own ways.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::{Answer, Method, plugin_of_debian};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::eventually;
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        dicomweb_stores_and_reads,
        reconstructed_studies_are_read,
}

const STUDY_INSTANCE_UID: &str = "0020000D";
const SERIES_INSTANCE_UID: &str = "0020000E";
const SOP_INSTANCE_UID: &str = "00080018";
const BOUNDARY: &str = "a-boundary-that-is-in-no-file";

/// The body of a request that stores files.
fn multipart(files: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        body.extend(format!("--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n").bytes());
        body.extend(file);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

/// Whether an answer in parts has exactly this file.
fn has_file(answer: &Answer, file: &[u8]) -> bool {
    answer.body.windows(file.len()).any(|window| window == file)
}

fn dicomweb_stores_and_reads<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::configured(&json!({}), |builder| {
        builder.plugin(plugin_of_debian("libOrthancDicomWeb.so"))
    })?;
    let files = slices(1, 5)?;
    let content_type = format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}");
    let headers = [("Content-Type", content_type.as_str()), ("Accept", "application/dicom+json")];
    let body = multipart(&files);
    fixture.rest().request(Method::POST, "/dicom-web/studies", &headers, Some(&body))?.ok()?;
    assert_eq!(fixture.rest().get_json("/instances")?.as_array().map(Vec::len), Some(files.len()));
    for is_restarted in [false, true] {
        if is_restarted {
            fixture.restart()?;
        }
        read_all(&fixture, &files)?;
    }
    let studies = fixture.rest().get_json("/studies")?;
    fixture.rest().delete(&format!("/studies/{}", studies[0].as_str().context("no study")?))?.ok()?;
    assert_eq!(fixture.keys(), [""; 0]);
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

/// Reads the only study's metadata, and each file alone and with the others.
fn read_all<C: Cloud>(fixture: &Fixture<C>, files: &[Vec<u8>]) -> Result<()> {
    let uid = |object: &Value, tag: &str| {
        object[tag]["Value"][0].as_str().map(str::to_owned).with_context(|| format!("no {tag} in {object}"))
    };
    let json = [("Accept", "application/dicom+json")];
    let studies = fixture.rest().request(Method::GET, "/dicom-web/studies", &json, None)?.ok()?.json()?;
    let study = format!("/dicom-web/studies/{}", uid(&studies[0], STUDY_INSTANCE_UID)?);
    let metadata =
        fixture.rest().request(Method::GET, &format!("{study}/metadata"), &json, None)?.ok()?.json()?;
    let instances = metadata.as_array().context("no instances")?;
    assert_eq!(instances.len(), files.len());

    let dicom = [("Accept", "multipart/related; type=\"application/dicom\"; transfer-syntax=*")];
    let whole = fixture.rest().request(Method::GET, &study, &dicom, None)?.ok()?;
    ensure!(files.iter().all(|file| has_file(&whole, file)), "a file of the study differs");
    for instance in instances {
        assert_eq!(instance["00100010"]["Value"][0]["Alphabetic"], "DEMO^PATIENT");
        let series = uid(instance, SERIES_INSTANCE_UID)?;
        let path = format!("{study}/series/{series}/instances/{}", uid(instance, SOP_INSTANCE_UID)?);
        let answer = fixture.rest().request(Method::GET, &path, &dicom, None)?.ok()?;
        assert_eq!(files.iter().filter(|file| has_file(&answer, file)).count(), 1);
        fixture.rest().request(Method::GET, &format!("{path}/frames/1"), &[], None)?.ok()?;
        let rendered = [("Accept", "image/png")];
        fixture.rest().request(Method::GET, &format!("{path}/rendered"), &rendered, None)?.ok()?;
    }
    Ok(())
}

/// Housekeeper reconstructs all studies after a change of Orthanc's options. Before Orthanc 1.11.0, which has no
/// Housekeeper, clients do it.
fn reconstructed_studies_are_read<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let files = slices(1, 5)?;
    let stored = files.iter().map(|file| fixture.rest().upload(file)).collect::<Result<Vec<_>>>()?;
    let names = fixture.keys();
    let housekeeper = plugin_of_debian("libHousekeeper.so");
    let has_housekeeper = fixture.orthanc.version()? >= [1, 11, 0];
    fixture.orthanc.configure(|builder| {
        let compressed = builder.section("StorageCompression", true);
        if !has_housekeeper {
            return compressed;
        }
        compressed.plugin(housekeeper).section("Housekeeper", json!({"Enable": true, "ThrottleDelay": 0}))
    });
    fixture.restart()?;
    if has_housekeeper {
        let is_compressed = || {
            let objects = fixture.objects();
            !objects.values().any(|object| files.iter().any(|file| object.bytes == *file))
        };
        eventually("all attachments are compressed", Duration::from_secs(30), is_compressed)?;
        // Each was stored under a new name, with its header as another attachment, since Orthanc cannot read ranges
        // of what it has compressed.
        let replaced = || {
            let keys = fixture.keys();
            keys.len() == 2 * files.len() && !keys.iter().any(|key| names.contains(key))
        };
        eventually("the old objects are deleted", Duration::from_secs(30), replaced)?;
    } else {
        fixture.rest().post(&format!("/studies/{}/reconstruct", stored[0].study), b"{}")?.ok()?;
        assert_eq!(fixture.keys(), names);
    }
    for (uploaded, file) in stored.iter().zip(&files) {
        // Housekeeper makes Orthanc write another file header. The pixels after it are what was sent.
        let read = fixture.rest().file(&uploaded.id)?;
        ensure!(read.ends_with(&file[file.len() - 8000..]), "the pixels of {} differ", uploaded.id);
        fixture.rest().get_json(&format!("{}/tags", uploaded.path))?;
    }
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}
