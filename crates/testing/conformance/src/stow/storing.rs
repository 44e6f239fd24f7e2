//! What the gateway stores and answers.

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::{Study, uids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Answer, FAILED, RELATED, STORED, Upload, send};
use super::{gateway, object_of};
use crate::Cloud;
use crate::fixture::documented::{expect_metrics, expect_status};
use crate::fixture::{Keys, with};
use crate::operating::support::{depth, expect_findings, run};
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        instances_are_stored_by_their_uids;
    Newest:
        encrypted_instances_are_bound_to_their_uids,
        jobs_ignore_the_objects_of_the_gateway,
        users_of_orthanc_are_required;
}

fn expect(answer: &Answer, status: u16, content_type: &str) -> Result<()> {
    let is_expected = answer.status == status && answer.header("content-type") == Some(content_type);
    ensure!(is_expected, "{} {}\n{}", answer.status, answer.headers, answer.text());
    Ok(())
}

const JSON: &str = "application/dicom+json";

fn instances_are_stored_by_their_uids<C: Cloud>() -> Result<()> {
    let options = gateway(&json!({"Root": "/a/b/", "Prefix": "in/box/", "WadoUrl": "https://pacs.test/rs/"}));
    let fixture = Fixture::<C>::configured(&options, |builder| builder.trace())?;
    let orthanc = &fixture.orthanc;
    let begin = |path: &str, headers: &[&str]| Upload::begin(orthanc, path, RELATED, headers);
    let files = slices(1, 3)?;
    let [study, series, instance] = uids(&files[0])?;

    let mut upload = begin("/a/b/studies", &["Accept: */*"])?;
    files.iter().try_for_each(|file| upload.part(file))?;
    let answer = upload.finish()?;
    expect(&answer, 200, JSON)?;
    ensure!(answer.instances(STORED)?.len() == 3, "{}", answer.text());
    let url = format!("https://pacs.test/rs/studies/{study}");
    let body = answer.json()?;
    ensure!(body["00081190"]["Value"][0] == url, "{body:#}");
    let item = format!("{url}/series/{series}/instances/{instance}");
    ensure!(body[STORED]["Value"][0]["00081190"]["Value"][0] == item, "{body:#}");
    let key = |file: &[u8]| -> Result<String> { Ok(format!("in/box/{}", object_of(file)?)) };
    for file in &files {
        let object = fixture.bucket.object(C::BUCKET, &key(file)?).context("no object")?;
        ensure!(object.bytes == *file, "the bytes differ");
    }
    ensure!(fixture.keys().len() == 3, "{:?}", fixture.keys());

    // The second one of the same instance remains; with a length, Orthanc passes the body on at once.
    let mut changed = files[0].clone();
    *changed.last_mut().context("empty")? ^= 1;
    let mut upload = begin(&format!("/a/b/studies/{study}"), &["Accept: application/dicom+xml"])?;
    [&files[0], &changed].into_iter().try_for_each(|file| upload.part(file))?;
    let answer = upload.finish()?;
    expect(&answer, 200, "application/dicom+xml")?;
    ensure!(answer.text().matches(&format!(">{instance}<")).count() == 2, "{}", answer.text());
    let object = fixture.bucket.object(C::BUCKET, &key(&changed)?).context("no object")?;
    ensure!(object.bytes == changed, "the first one remains");

    let other = begin(&format!("/a/b/studies/{study}9"), &[])?;
    let answer = with_part(other, &files[1])?;
    expect(&answer, 409, JSON)?;
    ensure!(answer.instances(FAILED)? == [(uids(&files[1])?[2].clone(), Some(0xA900))], "{}", answer.text());
    expect(&with_part(begin("/a/b/studies/1..2", &[])?, &files[1])?, 400, "text/plain")?;
    let json = Upload::begin(orthanc, "/a/b/studies", "application/dicom+json", &[])?;
    expect(&with_part(json, &files[1])?, 415, "text/plain")?;
    ensure!(fixture.rest().get("/a/b/studies")?.status == 405);
    ensure!(fixture.rest().get_json("/instances")? == json!([]), "Orthanc has the instances too");

    let status = fixture.rest().get_json("/object-storage/status")?;
    let size = files.iter().map(Vec::len).sum::<usize>() + 2 * changed.len();
    let counts = json!({"Requests": 5, "Failures": 3, "Instances": 5, "InstanceFailures": 1, "Bytes": size});
    ensure!(status["StowRs"] == counts, "{:#}", status["StowRs"]);
    expect_status(&status, &["/StowRs"])?;
    expect_metrics(&fixture.rest().get("/tools/metrics-prometheus")?.ok()?.text())?;
    // Orthanc itself logs the path of a request.
    let log = orthanc.log();
    let own: Vec<_> = log.lines().filter(|line| line.contains(C::NAME)).collect();
    ensure!(own.iter().any(|line| line.contains("stored 3 of 3 instances")), "{own:#?}");
    for secret in [&study, &series, &instance, "DEMO", "19700101"] {
        let line = own.iter().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{line:?}");
    }
    Ok(())
}

