//! The program `exercise` of `test-host` with a plugin, encrypted and not, against a server on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use crypto_envelope::new_key_file;
use end_to_end::workspace::Plugin;
use serde_json::{Value, json};
use test_bucket::BucketServer;

use super::{begin, done, output};

/// The bucket that a server has by default.
const BUCKET: &str = "bucket";

/// An emulator with its program, and how it sees this machine's files.
pub(super) struct Emulator {
    /// Its program, arguments and environment; the exercise and its arguments are added.
    pub(super) command: fn() -> Result<Command>,
    /// A path as the emulated system names it.
    pub(super) path: fn(&Path) -> String,
    /// The exercise, compiled for it.
    pub(super) program: PathBuf,
}

/// The clouds whose servers can be played here.
pub(super) const CLOUDS: [Cloud; 1] = [Cloud::S3];

/// A server that plays a cloud.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cloud {
    S3,
}

impl Cloud {
    pub(super) fn plugin(self) -> Plugin {
        match self {
            Self::S3 => Plugin::AwsS3,
        }
    }

    /// A server, and the plugin's section for it.
    fn start(self) -> Result<(BucketServer, &'static str, Value)> {
        match self {
            Self::S3 => {
                let options = test_bucket::Options::default();
                let server = BucketServer::start(options.clone())?;
                let section = json!({
                    "BucketName": BUCKET,
                    "Region": options.region,
                    "AccessKey": options.access_key,
                    "SecretKey": options.secret_key,
                    "Endpoint": server.endpoint(),
                    "VirtualAddressing": false,
                });
                Ok((server, "AwsS3Storage", section))
            }
        }
    }
}

/// Stores, reads and removes with a plugin's library: in clear, and with both formats of encryption.
pub(super) fn run(cloud: Cloud, library: &Path, emulator: &Emulator, folder: &Path) -> Result<()> {
    let key = folder.join("master.key");
    fs::write(&key, new_key_file()?.as_bytes())?;
    for format in [None, Some("A1"), Some("A2")] {
        begin(&format!("{}, {}", cloud.plugin().library(), format.unwrap_or("in clear")));
        let (server, name, mut section) = cloud.start()?;
        if let Some(format) = format {
            let key = (emulator.path)(&key);
            section["StorageEncryption"] = json!({ "MasterKey": [1, key], "Format": format });
        }
        let configuration = folder.join("orthanc.json");
        let mut root = json!({});
        root[name] = section;
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
