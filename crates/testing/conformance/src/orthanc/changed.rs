//! Changes of the configuration that hide what is stored, and permissions that are missing, in a real Orthanc.

use anyhow::{Result, bail};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::StartError;
use serde_json::json;
use storage_plugin::Provider;

use crate::Cloud;
use crate::fixture::{Keys, request};
use crate::orthanc::fixture::{Fixture, log_lines, slice, slices};

tests! {
    OneCloud:
        hidden_archive_is_explained,
        move_explains_hidden_objects,
        replaced_key_prevents_the_start,
        missing_permissions_are_reported_at_start,
}

fn hidden_archive_is_explained<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encrypted = json!({"StorageEncryption": keys.section(&json!({"Format": "A2"}))});
    let no_cache = |builder: real_orthanc::Builder| builder.section("MaximumStorageCacheSize", 0);
    for (was, is, remedy) in [
        (json!({}), encrypted.clone(), "ReadUnencrypted"),
        (encrypted, json!({}), "configure StorageEncryption"),
        (json!({}), json!({"RootPath": "other"}), "correct RootPath"),
        (json!({}), json!({"StorageStructure": "legacy"}), "\"StorageStructure\": \"flat\""),
    ] {
        let mut fixture = Fixture::<C>::configured(&was, no_cache)?;
        let uploaded = fixture.rest().upload(&slice()?)?;
        let (key, _) = fixture.only_object()?;
        fixture.start_again_with(&is)?;
        let file = format!("/instances/{}/file", uploaded.id);
        assert_eq!(fixture.rest().get(&file)?.status, 404, "{is}");
        let hint = format!("{}/{key} exists: ", C::URL);
        let errors = fixture.log_lines('E');
        let explains = |line: &String| line.contains(&hint) && line.contains(remedy);
        assert!(errors.iter().any(explains), "{is}: {errors:#?}");
        let locations = fixture.rest().get_json(&format!("/object-storage/locations/{}", uploaded.id))?;
        assert_eq!(locations[0]["Location"], "missing", "{locations}");
        assert!(locations[0]["Hint"].as_str().is_some_and(|line| explains(&line.to_owned())), "{locations}");
        fixture.start_again_with(&was)?;
        assert_eq!(fixture.rest().get(&file)?.status, 200, "{is}");
        let locations = fixture.rest().get_json(&format!("/object-storage/locations/{}", uploaded.id))?;
        assert!(locations[0].get("Hint").is_none(), "{locations}");
    }
    Ok(())
}

fn move_explains_hidden_objects<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    let (key, _) = fixture.only_object()?;
    fixture.start_again_with(&json!({"HybridMode": "WriteToObjectStorage", "StorageStructure": "legacy"}))?;
    let body = json!({"Resources": [uploaded.id], "TargetStorage": "file-system"}).to_string();
    assert_eq!(fixture.rest().post("/move-storage", body.as_bytes())?.status, 500);
    let warnings = fixture.log_lines('W');
    let expected = format!("is in no storage, but {}/{key} exists: ", C::URL);
    assert!(warnings.iter().any(|line| line.contains(&expected)), "{warnings:#?}");
    Ok(())
}

fn replaced_key_prevents_the_start<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encryption = json!({"StorageEncryption": keys.section(&json!({"Format": "A2"}))});
    let mut fixture = Fixture::<C>::with(&encryption)?;
    let files = slices(1, 2)?;
    let first = fixture.rest().upload(&files[0])?;
    let right = std::fs::read(keys.path("key-3.b64"))?;
    keys.write("key-3.b64", std::fs::read(keys.path("key-7.b64"))?)?;
    fixture.orthanc.stop()?;
    let Err(StartError::Exited { log, .. }) = fixture.orthanc.start_again() else { bail!("Orthanc started") };
    let errors = log_lines::<C>(&log, 'E');
    let is_about_the_key = |line: &String| line.contains("master key 3 is not") && line.contains("/key-3");
    assert_eq!(errors.iter().filter(|line| is_about_the_key(line)).count(), 1, "{errors:#?}");
    keys.write("key-3.b64", right)?;
    fixture.orthanc.start_again()?;
    assert!(fixture.rest().file(&first.id)? == files[0]);
    fixture.reset()?;
    fixture.rest().upload(&files[1])?;
    Ok(())
}

fn missing_permissions_are_reported_at_start<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let files = slices(2, 2)?;
    let stored = fixture.rest().upload(&files[0])?;
    let deny =
        |operation| FaultRule::new(Fault::status(403, C::MISSING_PERMISSION)).on(operation).times(usize::MAX);
    fixture.bucket.faults().push(deny(request::REMOVE));
    fixture.start_again_with(&json!({}))?;
    let warnings = fixture.log_lines('W');
    assert!(warnings.iter().any(|line| line.contains(C::Provider::DELETE_PERMISSIONS)), "{warnings:#?}");
    assert_eq!(fixture.log_lines('E'), [""; 0]);

    fixture.bucket.remove(C::BUCKET, ".orthanc-object-storage/write-check");
    fixture.bucket.faults().push(deny(request::CREATE));
    fixture.start_again_with(&json!({}))?;
    let errors = fixture.log_lines('E');
    assert!(errors.iter().any(|line| line.contains(C::Provider::WRITE_PERMISSIONS)), "{errors:#?}");
    assert!(fixture.rest().file(&stored.id)? == files[0], "reads go on");
    assert!(fixture.rest().upload(&files[1]).is_err());
    fixture.bucket.faults().clear();
    Ok(())
}
