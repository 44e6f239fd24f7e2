//! The requests of `docs/costs.md`: each row of its tables is measured.

use std::time::Duration;

use anyhow::{Result, ensure};
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

/// Checks that the document has these rows.
fn expect_rows(mut rows: Vec<String>) -> Result<()> {
    rows.retain(|row| !DOCUMENT.lines().any(|line| line == row));
    ensure!(rows.is_empty(), "docs/costs.md lacks these rows:\n{}", rows.join("\n"));
    Ok(())
}

/// Returns the requests that `work` sends for each instance of the study.
fn each<C: Cloud>(fixture: &Fixture<C>, work: impl FnOnce() -> Result<()>) -> Result<String> {
    let ((), requests) = fixture.counted(work)?;
    let per_instance = f64::from(u32::try_from(requests.total)?) / f64::from(COUNT);
    Ok(per_instance.to_string())
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
        rows.push(row(&[
            format!("{major}.{minor}"),
            format.to_owned(),
            (stored.total / u64::from(COUNT)).to_string(),
            get("file")?,
            get("simplified-tags")?,
            get("preview")?,
            archive(format!("/studies/{study}/archive"))?,
        ]));
        expect_bulk_deletion(&fixture, study)?;
    }
    expect_rows(rows)
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
        let stored = (stored.total / u64::from(COUNT)).to_string();
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
    expect_rows(rows)
}
