//! No Orthanc is left behind by a process that was killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use real_orthanc::Orthanc;

const CHILD: &str = "END_TO_END_CHILD";

/// Not a test of its own: the process that is killed in the one below.
#[test]
fn child() -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        let orthanc = Orthanc::builder().start()?;
        println!("\nstarted {}", orthanc.pid().context("no pid")?);
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}

#[test]
fn orthanc_dies_with_a_killed_parent() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    let pid = output.lines().find_map(|line| line.ok()?.strip_prefix("started ").map(str::to_owned));
    let process = format!("/proc/{}", pid.context("not started")?);
    assert!(Path::new(&process).exists());

    child.kill()?;
    child.wait()?;
    for _ in 0..500 {
        if !Path::new(&process).exists() || is_zombie(&process) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("{process} is still there")
}

/// Dead, but its new parent (in a container: any process numbered 1) does not care.
fn is_zombie(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}
