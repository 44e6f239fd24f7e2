//! Deletions: acknowledged at once, done in the background, and never forgotten.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fake_cloud::{Fault, FaultRule, Operation};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LogLevel};
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, configuration, eventually, library, load, markers, object_url, refusal,
    request, section, uuid, with,
};

tests! {
    EveryCloud:
        many_attachments_are_deleted_with_few_requests,
        failed_store_leaves_no_object;
    OneCloud:
        deletion_does_not_wait_for_the_server,
        deletion_survives_the_end_of_the_plugin,
        deletion_is_taken_over_from_an_orthanc_that_has_ended,
        refused_deletion_is_retried,
        deletion_without_a_state_directory_is_immediate,
        deletion_on_a_full_state_directory_is_immediate,
        delayed_deletion_on_a_full_state_directory_fails,
        deleted_attachment_is_kept_for_the_delay,
        delay_without_a_state_directory_prevents_the_start,
}

const LONG: Duration = Duration::from_secs(60);

fn many_attachments_are_deleted_with_few_requests<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    let count = 2 * usize::try_from(C::LARGEST_DELETION)? + 50;
    for number in 0..count {
        plugin.insert(&format!("{}.dcm", uuid(number)), "x");
    }
    for number in 0..count {
        plugin.remove(&uuid(number))?;
    }
    assert_eq!(plugin.stored(), [""; 0]);
    let requests = plugin.server.requests();
    // Two full requests and the rest, and one more if the machine was busy for a while.
    assert!((3..=4).contains(&requests.of(Operation::DeleteObjects)), "{requests:?}");
    assert_eq!(requests.of(request::REMOVE), 0);
    plugin.check()
}

fn failed_store_leaves_no_object<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 0}))?;
    // The object is stored, but neither the answer nor the look at the object arrives.
    plugin.fault(request::CREATE, Fault::CloseBeforeResponse, 1);
    let look = plugin.fault(request::HEAD, Fault::slow_down(), usize::MAX);
    assert_eq!(plugin.orthanc.create(UUID, DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
    assert!(look.fired() > 0, "nobody looks");
    plugin.settle();
    assert_eq!(plugin.stored(), [""; 0]);
    plugin.check()
}

/// Returns a plugin whose server has stopped, and which has deleted an attachment since.
fn deleting<C: Cloud>() -> Result<LoadedPlugin<C>> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.create(UUID, b"x")?;
    plugin.server.stop();
    plugin.remove(UUID)?;
    Ok(plugin)
}

fn deletion_does_not_wait_for_the_server<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for number in 0..200 {
        plugin.insert(&format!("{}.dcm", uuid(number)), "x");
    }
    plugin.server.stop();
    plugin.server.reset_counts();
    for number in 0..200 {
        plugin.remove(&uuid(number))?;
    }
    assert_eq!(markers(&plugin.orthanc.storage_folder()).len(), 200);
    let warned = || {
        let warnings = plugin.lines(LogLevel::Warning);
        warnings.iter().any(|line| line.contains("deletions pending: 200"))
    };
    eventually("the warning", LONG, warned)?;
    plugin.server.start_again()?;
    assert_eq!(plugin.stored(), [""; 0]);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn deletion_survives_the_end_of_the_plugin<C: Cloud>() -> Result<()> {
    let mut plugin = deleting::<C>()?;
    let start = Instant::now();
    plugin.orthanc.finalize();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    plugin.server.start_again()?;
    let configuration = configuration::<C>(section::<C>(&plugin.server, &json!({})));
    plugin.orthanc.reset(FakeOrthancOptions::with_configuration(configuration))?;
    assert_eq!(plugin.stored(), [""; 0]);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn deletion_is_taken_over_from_an_orthanc_that_has_ended<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.insert(C::BUCKET, KEY, "x");
    let folder = tempfile::tempdir()?;
    let state = json!({"StateDirectory": folder.path()});
    let mut with_state = configuration::<C>(section::<C>(&server, &state));
    with_state["StorageDirectory"] = json!(folder.path().join("storage"));
    let mut first = load::<C>(with_state.clone())??;
    let mut second = load::<C>(with_state.clone())??;
    server.stop();
    assert_eq!(second.remove(UUID, DICOM), Ok(()));
    let marker = folder.path().join(format!("1/deleting/{}/{UUID}.{DICOM}", &UUID[..2]));
    assert!(marker.exists(), "the second has its own folder");
    second.finalize();
    first.finalize();
    server.start_again()?;
    // The third one has the folder of the first.
    let third = FakeOrthanc::load(library::<C>()?, FakeOrthancOptions::with_configuration(with_state))?;
    eventually("the deletion", LONG, || server.keys(C::BUCKET).is_empty())?;
    assert_eq!(third.logs_at(LogLevel::Error), [""; 0]);
    Ok(())
}

