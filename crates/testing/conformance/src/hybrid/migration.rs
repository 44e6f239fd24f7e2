//! From an Orthanc with its own storage to a bucket, while it serves its clients (docs/hybrid.md).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::{Client, Orthanc};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, library, request, with};
use crate::hybrid::support::{
    encryption, expect_no_errors, files_of_attachments, locations, move_to, stored_files, with_existing_files,
};
use crate::orthanc::fixture::{Fixture, at_once, slice, slices};
use crate::write_back::support::StateFolder;

tests! {
    OneCloud:
        plain_files_move_into_the_bucket,
        plain_files_move_into_an_encrypted_bucket,
        plain_files_move_by_way_of_write_back,
        plain_files_move_by_way_of_encrypted_write_back,
        files_of_another_mode_move_by_way_of_write_back,
        documented_script_logs_in_stops_and_resumes,
        relative_storage_directory_is_resolved,
        unfinished_files_are_deleted_at_the_start,
}

/// Stores three studies, each with an attachment of a user. Returns instances and their files.
fn store_studies(rest: &Client) -> Result<Vec<(String, Vec<u8>)>> {
    let mut sent = Vec::new();
    for study in 1..=3 {
        for file in slices(study, 4)? {
            let uploaded = rest.upload(&file)?;
            rest.put(&format!("/studies/{}/attachments/1024", uploaded.study), b"a report")?.ok()?;
            sent.push((uploaded.id, file));
        }
    }
    Ok(sent)
}

fn migrate<C: Cloud>(mode: &str, encryption: &Value, prefix: &[u8]) -> Result<()> {
    let mut sent = Vec::new();
    let section = json!({"HybridMode": mode, "StorageEncryption": encryption});
    let fixture = with_existing_files::<C>(&section, |rest| {
        sent = store_studies(rest)?;
        Ok(())
    })?;
    move_all(&fixture, &sent, prefix)
}

/// Moves all files into the bucket, while clients read and store.
fn move_all<C: Cloud>(fixture: &Fixture<C>, sent: &[(String, Vec<u8>)], prefix: &[u8]) -> Result<()> {
    let rest = fixture.rest();
    ensure!(stored_files(&fixture.orthanc).len() == 15);
    let expect_served = || -> Result<()> {
        for (instance, file) in sent {
            ensure!(rest.file(instance)? == *file, "{instance}");
            rest.get_json(&format!("/instances/{instance}/tags"))?;
        }
        Ok(())
    };
    expect_served()?;
    let list = rest.get_json("/studies")?;
    let studies: Vec<_> = list.as_array().context("no list")?.iter().filter_map(Value::as_str).collect();
    at_once(2, |client| {
        if client == 0 {
            let mut moves = studies.iter().map(|study| move_to(fixture, "object-storage", &[study]));
            return moves.try_for_each(|moved| moved.map(drop));
        }
        for file in slices(9, 10)? {
            rest.upload(&file)?;
            expect_served()?;
        }
        Ok(())
    })?;
    ensure!(
        files_of_attachments(&fixture.orthanc.storage_folder()).is_empty(),
        "{:?}",
        stored_files(&fixture.orthanc)
    );
    StateFolder::of(&fixture.orthanc.storage_folder()).expect_uploaded()?;
    for study in &studies {
        let places = locations(fixture, study)?;
        // In the mode WriteBack, what has been read is also in the cache.
        ensure!(
            places.iter().all(|place| ["object-storage", "cached"].contains(&place.as_str())),
            "{places:?}"
        );
    }
    expect_served()?;
    for (key, object) in fixture.objects() {
        ensure!(key.ends_with(".enc") != prefix.is_empty() && object.bytes.starts_with(prefix), "{key}");
    }
    ensure!(fixture.keys().len() == 25, "{:?}", fixture.keys());
    expect_no_errors(fixture)
}

fn plain_files_move_into_the_bucket<C: Cloud>() -> Result<()> {
    migrate::<C>("WriteToObjectStorage", &json!({}), b"")
}

fn plain_files_move_into_an_encrypted_bucket<C: Cloud>() -> Result<()> {
    migrate::<C>("WriteToObjectStorage", &encryption(&Keys::new()?, "A2"), b"A2")
}

fn plain_files_move_by_way_of_write_back<C: Cloud>() -> Result<()> {
    migrate::<C>("WriteBack", &json!({}), b"")
}

fn plain_files_move_by_way_of_encrypted_write_back<C: Cloud>() -> Result<()> {
    migrate::<C>("WriteBack", &encryption(&Keys::new()?, "A2"), b"A2")
}