fn with_part(mut upload: Upload, file: &[u8]) -> Result<Answer> {
    upload.part(file)?;
    upload.finish()
}

fn encrypted_instances_are_bound_to_their_uids<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encryption = keys.section(&json!({"Format": "A2"}));
    let options = with(gateway(&json!({"Encrypt": true})), &json!({"StorageEncryption": encryption}));
    let fixture = Fixture::<C>::with(&options)?;
    // The second one is stored in parts.
    let files = [slices(1, 1)?.remove(0), Study(2).multi_frame(9)?];
    let answer = send(&fixture.orthanc, &files)?;
    expect(&answer, 200, JSON)?;
    for file in &files {
        let name = format!("{}.enc", object_of(file)?);
        let object = fixture.bucket.object(C::BUCKET, &name).context("no object")?;
        // As docs/stow-gateway.md says.
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, uids(file)?[2].as_bytes()).to_string();
        let plain = crypto_envelope::decrypt(&keys.ring(3)?, &uuid, &object.bytes)?;
        ensure!(plain == *file, "the bytes differ");
    }
    ensure!(fixture.keys().len() == 2, "{:?}", fixture.keys());
    Ok(())
}

fn jobs_ignore_the_objects_of_the_gateway<C: Cloud>() -> Result<()> {
    let options = with(gateway(&json!({"Prefix": "stow"})), &json!({"RootPath": "orthanc"}));
    let fixture = Fixture::<C>::with(&options)?;
    let files = slices(1, 2)?;
    fixture.rest().upload(&files[0])?;
    expect(&send(&fixture.orthanc, &files)?, 200, JSON)?;
    let before = fixture.keys();
    ensure!(before.len() == 3, "{before:?}");
    // Only the second search may delete.
    for delete in [false, true] {
        let report = run(&fixture, "orphans", &json!({"Delete": delete, "MinAgeHours": 0}))?;
        expect_findings(&report, &std::collections::BTreeSet::new())?;
    }
    let report = run(&fixture, "verify", &depth("content"))?;
    expect_findings(&report, &std::collections::BTreeSet::new())?;
    ensure!(fixture.keys() == before, "{:?}", fixture.keys());
    Ok(())
}

fn users_of_orthanc_are_required<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::configured(&gateway(&json!({})), |builder| {
        builder
            .section("AuthenticationEnabled", true)
            .section("RegisteredUsers", json!({"modality": "secret"}))
            .login("modality:secret")
    })?;
    let file = slices(1, 1)?.remove(0);
    let begin = |headers: &[&str]| Upload::begin(&fixture.orthanc, "/stow-rs/studies", RELATED, headers);
    // Orthanc may close the connection before the body has been sent.
    let refused: [&[&str]; 2] = [&[], &["Authorization: Basic bW9kYWxpdHk6d3Jvbmc="]];
    for headers in refused {
        let mut upload = begin(headers)?;
        let _ = upload.part(&file);
        let answer = upload.answer();
        ensure!(answer.as_ref().is_ok_and(|answer| answer.status == 401), "{answer:?}");
    }
    ensure!(fixture.keys().is_empty());
    let answer = with_part(begin(&["Authorization: Basic bW9kYWxpdHk6c2VjcmV0"])?, &file)?;
    expect(&answer, 200, JSON)?;
    ensure!(fixture.keys().len() == 1);
    let _: Value = answer.json()?;
    Ok(())
}