fn refused_deletion_is_retried<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.create(UUID, b"x")?;
    let denied = plugin.fault(request::REMOVE, Fault::status(403, "AccessDenied"), 3);
    plugin.remove(UUID)?;
    assert_eq!(plugin.stored(), [""; 0]);
    assert_eq!(denied.fired(), 3);
    let answer = format!("HTTP 403 {}", C::error_code("AccessDenied"));
    let warnings = plugin.lines(LogLevel::Warning);
    let about = warnings.iter().filter(|line| line.contains(&object_url::<C>(KEY))).collect::<Vec<_>>();
    assert!(about.len() == 1 && about[0].contains(&answer), "one warning for three failures: {warnings:#?}");
    plugin.check()
}

/// Returns a plugin whose state directory cannot be created.
fn stateless<C: Cloud>(folder: &tempfile::TempDir) -> Result<LoadedPlugin<C>> {
    let file = folder.path().join("file");
    fs::write(&file, "in the way")?;
    LoadedPlugin::<C>::with(&json!({"StateDirectory": file.join("state")}))
}

fn deletion_without_a_state_directory_is_immediate<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plugin = stateless::<C>(&folder)?;
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(warnings.iter().any(|line| line.contains("StateDirectory")), "{warnings:#?}");
    plugin.create(UUID, b"x")?;
    plugin.remove(UUID)?;
    assert_eq!(plugin.server.keys(C::BUCKET), [""; 0]);
    plugin.create(UUID, b"x")?;
    let silence = FaultRule::new(Fault::Delay(LONG)).on(request::REMOVE).times(usize::MAX);
    plugin.server.faults().push(silence);
    let start = Instant::now();
    assert_eq!(plugin.orthanc.remove(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let line = plugin.new_error()?;
    assert!(line.contains(&object_url::<C>(KEY)) && line.contains("5 s"), "{line}");
    plugin.check()
}

/// Makes it impossible to mark deletions: a file in the place of the folder has the same effect as a full disk.
fn block_markers<C: Cloud>(plugin: &LoadedPlugin<C>) -> Result<()> {
    let deleting = plugin.orthanc.storage_folder().join(".orthanc-object-storage/0/deleting");
    fs::remove_dir_all(&deleting)?;
    Ok(fs::write(&deleting, "in the way")?)
}

fn delayed_deletion_on_a_full_state_directory_fails<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"DeletionDelay": 1}))?;
    plugin.create(UUID, b"x")?;
    block_markers(&plugin)?;
    assert_eq!(plugin.orthanc.remove(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
    let line = plugin.new_error()?;
    assert!(line.contains(UUID), "{line}");
    assert_eq!(plugin.server.keys(C::BUCKET), [KEY]);
    plugin.check()
}

fn deletion_on_a_full_state_directory_is_immediate<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.create(UUID, b"x")?;
    block_markers(&plugin)?;
    plugin.remove(UUID)?;
    assert_eq!(plugin.server.keys(C::BUCKET), [""; 0]);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn deleted_attachment_is_kept_for_the_delay<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"DeletionDelay": 1}))?;
    plugin.create(UUID, b"x")?;
    plugin.remove(UUID)?;
    thread::sleep(Duration::from_secs(2));
    assert_eq!(plugin.server.keys(C::BUCKET), [KEY]);
    let marked = markers(&plugin.orthanc.storage_folder());
    assert_eq!(marked.len(), 1);
    plugin.check()
}

fn delay_without_a_state_directory_prevents_the_start<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "in the way")?;
    let server = C::server()?;
    let changes = json!({"DeletionDelay": 1, "StateDirectory": file.join("state")});
    let outcome = load::<C>(configuration::<C>(with(section::<C>(&server, &json!({})), &changes)))?;
    let line = refusal::<C, _>(outcome)?;
    ensure!(line.contains("DeletionDelay") && line.contains("StateDirectory"), "{line}");
    Ok(())
}
