//! Jobs that operate an archive: what they need of a server are lists, checksums and replaced objects.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, flat, uuid};
use crate::servers::fixture::{Fixture, JOB, Stored};

tests! {
    EveryCloud:
        verification_finds_missing_and_replaced_objects,
        orphans_are_found_and_deleted,
        archive_is_reencrypted,
        nothing_has_to_be_restored,
}

/// Runs a job for the whole archive, which must succeed. Returns its report.
fn run<C: Cloud>(fixture: &Fixture<C>, route: &str, body: &Value) -> Result<Value> {
    let answer = fixture.rest().post_json(&format!("/object-storage/{route}"), body)?.ok()?.json()?;
    let id = answer["ID"].as_str().context("no ID")?;
    let job = fixture.rest().wait_job(id, JOB)?;
    ensure!(job["State"] == "Success", "{job:#}");
    fixture.rest().get_json(&format!("/object-storage/reports/{id}"))
}

/// Returns the UUID and the problem of each finding, sorted.
fn problems(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = report["Findings"].as_array().into_iter().flatten();
    let mut problems: Vec<_> =
        findings.map(|finding| (text(finding, "Uuid"), text(finding, "Problem"))).collect();
    problems.sort();
    problems
}

fn verification_finds_missing_and_replaced_objects<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let study = fixture.store(0, 5)?;
    for depth in ["exists", "size", "checksum", "content"] {
        let report = run(&fixture, "verify", &json!({"Depth": depth}))?;
        let summary = &report["Summary"];
        println!("{depth}: {summary}");
        ensure!(problems(&report).is_empty() && summary["VerifiedAttachments"] == 5, "{report:#}");
    }
    fixture.remove(&study[0].uuid)?;
    let mut other = study[1].file.clone();
    other[4000] ^= 1;
    fixture.put(&flat(&study[1].uuid), other)?;
    let missing = (study[0].uuid.clone(), "missing".to_owned());
    let report = run(&fixture, "verify", &json!({"Depth": "size"}))?;
    ensure!(problems(&report) == std::slice::from_ref(&missing), "{report:#}");
    let mut expected = vec![missing, (study[1].uuid.clone(), "wrong-checksum".to_owned())];
    expected.sort();
    for depth in ["checksum", "content"] {
        let report = run(&fixture, "verify", &json!({"Depth": depth}))?;
        ensure!(problems(&report) == expected, "depth {depth}: {report:#}");
    }
    Ok(())
}

fn orphans_are_found_and_deleted<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let study = fixture.store(0, 5)?;
    let orphan = uuid(1);
    fixture.put(&flat(&orphan), b"DICM".to_vec())?;
    for deleted in [0, 1] {
        let report = run(&fixture, "orphans", &json!({"Delete": true, "MinAgeHours": 0}))?;
        let summary = &report["Summary"];
        println!("{summary}");
        let counts = [&summary["Attachments"], &summary["OrphanObjects"], &summary["DeletedObjects"]];
        ensure!(counts == [&json!(5), &json!(1), &json!(deleted)], "{report:#}");
    }
    let report = run(&fixture, "orphans", &json!({"MinAgeHours": 0}))?;
    ensure!(report["Summary"]["OrphanObjects"] == 0, "{report:#}");
    fixture.expect_readable(&study)
}

fn archive_is_reencrypted<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&json!({}))?;
    let study = fixture.store(0, 5)?;
    for (id, others, before) in [(3, json!([]), &b"\0\0"[..]), (7, json!([keys.entry(3)]), b"A2")] {
        let encryption = json!({
            "Format": "A2", "MasterKey": keys.entry(id), "PreviousMasterKeys": others, "ReadUnencrypted": true,
        });
        println!("from {before:?} to the key {id}");
        fixture.start_again_with(&json!({"StorageEncryption": encryption}))?;
        let report = run(&fixture, "reencrypt", &json!({}))?;
        ensure!(report["Summary"]["Rewritten"] == 5, "{report:#}");
        fixture.expect_readable(&study)?;
        let again = run(&fixture, "reencrypt", &json!({}))?;
        ensure!(again["Summary"]["AlreadyCurrent"] == 5, "{again:#}");
        for stored in &study {
            let object = fixture.object(stored)?.context("no object")?;
            ensure!(object.starts_with(b"A2"), "{} is not in A2", stored.uuid);
        }
    }
    fixture.expect_no_errors()
}

/// Servers without archive tiers say so by leaving the storage class out.
fn nothing_has_to_be_restored<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let study: Vec<Stored> = fixture.store(0, 3)?;
    let report = run(&fixture, "restore", &json!({}))?;
    let summary = &report["Summary"];
    ensure!(problems(&report).is_empty() && summary["AlreadyReadable"] == study.len(), "{report:#}");
    fixture.expect_no_errors()
}
