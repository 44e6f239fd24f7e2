//! The harness with Orthanc's own storage.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::{self, Study};
use real_orthanc::{Orthanc, StartError, StopError, dicom_send};
use serde_json::json;

#[test]
fn what_is_uploaded_is_read_back_byte_for_byte_and_gone_after_a_delete() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let rest = orthanc.rest();
    let mut files: Vec<Vec<u8>> = dicom::ct_series(5, 64, 64).collect::<Result<_, _>>()?;
    files.push(dicom::multi_frame(12)?);
    for file in &files {
        let uploaded = rest.upload(file)?;
        assert_eq!(uploaded.status, "Success");
        assert!(rest.file(&uploaded.id)? == *file, "the bytes differ");
        assert!(rest.attachments(&uploaded.id)?.contains(&"dicom".to_owned()));
        assert_eq!(rest.upload(file)?.status, "AlreadyStored");
    }
    assert_eq!(rest.get_json("/statistics")?["CountStudies"], 1);
    assert_eq!(rest.get_json("/statistics")?["CountSeries"], 2);

    let study = rest.upload(&files[0])?.study;
    assert_eq!(rest.delete(&format!("/studies/{study}"))?.status, 200);
    assert_eq!(rest.get(&format!("/studies/{study}"))?.status, 404);
    assert_eq!(rest.get_json("/instances")?, json!([]));
    Ok(())
}

#[test]
fn files_are_stored_by_dicom() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let folder = tempfile::tempdir()?;
    let files = dicom::write_study(folder.path(), 10, 2)?;
    dicom_send(&orthanc, &files)?;
    assert_eq!(orthanc.rest().get_json("/statistics")?["CountInstances"], 11);
    Ok(())
}

#[test]
fn a_refused_store_is_an_error() -> Result<()> {
    // Without room for one file, Orthanc answers C-STORE with a failure.
    let orthanc = Orthanc::builder().section("MaximumStorageSize", 1).start()?;
    let folder = tempfile::tempdir()?;
    let files = dicom::write_study(folder.path(), 1, 2)?;
    assert!(dicom_send(&orthanc, &files[1..]).is_err());
    Ok(())
}

#[test]
fn generated_files_pass_dcmftest_and_dcmdump() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for file in dicom::write_study(folder.path(), 3, 1)? {
        let tested = std::process::Command::new("dcmftest").arg(&file).output()?;
        ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
        let dumped = std::process::Command::new("dcmdump").arg(&file).output()?;
        ensure!(
            dumped.status.success() && dumped.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&dumped.stderr)
        );
    }
    Ok(())
}

#[test]
fn a_restart_keeps_folder_ports_and_files_and_takes_a_changed_configuration() -> Result<()> {
    let mut orthanc = Orthanc::builder().start()?;
    let before = (orthanc.url(), orthanc.dicom_port(), orthanc.folder().to_owned());
    let file = dicom::ct_series(1, 64, 64).next().context("no file")??;
    let id = orthanc.rest().upload(&file)?.id;

    orthanc.configure(|builder| builder.section("DicomAet", "RENAMED").verbose(true));
    orthanc.stop()?;
    assert!(orthanc.pid().is_none());
    assert!(matches!(orthanc.stop(), Err(StopError::NotRunning)));
    orthanc.start_again()?;

    assert_eq!(before, (orthanc.url(), orthanc.dicom_port(), orthanc.folder().to_owned()));
    assert_eq!(orthanc.rest().get_json("/system")?["DicomAet"], "RENAMED");
    assert!(orthanc.wait_for_log("with AET RENAMED", Duration::from_secs(5)));
    assert!(orthanc.rest().file(&id)? == file);
    assert!(matches!(orthanc.start_again(), Err(StartError::Running)));
    Ok(())
}

#[test]
fn stored_files_survive_a_kill() -> Result<()> {
    let mut orthanc = Orthanc::builder().start()?;
    let file = dicom::ct_series(1, 64, 64).next().context("no file")??;
    let id = orthanc.rest().upload(&file)?.id;
    orthanc.kill()?;
    assert!(orthanc.rest().get("/system").is_err());
    orthanc.start_again()?;
    // A thread of Orthanc flushes the index: a kill before that may lose the file, but not break it.
    let known = orthanc.rest().get(&format!("/instances/{id}"))?.status;
    assert!(known == 200 || known == 404, "{known}");
    if known == 200 {
        assert!(orthanc.rest().file(&id)? == file);
    }
    Ok(())
}

