//! Memory, interrupts and kills.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, UUID};

/// Size of the files, of which a command may have only a fraction in memory.
const SIZE: u64 = 128 << 20;
/// Kilobytes of address space, which includes the program.
const LIMIT: u64 = 64 << 10;

/// Runs the program with limited memory, within a shell command that calls it `$run`.
fn limited(bench: &Bench, command: &str) {
    let output = Command::new("sh")
        .args(["-c", &format!("set -e; ulimit -v {LIMIT}; {command}")])
        .env("run", env!("CARGO_BIN_EXE_orthanc-envelope"))
        .env("TMPDIR", bench.path("."))
        .current_dir(bench.path("."))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.is_empty(), "{command}: {message}");
}

#[test]
fn memory_does_not_depend_on_the_size() {
    let bench = Bench::new();
    // A sparse file takes no time to create.
    File::create(bench.path("plain")).unwrap().set_len(SIZE).unwrap();
    for format in ["A1", "A2"] {
        let encrypt = format!("$run encrypt --key 1:one.key --uuid {UUID} --format {format}");
        limited(&bench, &format!("{encrypt} plain {UUID}"));
        limited(&bench, &format!("$run decrypt --key 1:one.key {UUID} out; cmp plain out"));
        limited(&bench, &format!("$run decrypt --key 1:one.key {UUID} - | cmp - plain"));
        // A pipe, whose length nobody knows.
        let decrypt = format!("$run decrypt --key 1:one.key --uuid {UUID}");
        limited(&bench, &format!("{encrypt} - - < plain | {decrypt} - - | cmp - plain"));
        for file in [UUID, "out"] {
            fs::remove_file(bench.path(file)).unwrap();
        }
    }
}

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let bench = Bench::new();
    // Takes more than a second.
    let feed = "(head -c 1000 plain; sleep 1.2; head -c 1000 plain)";
    for (options, is_terminal, is_shown) in [("", true, true), ("--quiet", true, false), ("", false, false)] {
        let command = format!("{feed} | $run encrypt --force --key 1:one.key {options} - out");
        let mut shell = if is_terminal { Command::new("script") } else { Command::new("sh") };
        shell.args(if is_terminal { ["-qec", &command, "/dev/null"] } else { ["-c", &command, "sh"] });
        shell
            .env("run", env!("CARGO_BIN_EXE_orthanc-envelope"))
            .current_dir(bench.path("."))
            .stdin(Stdio::null());
        let output = shell.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.contains("2.0 kB, "), is_shown, "{text}");
        assert!(is_shown || text.is_empty(), "{text}");
    }
}

fn spawn(bench: &Bench, arguments: &[&str]) -> Child {
    let mut command = bench.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn partial_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".partial"))
        .count()
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn interrupted_command_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let bench = Bench::new();
        let mut child = spawn(&bench, &["encrypt", "--key", "1:one.key", "-", "out"]);
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(b"the beginning").unwrap();
        wait_until(|| partial_files(&bench.path(".")) == 1);
        send(signal, &child);
        // The writer of the pipe was interrupted, too.
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "orthanc-envelope: interrupted\n");
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(bench.names(), ["one.key", "plain", "two.key"]);
    }
}

#[test]
fn interrupt_stops_several_files() {
    let bench = Bench::new();
    fs::create_dir(bench.path("images")).unwrap();
    for name in ["a", "b", "c"] {
        File::create(bench.path(&format!("images/{name}"))).unwrap().set_len(SIZE).unwrap();
    }
    let child = spawn(&bench, &["encrypt", "--key", "1:one.key", "images", "out"]);
    wait_until(|| partial_files(&bench.path("out")) == 1);
    send("-INT", &child);
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{message}");
    let advice =
        "orthanc-envelope: stopped, repeat the command with --skip-existing to continue; files encrypted: ";
    assert!(message.starts_with(&format!("orthanc-envelope: interrupted\n{advice}")), "{message}");
    assert_eq!(partial_files(&bench.path("out")), 0);
}

#[test]
fn next_command_removes_what_a_killed_one_left() {
    let bench = Bench::new();
    fs::create_dir(bench.path("out")).unwrap();
    let feed = |name| {
        let partial = partial_files(&bench.path("out"));
        let mut child = spawn(&bench, &["encrypt", "--key", "1:one.key", "-", name]);
        child.stdin.as_mut().unwrap().write_all(b"the beginning").unwrap();
        wait_until(|| partial_files(&bench.path("out")) > partial);
        child
    };
    let running = feed("out/running");
    let mut killed = feed("out/killed");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(partial_files(&bench.path("out")), 2);
    bench.done(&["encrypt", "--key", "1:one.key", "plain", "out"]);
    assert_eq!(partial_files(&bench.path("out")), 1);
    // The other one is still in use.
    assert!(running.wait_with_output().unwrap().status.success());
    let mut names: Vec<_> =
        fs::read_dir(bench.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["plain.enc", "running"]);
}
