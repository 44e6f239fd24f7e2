//! The program `exercise` of `fake-orthanc` with a plugin, encrypted and not, against a server on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use crypto_envelope::new_key_file;
use fake_cloud::BucketServer;
use serde_json::json;

use super::{begin, done, output};
use crate::storage::{BUCKET, Cloud, Served};

/// An emulator with its program, and how it sees this machine's files.
pub(super) struct Emulator {
    /// Its program, arguments and environment; the exercise and its arguments are added.
    pub(super) command: fn() -> Result<Command>,
    /// A path as the emulated system names it.
    pub(super) path: fn(&Path) -> String,
    /// The exercise, compiled for it.
    pub(super) program: PathBuf,
}

/// Stores, reads and removes with a plugin's library: in clear, and with both formats of encryption.
pub(super) fn run(cloud: Cloud, library: &Path, emulator: &Emulator, folder: &Path) -> Result<()> {
    let key = folder.join("master.key");
    fs::write(&key, new_key_file()?.as_bytes())?;
    for format in [None, Some("A1"), Some("A2")] {
        begin(&format!("{}, {}", cloud.plugin().library(), format.unwrap_or("in clear")));
        let Served { server, section, mut options } = cloud.serve(folder, emulator.path)?;
        if let Some(format) = format {
            let key = (emulator.path)(&key);
            options["StorageEncryption"] = json!({ "MasterKey": [1, key], "Format": format });
        }
        let configuration = folder.join("orthanc.json");
        let mut root = json!({});
        root[section] = options;
        fs::write(&configuration, format!("{root:#}"))?;
        let mut command = (emulator.command)()?;
        command.arg(&emulator.program).arg((emulator.path)(library)).arg((emulator.path)(&configuration));
        let printed = output(&mut command)?;
        check(&printed, format, &server).with_context(|| printed.clone())?;
        done();
        print!("{printed}");
    }
    Ok(())
}

/// What it printed has to fit to what the server saw.
fn check(printed: &str, format: Option<&str>, server: &BucketServer) -> Result<()> {
    ensure!(server.requests().total >= 9, "the server had {} requests only", server.requests().total);
    ensure!(server.keys(BUCKET).is_empty(), "there are objects left: {:?}", server.keys(BUCKET));
    let with_ranges = format != Some("A1");
    ensure!(printed.contains("ranges") == with_ranges, "ranges were read or not, against what was expected");
    Ok(())
}
