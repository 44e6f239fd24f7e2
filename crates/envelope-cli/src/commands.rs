//! The commands: keygen, inspect, wrapped-key, encrypt and decrypt.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_envelope::{A2Header, DecryptError, KeyWrap, inspect, new_key_file};

use crate::args::{Command, HELP};
use crate::batch::convert;
use crate::console::{Console, shown};
use crate::convert::{Work, is_envelope};
use crate::failures::Failures;
use crate::input::Input;
use crate::keys::{read_ring, read_unwrapped};
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
        Command::WrappedKey { input } => print_wrapped_key(&input),
        Command::Decrypt { keys, files } => convert(&Work::Decrypt { ring: read_ring(&keys)? }, &files),
        Command::DecryptUnwrapped { key, files } => {
            convert(&Work::Decrypt { ring: read_unwrapped(&key)? }, &files)
        }
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

/// Prints the file key that a key service has wrapped, in base64.
fn print_wrapped_key(file: &Path) -> anyhow::Result<()> {
    let start = Input::open(file)?.read_up_to(LONGEST_HEADER)?;
    let wrapped =
        A2Header::parse(&start).with_context(|| shown(file))?.and_then(|header| match header.wrap() {
            KeyWrap::Service(wrap) => Some(STANDARD.encode(wrap.wrapped)),
            KeyWrap::MasterKey { .. } => None,
        });
    let wrapped = wrapped.with_context(|| format!("{}: no key service has wrapped the key", shown(file)))?;
    print(&format!("{wrapped}\n"))
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
            let wrap = match (details.service, details.service_key) {
                (Some(service), Some(key)) => format!("key wrapped by {service} {key}").trim_end().to_owned(),
                _ => "key wrapped with AES-256-KWP".to_owned(),
            };
            format!(", segments {} of {} bytes, {wrap}", details.segments, details.segment_size)
        }
    };
    Ok(format!(
        "{name}: {}, master key {}, envelope {} bytes, plaintext {} bytes{details}\n",
        found.format, found.key_id, found.envelope_len, found.plaintext_len
    ))
}
