//! The commands: keygen, inspect, encrypt and decrypt.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{DecryptError, inspect, new_key_file};

use crate::args::{Command, HELP};
use crate::batch::convert;
use crate::console::{Console, shown};
use crate::convert::{Work, is_envelope};
use crate::failures::Failures;
use crate::input::Input;
use crate::keys::read_ring;
use crate::output::write_new_secret;
use crate::walk::walk;

/// Length of an A2 header with the longest wrapped key, which contains the identifier of a Key Vault key.
const LONGEST_HEADER: u64 = 42 + 65_535;

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("orthanc-envelope ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Keygen { out } => write_new_secret(&out, new_key_file()?.as_bytes()),
        Command::Inspect { inputs } => inspect_all(&inputs),
        Command::Encrypt { key, format, files } => {
            convert(&Work::Encrypt { ring: read_ring(&[key])?, format }, &files)
        }
        Command::Decrypt { keys, files } => convert(&Work::Decrypt { ring: read_ring(&keys)? }, &files),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints one line per file. The command fails after the last file if a file is not an envelope.
fn inspect_all(inputs: &[PathBuf]) -> anyhow::Result<()> {
    if let [input] = inputs
        && !input.is_dir()
    {
        return print(&inspect_one(input)?);
    }
    let console = Console::new(true);
    let mut failures = Failures::default();
    let mut files: u64 = 0;
    for found in walk(inputs) {
        files += 1;
        match found.and_then(|found| inspect_one(&found.path)) {
            Ok(line) => print(&line)?,
            Err(error) => failures.add(&console, &error),
        }
    }
    let summary = format!("{} of {files} files failed", failures.count());
    failures.into_result(summary)
}

fn inspect_one(file: &Path) -> anyhow::Result<String> {
    let name = shown(file);
    let mut input = Input::open(file)?;
    if input.len().is_none() {
        input = input.into_copy(&[])?;
    }
    let start = input.read_up_to(LONGEST_HEADER)?;
    let found = if is_envelope(file, &start, None) {
        inspect(&start, input.len().unwrap_or_default())
    } else {
        Err(DecryptError::NotAnEnvelope)
    };
    let found = found.with_context(|| name.clone())?;
    let details = match found.details {
        None => String::new(),
        Some(details) => {
            let wrap = match details.key_vault_kid {
                Some(kid) => format!("key wrapped by Azure Key Vault {kid}"),
                None => "key wrapped with AES-256-KWP".to_owned(),
            };
            format!(", segments {} of {} bytes, {wrap}", details.segments, details.segment_size)
        }
    };
    Ok(format!(
        "{name}: {}, master key {}, envelope {} bytes, plaintext {} bytes{details}\n",
        found.format, found.key_id, found.envelope_len, found.plaintext_len
    ))
}
