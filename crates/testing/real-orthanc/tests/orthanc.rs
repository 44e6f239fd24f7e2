//! Orthanc with its built-in storage, started, stopped and killed.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::{Orthanc, StartError, dicom, dicom_send, dicom_send_folder};

fn slice() -> Result<Vec<u8>> {
    dicom::ct_series(1, 64, 64).next().context("no file")?
}

#[test]
fn generated_files_are_valid_and_stored_by_dicom() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = dicom::write_study(folder.path(), 3, 1)?;
    for file in &files {
        let tested = Command::new("dcmftest").arg(file).output()?;
        ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
        let dumped = Command::new("dcmdump").arg(file).output()?;
        let errors = String::from_utf8_lossy(&dumped.stderr);
        ensure!(dumped.status.success() && errors.is_empty(), "{errors}");
    }
    let orthanc = Orthanc::builder().start()?;
    dicom_send(&orthanc, &files[..1])?;
    assert_eq!(orthanc.rest().get_json("/statistics")?["CountInstances"], 1);
    dicom_send_folder(&orthanc, folder.path())?;
    assert_eq!(orthanc.rest().get_json("/statistics")?["CountInstances"], 4);
    Ok(())
}

#[test]
fn restart_keeps_files_and_takes_new_options() -> Result<()> {
    let mut orthanc = Orthanc::builder().start()?;
    let before = (orthanc.url(), orthanc.dicom_port(), orthanc.folder().to_owned());
    let id = orthanc.rest().upload(&slice()?)?.id;
    orthanc.configure(|builder| builder.section("DicomAet", "RENAMED"));
    orthanc.stop()?;
    assert!(orthanc.pid().is_none() && orthanc.stop().is_err());
    orthanc.start_again()?;
    assert_eq!(before, (orthanc.url(), orthanc.dicom_port(), orthanc.folder().to_owned()));
    assert_eq!(orthanc.rest().get_json("/system")?["DicomAet"], "RENAMED");
    assert!(orthanc.rest().file(&id)? == slice()?);
    assert!(orthanc.start_again().is_err(), "already running");
    Ok(())
}

#[test]
fn credentials_are_not_inherited() -> Result<()> {
    const SECRET: &str = "of-the-developer";
    if env::var("AWS_PROFILE").as_deref() != Ok(SECRET) {
        // The environment of a running process cannot be changed safely, so a child repeats this test.
        let mut child = Command::new(env::current_exe()?);
        child.args(["--exact", "credentials_are_not_inherited"]);
        let names = ["AWS_PROFILE", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "HTTPS_PROXY"];
        let output = child.envs(names.map(|name| (name, SECRET))).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    let orthanc = Orthanc::builder().environment("AWS_REGION", "of-the-test").start()?;
    let pid = orthanc.pid().context("no pid")?;
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"))?;
    assert!(!environment.contains(SECRET), "{environment}");
    let home = format!("HOME={}", orthanc.folder().display());
    for expected in ["AWS_REGION=of-the-test", &home] {
        assert!(environment.split('\0').any(|variable| variable == expected), "{expected}");
    }
    Ok(())
}

#[test]
fn failed_start_reports_the_error_lines() {
    let error = Orthanc::builder().section("DicomThreadsCount", "many").start().err();
    assert!(matches!(error, Some(StartError::Exited { .. })), "{error:?}");
    let lines = error.as_ref().map(StartError::errors).unwrap_or_default();
    assert!(lines.iter().any(|line| line.contains("DicomThreadsCount")), "{lines:?}");
    assert!(error.is_some_and(|error| error.to_string().contains("DicomThreadsCount")));
    let error = Orthanc::builder().plugin("/nonexistent/libPlugin.so").start().err();
    assert!(matches!(error, Some(StartError::Prepare(_))), "{error:?}");
}

#[test]
fn orthanc_outlives_thread_but_not_handle() -> Result<()> {
    let started = std::thread::spawn(|| Orthanc::builder().start()).join();
    let orthanc = started.map_err(|_| anyhow::anyhow!("panic"))??;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(orthanc.rest().get("/system")?.status, 200);
    let folder = orthanc.folder().to_owned();
    let process = format!("/proc/{}", orthanc.pid().context("no pid")?);
    assert!(folder.is_dir() && Path::new(&process).exists());
    drop(orthanc);
    assert!(!folder.exists() && !Path::new(&process).exists());
    Ok(())
}

#[test]
fn resources_are_measured() -> Result<()> {
    let orthanc = Orthanc::builder().start()?;
    assert!(orthanc.thread_count()? > 50 && orthanc.open_sockets()? >= 2);
    let time = orthanc.cpu_seconds()?;
    let before = orthanc.peak_memory_bytes()?;
    orthanc.rest().upload(&dicom::multi_frame(60)?)?;
    let after = orthanc.peak_memory_bytes()?;
    assert!(after > before + 50_000_000, "{before} {after}");
    assert!(orthanc.cpu_seconds()? > time);
    orthanc.reset_peak_memory()?;
    assert!(orthanc.peak_memory_bytes()? < after);
    Ok(())
}