#[test]
fn a_configuration_that_orthanc_refuses_gives_its_error_lines() {
    let error = Orthanc::builder().section("DicomPort", "none").section("HttpPort", "none");
    // The harness sets the ports itself; an option of the wrong type is refused.
    let error = error.section("DicomThreadsCount", "many").start().err();
    let Some(StartError::Exited { status, log }) = &error else { panic!("{error:?}") };
    assert!(!status.success());
    assert!(log.contains("DicomThreadsCount"), "{log}");
    let lines = error.as_ref().map(StartError::errors).unwrap_or_default();
    assert!(lines.iter().any(|line| line.contains("DicomThreadsCount")), "{lines:?}");
    assert!(error.is_some_and(|error| error.to_string().contains("DicomThreadsCount")));
}

#[test]
fn a_plugin_that_is_not_there_stops_the_start() {
    let error = Orthanc::builder().plugin("/nonexistent/libPlugin.so").start().err();
    assert!(matches!(error, Some(StartError::NoPlugin(_))), "{error:?}");
}

#[test]
fn nothing_is_left_after_a_drop() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let (folder, pid) = (orthanc.folder().to_owned(), orthanc.pid().context("no pid")?);
    assert!(folder.is_dir() && is_alive(pid));
    drop(orthanc);
    assert!(!folder.exists() && !is_alive(pid));
    Ok(())
}

#[test]
fn an_orthanc_outlives_the_thread_that_started_it() -> Result<()> {
    let started = std::thread::spawn(|| Orthanc::builder().start()).join();
    let orthanc = started.map_err(|_| anyhow::anyhow!("panic"))??;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(orthanc.rest().get("/system")?.status, 200);
    Ok(())
}

#[test]
fn orthancs_started_together_do_not_collide() -> Result<()> {
    let starts: Vec<_> = (0..6).map(|_| std::thread::spawn(|| Orthanc::builder().start())).collect();
    let mut urls = std::collections::HashSet::new();
    let mut running = Vec::new();
    for start in starts {
        let orthanc = start.join().map_err(|_| anyhow::anyhow!("panic"))??;
        assert!(urls.insert(orthanc.url()));
        running.push(orthanc);
    }
    Ok(())
}

#[test]
fn credentials_of_the_developer_do_not_reach_orthanc() -> Result<()> {
    let orthanc = Orthanc::builder().environment("AWS_PROFILE", "of-the-test").start()?;
    let pid = orthanc.pid().context("no pid")?;
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let names: Vec<_> = environment.split('\0').filter(|variable| variable.starts_with("AWS_")).collect();
    assert_eq!(names, ["AWS_PROFILE=of-the-test"]);
    assert!(
        environment.split('\0').any(|variable| variable == format!("HOME={}", orthanc.folder().display()))
    );
    Ok(())
}

#[test]
fn memory_time_threads_and_sockets_are_measured() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let (threads, time) = (orthanc.thread_count()?, orthanc.cpu_seconds()?);
    assert!(threads > 50, "{threads}");
    assert!(orthanc.open_sockets()? >= 2);

    let file = Study(1).multi_frame(60)?;
    let before = orthanc.peak_memory_bytes()?;
    orthanc.rest().upload(&file)?;
    let after = orthanc.peak_memory_bytes()?;
    assert!(after > before + 50_000_000, "{before} {after}");
    assert!(orthanc.cpu_seconds()? > time);
    orthanc.reset_peak_memory()?;
    assert!(orthanc.peak_memory_bytes()? < after);
    Ok(())
}

#[test]
fn a_failed_request_is_an_answer_and_a_range_is_ignored_by_this_orthanc() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let rest = orthanc.rest();
    assert_eq!(rest.get("/instances/none/file")?.status, 404);
    assert_eq!(rest.post("/instances", b"no DICOM")?.status, 400);
    assert!(rest.upload(b"no DICOM").is_err());

    let file = dicom::ct_series(1, 64, 64).next().context("no file")??;
    let id = rest.upload(&file)?.id;
    let answer = rest.get_range(&format!("/instances/{id}/attachments/dicom/data"), 0..=9)?;
    assert_eq!((answer.status, answer.body.len()), (200, file.len()));
    Ok(())
}

#[test]
fn jobs_are_waited_for() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    let rest = orthanc.rest();
    let file = dicom::ct_series(1, 64, 64).next().context("no file")??;
    let study = rest.upload(&file)?.study;
    let job =
        rest.post_json(&format!("/studies/{study}/archive"), &json!({"Asynchronous": true}))?.ok()?.json()?;
    let id = job["ID"].as_str().context("no job")?;
    assert_eq!(rest.wait_job(id, Duration::from_secs(30))?["State"], "Success");
    Ok(())
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
