//! Shared by the tests: a folder to run the program in.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses a part"
)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
pub const OTHER: &str = "00000000-3a2c-4b7e-9d0a-1f6f5c1d2e3b";

pub struct Bench(TempDir);

impl Bench {
    /// A folder with the key files `one.key` and `two.key`, and `plain`, which has more than two segments.
    pub fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        for key in ["one.key", "two.key"] {
            bench.done(&["keygen", key]);
        }
        fs::write(bench.path("plain"), plaintext()).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, in the folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orthanc-envelope"));
        command.current_dir(self.0.path());
        command
    }

    pub fn run(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // The program may exit before it has read everything.
            scope.spawn(move || pipe.write_all(stdin).ok());
            child.wait_with_output().unwrap()
        })
    }

    /// Runs a command that must succeed without messages; returns its standard output.
    pub fn done(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments, b"");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), message.as_ref()), (Some(0), ""), "{arguments:?}");
        output.stdout
    }

    /// Runs a command that must fail with this code; returns its message.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments, b"");
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.lines().any(|line| line.starts_with("orthanc-envelope: ")), "{message}");
        message
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn plaintext() -> Vec<u8> {
    (0..150_000_u32).map(|i| (i % 251).to_le_bytes()[0]).collect()
}
