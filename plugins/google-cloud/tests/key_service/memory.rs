//! File keys in the memory of a process: they are there while they are kept, and nowhere afterwards.
//!
//! A child process loads the plugin, since this one has the service, which knows the keys.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, io};

use anyhow::{Context as _, Result, ensure};
use conformance::{DICOM, library, uuid};
use fake_cloud::{BucketServer, GoogleOptions};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions};
use serde_json::{Value, json};

use crate::cloud::Google;
use crate::plugin::{configured, server};

/// The environment variable with the configuration of the child.
const CHILD: &str = "ORTHANC_STORAGE_TEST_KEYS";
/// The line that the child prints after each command.
const DONE: &str = "done: ";

/// Carries out the commands of [`Process`], and does nothing in other processes.
#[test]
fn child() -> Result<()> {
    let Ok(configuration) = env::var(CHILD) else { return Ok(()) };
    let options = FakeOrthancOptions::with_configuration(serde_json::from_str(&configuration)?);
    let mut orthanc = FakeOrthanc::load(library::<Google>()?, options)?;
    println!("\n{DONE}start");
    for command in io::stdin().lines() {
        let command = command?;
        let (verb, number) = command.split_once(' ').context("no number")?;
        let uuid = uuid(number.parse()?);
        let outcome = match verb {
            "create" => orthanc.create(&uuid, DICOM, b"content"),
            "read" => orthanc.read_whole(&uuid, DICOM).map(drop),
            "range" => orthanc.read_range(&uuid, DICOM, 1, 3).map(drop),
            _ => {
                orthanc.finalize();
                Ok(())
            }
        };
        ensure!(outcome.is_ok(), "{:?}", orthanc.logs().last());
        println!("{DONE}{command}");
    }
    Ok(())
}

/// A process with the plugin, killed when dropped.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    options: GoogleOptions,
    _server: BucketServer,
}

impl Process {
    fn start(encryption: &Value) -> Result<Self> {
        let (options, server) = server()?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", "memory::child", "--nocapture"])
            .env(CHILD, configured(&server, encryption).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut process = Self { child, input, output, options, _server: server };
        process.wait("start")?;
        Ok(process)
    }

    /// Waits until the child has carried out `command`.
    fn wait(&mut self, command: &str) -> Result<()> {
        for line in self.output.by_ref() {
            if line?.strip_prefix(DONE) == Some(command) {
                return Ok(());
            }
        }
        anyhow::bail!("the child has ended before {command:?}")
    }

    fn run(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}")?;
        self.wait(command)
    }

    /// Returns which of the keys that the service has wrapped are in the memory of the child, in their order.
    fn keys(&self) -> Result<Vec<bool>> {
        let keys = self.options.keys.plaintexts();
        let mut found = vec![false; keys.len()];
        let folder = format!("/proc/{}", self.child.id());
        let memory = File::open(format!("{folder}/mem"))?;
        let mut readable = 0;
        for line in fs::read_to_string(format!("{folder}/maps"))?.lines() {
            let (range, rest) = line.split_once(' ').context("no range")?;
            if !rest.starts_with('r') || rest.contains("[vvar") {
                continue;
            }
            let (start, end) = range.split_once('-').context("no range")?;
            let start = u64::from_str_radix(start, 16)?;
            let mut bytes = vec![0; usize::try_from(u64::from_str_radix(end, 16)?.saturating_sub(start))?];
            // Such as a part of a file that does not exist any more.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            readable += bytes.len();
            for (key, found) in keys.iter().zip(&mut found) {
                *found |= contains(&bytes, key);
            }
        }
        ensure!(readable > 10_000_000, "only {readable} bytes can be read");
        Ok(found)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `bytes` contains `key`. Keys are random, so that few places begin like one.
fn contains(bytes: &[u8], key: &[u8]) -> bool {
    let Some((first, rest)) = key.split_first() else { return false };
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

#[test]
fn pool_of_size_0_keeps_no_key() -> Result<()> {
    let mut process = Process::start(&json!({"KeyPoolSize": 0}))?;
    // The first one was only to see whether the service works.
    assert_eq!(process.keys()?, [false]);
    for (command, wrapped) in [("create 1", 2), ("create 2", 3), ("read 1", 3), ("range 2", 3), ("read 2", 3)]
    {
        process.run(command)?;
        assert_eq!(process.keys()?, vec![false; wrapped], "{command}");
    }
    Ok(())
}

#[test]
fn keys_that_leave_the_pool_are_wiped() -> Result<()> {
    let mut process = Process::start(&json!({"KeyDecayCount": 2, "KeyPoolSize": 1}))?;
    assert_eq!(process.keys()?, [true]);
    for (command, expected) in [
        ("create 1", &[true][..]),
        ("create 2", &[true]),
        // Another key takes the place of the decayed one.
        ("create 3", &[false, true]),
        ("create 4", &[false, true]),
        ("read 3", &[false, true]),
        ("read 1", &[true, false]),
        ("range 4", &[false, true]),
        ("stop 0", &[false, false]),
    ] {
        process.run(command)?;
        assert_eq!(process.keys()?, expected, "{command}");
    }
    Ok(())
}
