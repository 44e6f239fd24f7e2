//! The Python implementation, which was written from `docs/encryption-format.md` alone, agrees with the crate
//! and with all vectors.
//!
//! The test requires `python3` with `venv`, and installs one package from PyPI once per target folder.
//! Without them the test fails instead of being skipped, because an untested document is not a specification.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{KEY_ID, UUID, Vector, a2_vectors, pattern, plaintext, ring, testdata};
use crypto_envelope::{Format, decrypt, encrypt};

const CRYPTOGRAPHY: &str = "cryptography==50.0.2";
const KEY_FILE: &str = "YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXM=\n";

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Python of a virtual environment with the package, created once per target folder.
fn python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("independent-reader");
    let bin = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    let python = folder.join(bin);
    let done = folder.join(CRYPTOGRAPHY);
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", CRYPTOGRAPHY]));
        fs::write(done, "").unwrap();
    }
    python
}

struct Reader {
    python: PathBuf,
    folder: tempfile::TempDir,
}

impl Reader {
    fn command(&self, command: &str, key: &str, uuid: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent_reader.py");
        let mut python = Command::new(&self.python);
        python.arg(script).args([command, key, uuid]);
        python
    }

    fn decrypt(&self, key: &str, uuid: &str, envelope: &[u8]) -> Option<Vec<u8>> {
        let [input, output] = ["in", "out"].map(|name| self.folder.path().join(name));
        fs::write(&input, envelope).unwrap();
        let _ = fs::remove_file(&output);
        let outcome = self.command("decrypt", key, uuid).arg(input).arg(&output).output().unwrap();
        let message = String::from_utf8_lossy(&outcome.stderr);
        match outcome.status.code() {
            Some(0) => Some(fs::read(output).unwrap()),
            Some(1) if message.starts_with("refused: ") => None,
            other => panic!("{other:?}: {message}"),
        }
    }

    fn encrypt(&self, key: &str, format: &str, plaintext: &[u8]) -> Vec<u8> {
        let [input, output] = ["in", "out"].map(|name| self.folder.path().join(name));
        fs::write(&input, plaintext).unwrap();
        run(self.command("encrypt", key, UUID).arg(format).arg(input).arg(&output));
        fs::read(output).unwrap()
    }
}

#[test]
fn python_implementation_agrees() {
    let reader = Reader { python: python(), folder: tempfile::tempdir().unwrap() };
    let key_file = reader.folder.path().join("key");
    fs::write(&key_file, KEY_FILE).unwrap();
    let key = format!("{KEY_ID}:{}", key_file.display());

    for len in [0, 1, 65535, 65536, 65537, 200_000] {
        let plaintext = plaintext(len);
        for (name, format) in [("A1", Format::A1), ("A2", Format::A2)] {
            let ours = encrypt(&ring(), format, UUID, &plaintext).unwrap();
            assert!(
                reader.decrypt(&key, UUID, &ours).unwrap() == plaintext,
                "{name}, {len} bytes, from Rust"
            );
            let theirs = reader.encrypt(&key, name, &plaintext);
            assert!(
                decrypt(&ring(), UUID, &theirs).unwrap() == plaintext,
                "{name}, {len} bytes, from Python"
            );
        }
    }

    for Vector { name, uuid, error, envelope, plaintext_len } in a2_vectors() {
        let expected = error.is_none().then(|| pattern(plaintext_len));
        assert!(reader.decrypt(&key, &uuid, &envelope) == expected, "{name}");
    }

    for (name, id) in [("empty", "3"), ("block", "7"), ("odd-70001", "3"), ("max-key-id", "4294967295")] {
        let key = format!("{id}:{}", testdata("a1").join(format!("key-{id}.b64")).display());
        let [envelope, expected] =
            ["enc", "plain"].map(|e| fs::read(testdata("a1").join(format!("{name}.{e}"))).unwrap());
        assert!(reader.decrypt(&key, UUID, &envelope).unwrap() == expected, "{name}");
    }
}
