//! What every Orthanc does: store, read, restart, delete.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::Keys;
use crate::orthanc::fixture::at_once;
use crate::servers::fixture::{Fixture, encryption};

tests! {
    EveryCloud:
        study_is_stored_read_and_deleted,
        encrypted_studies_are_stored_and_read,
        names_keep_special_letters,
        small_attachments_are_kept,
}

fn study_is_stored_read_and_deleted<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({}))?;
    let studies = at_once(4, |client| fixture.store(client, 30))?;
    for study in &studies {
        fixture.expect_readable(study)?;
    }
    fixture.expect_no_errors()?;
    fixture.orthanc.restart()?;
    for study in &studies {
        fixture.expect_readable(study)?;
        fixture.delete(&study[0].uploaded.study, study)?;
        let gone = fixture.rest().get(&format!("{}/file", study[0].uploaded.path))?;
        ensure!(gone.status == 404, "{}", gone.text());
    }
    fixture.expect_no_errors()
}

fn encrypted_studies_are_stored_and_read<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for (format, is_compressed) in [("A1", false), ("A2", false), ("A2", true)] {
        let changes = json!({ "StorageEncryption": encryption(&keys, format) });
        let mut fixture = Fixture::<C>::configured(&changes, |builder| {
            builder.section("StorageCompression", is_compressed)
        })?;
        let study = fixture.store(0, 10)?;
        for stored in &study {
            let object = fixture.object(stored)?.unwrap_or_default();
            ensure!(object.starts_with(format.as_bytes()), "not encrypted with {format}");
        }
        fixture.expect_readable(&study)?;
        fixture.orthanc.restart()?;
        fixture.expect_readable(&study)?;
        fixture.delete(&study[0].uploaded.study, &study)?;
        fixture.expect_no_errors()?;
    }
    Ok(())
}

/// Servers differ in how they decode URLs, and in what they sign.
fn names_keep_special_letters<C: Cloud>() -> Result<()> {
    let root = format!("Röntgen ÄÖ/100% #1~ +&=;@*/{}", std::process::id());
    let fixture = Fixture::<C>::with(&json!({ "RootPath": root }))?;
    let study = fixture.store(0, 3)?;
    fixture.expect_readable(&study)?;
    fixture.delete(&study[0].uploaded.study, &study)?;
    fixture.expect_no_errors()
}

/// An attachment of one byte and an empty one, for which no range exists.
fn small_attachments_are_kept<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let study = fixture.store(0, 1)?;
    let attachment = format!("{}/attachments/1024", study[0].uploaded.path);
    for content in [&b"x"[..], b""] {
        fixture.rest().put(&attachment, content)?.ok()?;
        let read = fixture.rest().get(&format!("{attachment}/data"))?.ok()?;
        ensure!(read.body == content, "{:?}", read.body);
        fixture.rest().delete(&attachment)?.ok()?;
    }
    fixture.delete(&study[0].uploaded.study, &study)?;
    fixture.expect_no_errors()
}
