//! `GET /object-storage/status` and `GET /object-storage/locations/{id}`.

use anyhow::{Context, Result, ensure};
use fake_cloud::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::documented::{expect_history, expect_status};
use crate::fixture::{Keys, assert_no_secret};
use crate::hybrid::support::{encryption, expect_readable, move_to, path_of, upload, uuid_of, write_file};
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        status_describes_the_plugin,
        locations_describe_each_attachment,
        locations_name_archived_objects,
        locations_come_in_pages,
        unreachable_bucket_ends_locations_at_once,
}

fn status_describes_the_plugin<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let fixture = Fixture::<C>::with(&json!({"StorageEncryption": encryption(&keys, "A2")}))?;
    let sent = upload(&fixture, 1, 2)?;
    expect_readable(&fixture, &sent)?;
    fixture.rest().delete(&format!("/instances/{}", sent[0].0.id))?.ok()?;
    let answer = fixture.rest().get("/object-storage/status")?.ok()?;
    let status = answer.json()?;
    ensure!(
        status["Plugin"] == C::NAME && status["Provider"] == C::SECTION && status["Bucket"] == C::URL,
        "{status}"
    );
    ensure!(status["HybridMode"] == "Disabled" && status["Version"].is_string(), "{status}");
    let expected = json!({
        "Enabled": true, "Format": "A2", "MasterKeyId": 3, "KeyIds": [3], "ReadFormats": ["A1", "A2"], "ReadUnencrypted": true,
        // Computed with `openssl kdf` from the key file.
        "Fingerprints": {"3": "489c08f2cacd31a32fad2e8d52e64722"},
    });
    ensure!(status["Encryption"] == expected, "{status}");
    let requests = &status["Requests"];
    let size: usize = sent.iter().map(|(_, file)| file.len()).sum();
    ensure!(requests["Create"]["Count"] == 2 && requests["Create"]["Bytes"] == size, "{status}");
    ensure!(requests["Read"]["Count"] == 2 && requests["Read"]["Bytes"] == size, "{status}");
    ensure!(requests["Remove"]["Count"] == 1 && requests["Remove"]["Failures"] == 0, "{status}");
    ensure!(requests["Create"]["MeanMilliseconds"].as_f64() > Some(0.0), "{status}");
    for spelling in keys.spellings()? {
        assert_no_secret::<C>(&answer.text(), Some(spelling));
    }
    expect_status(&status, &[])?;
    ensure!(status["State"] == "ok" && status["Problems"] == json!([]), "{status:#}");
    expect_history(&fixture.rest().get_json("/object-storage/history")?)?;
    for query in ["minutes=0", "minutes=1441", "since=x"] {
        ensure!(fixture.rest().get(&format!("/object-storage/history?{query}"))?.status == 400, "{query}");
    }
    for route in ["status", "history"] {
        ensure!(fixture.rest().post(&format!("/object-storage/{route}"), b"")?.status == 405);
    }
    Ok(())
}

fn locations_come_in_pages<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let study = upload(&fixture, 1, 7)?[0].0.study.clone();
    let page = |query: &str| -> Result<Vec<Value>> {
        let page = fixture.rest().get_json(&format!("/object-storage/locations/{study}{query}"))?;
        Ok(page.as_array().context("no list")?.clone())
    };
    let whole = page("")?;
    ensure!(whole.len() == 7, "{whole:#?}");
    let pages = [page("?limit=3")?, page("?since=3&limit=3")?, page("?since=6&limit=3")?];
    ensure!(pages.each_ref().map(Vec::len) == [3, 3, 1], "{pages:#?}");
    ensure!(pages.concat() == whole, "{pages:#?}");
    ensure!(page("?since=7")?.is_empty() && page("?since=1000000")?.is_empty());
    for query in ["?limit=0", "?limit=10001", "?limit=x", "?since=-1"] {
        let answer = fixture.rest().get(&format!("/object-storage/locations/{study}{query}"))?;
        ensure!(answer.status == 400, "{query}: {}", answer.status);
    }
    Ok(())
}