fn files_of_another_mode_move_by_way_of_write_back<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for (encryption, prefix) in [(json!({}), &b""[..]), (encryption(&keys, "A2"), b"A2")] {
        let section = |mode| json!({"HybridMode": mode, "StorageEncryption": encryption});
        let mut fixture = Fixture::<C>::with(&section("WriteToFileSystem"))?;
        let sent = store_studies(fixture.rest())?;
        fixture.orthanc.stop()?;
        fixture.configure(&section("WriteBack"));
        fixture.orthanc.start_again()?;
        move_all(&fixture, &sent, prefix)?;
    }
    Ok(())
}

/// Returns the script of the documentation, for the Orthanc at `url`.
fn script(url: &str) -> Result<String> {
    let document = include_str!("../../../../../docs/hybrid.md");
    let mut blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let script = blocks.find(|block| block.contains("request()")).context("the document has no script")?;
    Ok(script.replace("http://localhost:8042", url))
}

/// Runs the script. Returns its exit code and what it has printed.
fn run_script(script: &str, password: &str) -> Result<(Option<i32>, String)> {
    let home = tempfile::tempdir()?;
    let netrc = format!("machine 127.0.0.1 login user password {password}\n");
    fs::write(home.path().join("orthanc.netrc"), netrc)?;
    let output = Command::new("sh").args(["-c", script]).env("HOME", home.path()).output()?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&printed).into_owned()))
}

/// Demands a password for the routes of the script. `AuthenticationEnabled` would do so for the tests too.
const FILTER: &str = "
    function IncomingHttpRequestFilter(method, uri, ip, username, headers)
        local free = uri ~= '/patients' and uri ~= '/move-storage'
        return free or headers['authorization'] == 'Basic dXNlcjpzZWNyZXQ='
    end";

fn documented_script_logs_in_stops_and_resumes<C: Cloud>() -> Result<()> {
    let section = json!({"HybridMode": "WriteToObjectStorage"});
    let mut fixture = with_existing_files::<C>(&section, |rest| store_studies(rest).map(drop))?;
    fixture.orthanc.stop()?;
    let filter = fixture.orthanc.folder().join("filter.lua");
    fs::write(&filter, FILTER)?;
    fixture.orthanc.configure(|builder| builder.section("LuaScripts", json!([filter])));
    fixture.orthanc.start_again()?;
    let script = script(&fixture.orthanc.url())?;
    let left = || stored_files(&fixture.orthanc).len();

    let (code, printed) = run_script(&script, "wrong")?;
    ensure!(code == Some(22) && left() == 15, "{code:?} {printed}");

    // The second of three patients fails: each has five attachments.
    let denied =
        FaultRule::new(Fault::status(403, C::MISSING_PERMISSION)).on(request::CREATE).skip(5).times(100);
    fixture.bucket.faults().push(denied);
    fixture.bucket.reset_counts();
    let (code, printed) = run_script(&script, "secret")?;
    ensure!(code == Some(22) && printed.contains("attachments that failed: 5"), "{code:?} {printed}");
    ensure!(left() == 10, "{printed}");
    let uploads = fixture.bucket.requests().of(request::CREATE);
    ensure!(uploads <= 10, "the third patient was tried: {uploads} uploads");

    fixture.bucket.faults().clear();
    let (code, printed) = run_script(&script, "secret")?;
    ensure!(code == Some(0) && printed.ends_with("All files are in the bucket.\n"), "{code:?} {printed}");
    ensure!(left() == 0 && fixture.keys().len() == 15, "{:?}", fixture.keys());
    Ok(())
}

fn relative_storage_directory_is_resolved<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let mut orthanc = Orthanc::builder().section("StorageDirectory", "relative/files").start()?;
    let uploaded = orthanc.rest().upload(&slice()?)?;
    ensure!(files_of_attachments(&orthanc.folder().join("relative/files")).len() == 1);
    orthanc.stop()?;
    let section = with(C::section(&bucket.endpoint()), &json!({"HybridMode": "WriteToObjectStorage"}));
    let library = library::<C>()?;
    orthanc.configure(|builder| builder.plugin(library).section(C::SECTION, section));
    orthanc.start_again()?;
    ensure!(orthanc.rest().file(&uploaded.id)? == slice()?);
    Ok(())
}

fn unfinished_files_are_deleted_at_the_start<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    fixture.orthanc.kill()?;
    let folder = fixture.orthanc.storage_folder().join(".orthanc-object-storage");
    fs::create_dir_all(&folder)?;
    let unfinished = folder.join("0123456789abcdef0123456789abcdef");
    fs::write(&unfinished, "half a fi")?;
    fixture.orthanc.start_again()?;
    ensure!(!unfinished.exists(), "the file is still there");
    Ok(())
}
