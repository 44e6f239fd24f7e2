//! Orthanc ends with the process that started it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use real_orthanc::Orthanc;

const CHILD: &str = "REAL_ORTHANC_CHILD";

/// The process that the test below kills; does nothing otherwise.
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
fn orthanc_dies_with_its_killed_parent() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    let pid = output.lines().find_map(|line| line.ok()?.strip_prefix("started ").map(str::to_owned));
    let status = format!("/proc/{}/status", pid.context("not started")?);
    assert!(is_alive(&status));

    child.kill()?;
    child.wait()?;
    for _ in 0..500 {
        if !is_alive(&status) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{status} is still there")
}

/// Whether the process runs. A zombie has ended: in a container, its new parent may never wait for it.
fn is_alive(status: &str) -> bool {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    text.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}
