//! The requests of `docs/costs.md`: each row of its first two tables is measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, within};
use crate::hybrid::support::{encryption, move_to, upload};
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        requests_by_format_are_as_documented,
        requests_of_hybrid_modes_are_as_documented,
}

const DOCUMENT: &str = include_str!("../../../../../docs/costs.md");
/// Instances of the study.
const COUNT: u32 = 4;

/// Returns a row of a table with these cells.
fn row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Checks that a part of the document has these rows, and no others that begin with one of these texts.
fn expect_rows(part: &str, begins: &[String], rows: &[String]) -> Result<()> {
    let (_, part) = DOCUMENT.split_once(&format!("\n## {part}\n")).context("no such part")?;
    let part = part.split("\n## ").next().unwrap_or_default();
    let is_meant = |line: &&str| begins.iter().any(|begin| line.starts_with(begin));
    let documented: Vec<_> = part.lines().filter(is_meant).collect();
    ensure!(documented == rows, "docs/costs.md has\n{}\nbut not\n{}", documented.join("\n"), rows.join("\n"));
    Ok(())
}

/// Returns the requests for each instance of the study.
fn per_instance(requests: u64) -> Result<String> {
    Ok((f64::from(u32::try_from(requests)?) / f64::from(COUNT)).to_string())
}

/// Returns the requests that `work` sends for each instance of the study.
fn each<C: Cloud>(fixture: &Fixture<C>, work: impl FnOnce() -> Result<()>) -> Result<String> {
    let ((), requests) = fixture.counted(work)?;
    per_instance(requests.total)
}

/// Deletes a study, and checks that one request deletes all its objects, or two if the machine was busy for a while.
fn expect_bulk_deletion<C: Cloud>(fixture: &Fixture<C>, study: &str) -> Result<()> {
    let ((), requests) =
        fixture.counted(|| fixture.rest().delete(&format!("/studies/{study}"))?.ok().map(drop))?;
    ensure!((1..=2).contains(&requests.total), "{requests:?}");
    let is_empty = within(Duration::from_secs(5), || {
        !fixture.bucket.keys(C::BUCKET).iter().any(|key| key.contains(".dcm"))
    });
    ensure!(is_empty, "{:?}", fixture.keys());
    Ok(())
}

fn requests_by_format_are_as_documented<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let formats = [("none", json!({})), ("A1", encryption(&keys, "A1")), ("A2", encryption(&keys, "A2"))];
    let mut rows = Vec::new();
    let mut version = String::new();
    for (format, section) in formats {
        let fixture = Fixture::<C>::with(&json!({"StorageEncryption": section}))?;
        let rest = fixture.rest();
        let (sent, stored) = fixture.counted(|| upload(&fixture, 1, COUNT))?;
        let (study, instances) = (&sent[0].0.study, sent.iter().map(|(uploaded, _)| &uploaded.path));
        let get = |what: &str| {
            each(&fixture, || {
                instances.clone().try_for_each(|path| rest.get(&format!("{path}/{what}"))?.ok().map(drop))
            })
        };
        let archive = |path: String| each(&fixture, || rest.get(&path)?.ok().map(drop));
        let [major, minor, _] = fixture.orthanc.version()?;
        version = format!("{major}.{minor}");
        rows.push(row(&[
            version.clone(),
            format.to_owned(),
            per_instance(stored.total)?,
            get("file")?,
            get("simplified-tags")?,
            get("preview")?,
            archive(format!("/studies/{study}/archive"))?,
        ]));
        expect_bulk_deletion(&fixture, study)?;
    }
    expect_rows("Requests for each instance", &[format!("| {version} |")], &rows)
}

fn requests_of_hybrid_modes_are_as_documented<C: Cloud>() -> Result<()> {
    let mut rows = Vec::new();
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let (sent, stored) = fixture.counted(|| upload(&fixture, 1, COUNT))?;
        let study = &sent[0].0.study;
        let read = || {
            each(&fixture, || {
                sent.iter().try_for_each(|(uploaded, _)| fixture.rest().file(&uploaded.id).map(drop))
            })
        };
        let moved = |target: &str| each(&fixture, || move_to(&fixture, target, &[study]).map(drop));
        let stored = per_instance(stored.total)?;
        moved("file-system")?;
        let read_from_disk = read()?;
        let to_bucket = moved("object-storage")?;
        let read_from_bucket = read()?;
        rows.push(row(&[
            format!("`{mode}`"),
            stored,
            read_from_disk,
            to_bucket,
            read_from_bucket,
            moved("file-system")?,
        ]));
        expect_bulk_deletion(&fixture, study)?;
    }
    rows.push(row_of_write_back::<C>()?);
    expect_rows("Hybrid modes", &["| `Write".to_owned()], &rows)
}

/// The row of the mode that has no moves between disk and bucket.
fn row_of_write_back<C: Cloud>() -> Result<String> {
    let mut stored = String::new();
    // From the cache, and from the bucket.
    let reads = [json!({}), json!({"MaxCacheMB": 0})].map(|section| {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteBack", "WriteBack": section}))?;
        let flush = || fixture.rest().post("/object-storage/flush", b"")?.ok().map(drop);
        let (sent, counted) = fixture.counted(|| {
            let sent = upload(&fixture, 1, COUNT)?;
            flush()?;
            Ok(sent)
        })?;
        stored = per_instance(counted.total)?;
        each(&fixture, || {
            sent.iter().try_for_each(|(uploaded, _)| fixture.rest().file(&uploaded.id).map(drop))
        })
    });
    let [from_disk, from_bucket] = reads;
    let none = || "–".to_owned();
    Ok(row(&["`WriteBack`".to_owned(), stored, from_disk?, none(), from_bucket?, none()]))
}
