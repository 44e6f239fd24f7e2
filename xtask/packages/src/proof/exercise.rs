//! Runs the program `exercise` of `fake-orthanc` with a plugin and a cloud on this machine, with and without encryption.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use crypto_envelope::new_key_file;
use fake_cloud::{BUCKET, BucketServer};
use serde_json::{Value, json};
use xshell::{Cmd, Shell};

use super::step;
use crate::system::{output, shell};
use real_orthanc::workspace::Plugin;

/// An emulator of another system.
pub(super) struct Emulator {
    /// Returns a command that runs a program of the other system.
    pub(super) command: for<'a> fn(&'a Shell, &Path) -> Result<Cmd<'a>>,
    /// Returns the other system's name of a path.
    pub(super) path: fn(&Path) -> String,
    /// The exercise, compiled for the other system.
    pub(super) program: PathBuf,
}

/// Stores, reads and removes with a plugin's library: without encryption, with both formats, and with files on the disk.
pub(super) fn run(plugin: Plugin, library: &Path, emulator: &Emulator, folder: &Path) -> Result<()> {
    let key = folder.join("master.key");
    fs::write(&key, new_key_file()?.as_bytes())?;
    for format in [None, Some("A1"), Some("A2")] {
        let title = format!("{}, {}", plugin.library(), format.unwrap_or("without encryption"));
        let options = format.map_or_else(
            || json!({}),
            |format| json!({ "StorageEncryption": { "MasterKey": [1, (emulator.path)(&key)], "Format": format } }),
        );
        let printed = step(&title, || {
            let (printed, server) = exercise(plugin, library, emulator, folder, &options)?;
            check(&printed, format, &server).with_context(|| printed.clone())?;
            Ok(printed)
        })?;
        print!("{printed}");
    }
    let options = json!({ "HybridMode": "WriteToFileSystem" });
    let printed = step(&format!("{}, with files", plugin.library()), || {
        let (printed, server) = exercise(plugin, library, emulator, folder, &options)?;
        let sent = server.requests().body_bytes_received;
        // The check at start and deletions.
        ensure!(sent < 100_000, "{sent} bytes were sent to the server, not to files: {printed}");
        Ok(printed)
    })?;
    print!("{printed}");
    Ok(())
}

/// Runs the exercise with these options. Returns what it has printed, and the server that it has used.
fn exercise(
    plugin: Plugin,
    library: &Path,
    emulator: &Emulator,
    folder: &Path,
    options: &Value,
) -> Result<(String, BucketServer)> {
    let (server, mut section) = fake_cloud::serve(plugin.package(), folder, emulator.path)?;
    for (name, value) in options.as_object().into_iter().flatten() {
        section[name] = value.clone();
    }
    let configuration = folder.join("orthanc.json");
    fs::write(&configuration, json!({ plugin.section(): section }).to_string())?;
    let arguments = [library, &configuration].map(emulator.path);
    let printed = output((emulator.command)(&shell()?, &emulator.program)?.args(arguments))?;
    Ok((printed, server))
}

/// Compares the output of the exercise with what the server has seen.
fn check(printed: &str, format: Option<&str>, server: &BucketServer) -> Result<()> {
    let requests = server.requests().total;
    ensure!(requests >= 9, "the server has received only {requests} requests");
    let mut left = server.keys(BUCKET);
    // The note about the master key stays.
    left.retain(|key| !key.ends_with(".orthanc-object-storage/key-1"));
    ensure!(left.is_empty(), "objects are left: {left:?}");
    // A1 cannot decrypt ranges.
    let has_ranges = format != Some("A1");
    ensure!(printed.contains("ranges") == has_ranges, "ranges were read: {}", !has_ranges);
    Ok(())
}