fn unreachable_bucket_ends_locations_at_once<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let study = upload(&fixture, 1, 40)?[0].0.study.clone();
    fixture.bucket.faults().push(FaultRule::new(Fault::slow_down()).times(usize::MAX));
    fixture.bucket.reset_counts();
    let answer = fixture.rest().get(&format!("/object-storage/locations/{study}"))?;
    ensure!(answer.status == 502 && answer.text().contains("HTTP 503"), "{}", answer.text());
    // Sixteen attachments are looked for at once, three times each.
    ensure!(fixture.bucket.requests().total <= 48, "{:?}", fixture.bucket.requests());
    Ok(())
}

fn locations_describe_each_attachment<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let fixture = Fixture::<C>::with(
        &json!({"HybridMode": "WriteToFileSystem", "StorageEncryption": encryption(&keys, "A2")}),
    )?;
    let sent = upload(&fixture, 1, 4)?;
    let uuids: Vec<String> =
        sent.iter().map(|(uploaded, _)| uuid_of(&fixture, &uploaded.id)).collect::<Result<_>>()?;
    move_to(&fixture, "object-storage", &[&sent[1].0.id, &sent[2].0.id])?;
    // Two copies of the third, none of the fourth, and the first is not encrypted.
    let objects = fixture.objects();
    write_file(&fixture.orthanc, &uuids[2], &objects[&format!("{}.dcm.enc", uuids[2])].bytes)?;
    std::fs::remove_file(path_of(&fixture.orthanc, &uuids[3]))?;
    write_file(&fixture.orthanc, &uuids[0], &sent[0].1)?;

    let optional = ["/StorageDirectory", "/ReadsFromSecondStorage"];
    expect_status(&fixture.rest().get_json("/object-storage/status")?, &optional)?;

    let all = fixture.rest().get_json(&format!("/object-storage/locations/{}", sent[0].0.study))?;
    let of = |index: usize| {
        let found =
            all.as_array().into_iter().flatten().find(|location| location["Uuid"] == uuids[index].as_str());
        found.cloned().unwrap_or_default()
    };
    ensure!(of(0)["Location"] == "file-system" && of(0)["Format"] == "clear", "{all:#}");
    ensure!(of(0)["KeyId"].is_null() && of(0)["Type"] == 1 && of(0)["Name"] == "dicom", "{all:#}");
    ensure!(
        of(1)["Location"] == "object-storage" && of(1)["Format"] == "A2" && of(1)["KeyId"] == 3,
        "{all:#}"
    );
    ensure!(of(1)["ObjectName"] == format!("{}.dcm.enc", uuids[1]), "{all:#}");
    ensure!(of(1)["Size"] == sent[1].1.len() && of(1)["Resource"] == sent[1].0.id.as_str(), "{all:#}");
    ensure!(of(2)["Location"] == "both" && of(2)["Copies"].as_array().map(Vec::len) == Some(2), "{all:#}");
    ensure!(of(3)["Location"] == "missing" && of(3)["Format"].is_null(), "{all:#}");
    ensure!(all.as_array().map(Vec::len) == Some(4), "{all:#}");

    for unknown in ["00000000-00000000-00000000-00000000-00000000", "x", ".."] {
        let answer = fixture.rest().get(&format!("/object-storage/locations/{unknown}"))?;
        ensure!(answer.status == 404, "{unknown}: {}", answer.status);
    }
    Ok(())
}

fn locations_name_archived_objects<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let fixture = Fixture::<C>::with(&json!({"StorageEncryption": encryption(&keys, "A2")}))?;
    let sent = upload(&fixture, 1, 2)?;
    let uuid = uuid_of(&fixture, &sent[0].0.id)?;
    let name = format!("{uuid}.dcm.enc");
    let size = fixture.bucket.object(C::BUCKET, &name).context("no object")?.bytes.len();
    fixture.bucket.archive(C::BUCKET, &name);
    let all = fixture.rest().get_json(&format!("/object-storage/locations/{}", sent[0].0.study))?;
    for location in all.as_array().context("no list")? {
        let archived = location["Uuid"] == uuid.as_str();
        let copy = &location["Copies"][0];
        ensure!(
            location["Location"] == "object-storage"
                && copy["Archived"] == archived
                && location["Archived"] == archived,
            "{all:#}"
        );
        ensure!(location["Format"].is_null() == archived && copy["Format"].is_null() == archived, "{all:#}");
        ensure!(!archived || (copy["StoredSize"] == size && copy["Name"] == name.as_str()), "{all:#}");
    }
    Ok(())
}
