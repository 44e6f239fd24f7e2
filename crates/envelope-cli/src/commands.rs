//! The commands: keygen, inspect, encrypt and decrypt.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{
    A2Decryptor, DecryptError, Decryptor, Format, IDENTIFY_LEN, KeyRing, MasterKey, encrypt, identify,
    inspect, new_key_file, parse_key_file, recognize,
};
use zeroize::Zeroizing;

use crate::args::{Command, HELP, KeyArgument, is_shown, usage};
use crate::input::{Input, is_stdio};
use crate::output::{PendingFile, StreamedOutput, write_new_secret};

/// Length of an A2 header with the longest wrapped key, which contains the identifier of a Key Vault key.
const LONGEST_HEADER: u64 = 42 + 65_535;

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("orthanc-envelope ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Keygen { out } => write_new_secret(&out, new_key_file()?.as_bytes()),
        Command::Inspect { files } => inspect_all(&files),
        Command::Encrypt { key, format, uuid, input, output } => {
            let uuid = uuid.or_else(|| uuid_in_name(&output)).or_else(|| uuid_in_name(&input));
            encrypt_file(&key, format, uuid, &input, &output)
        }
        Command::Decrypt { keys, uuid, input, output } => {
            let uuid = uuid.or_else(|| uuid_in_name(&input));
            decrypt_file(&keys, uuid, &input, &output)
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn read_key(argument: &KeyArgument) -> anyhow::Result<MasterKey> {
    let name = argument.file.display();
    let content = Zeroizing::new(fs::read(&argument.file).with_context(|| {
        if is_shown(argument.file.as_os_str()) {
            format!("cannot read {name}")
        } else {
            format!(
                "cannot read the file of key {}, whose name is not shown because it may be a key",
                argument.id
            )
        }
    })?);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if fs::metadata(&argument.file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            eprintln!("warning: {name} can be read by users other than its owner; run chmod 600 on it");
        }
    }
    parse_key_file(&content).with_context(|| name.to_string())
}

fn read_ring(keys: &[KeyArgument]) -> anyhow::Result<KeyRing> {
    let (first, others) = keys.split_first().ok_or_else(|| usage("no key"))?;
    let current = read_key(first)?;
    let previous =
        others.iter().map(|key| Ok((key.id, read_key(key)?))).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(KeyRing::new(first.id, current, previous)?)
}

/// Returns the UUID in a file's name: the part before the first dot.
fn uuid_in_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.split('.').next()?;
    let is_uuid = stem.len() == 36
        && stem.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_uuid.then(|| stem.to_owned())
}

fn uuid_or_explain(uuid: Option<String>) -> anyhow::Result<String> {
    uuid.ok_or_else(|| {
        usage("A2 requires the attachment's UUID, but the file's name contains none: use --uuid")
    })
}

fn encrypt_file(
    key: &KeyArgument,
    format: Format,
    uuid: Option<String>,
    input: &Path,
    output: &Path,
) -> anyhow::Result<()> {
    let uuid = match format {
        Format::A1 => uuid.unwrap_or_default(),
        Format::A2 => uuid_or_explain(uuid)?,
    };
    let ring = read_ring(std::slice::from_ref(key))?;
    // The output is created first, so that an invalid name is reported before the work.
    let pending = if is_stdio(output) { None } else { Some(PendingFile::create(output)?) };
    let plaintext = Input::open(input)?.read_all()?;
    let envelope = encrypt(&ring, format, &uuid, &plaintext).map_err(|error| match error {
        crypto_envelope::EncryptError::InvalidUuid(error) => usage(error.to_string()),
        other => other.into(),
    })?;
    match pending {
        Some(mut pending) => {
            pending.write_all(&envelope)?;
            pending.publish()
        }
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&envelope).and_then(|()| out.flush()).context("cannot write to standard output")
        }
    }
}

fn decrypt_file(
    keys: &[KeyArgument],
    uuid: Option<String>,
    input: &Path,
    output: &Path,
) -> anyhow::Result<()> {
    let ring = read_ring(keys)?;
    let name = input.display();
    let mut input = Input::open(input)?;
    let len = input.len();
    let start = input.read_up_to(IDENTIFY_LEN as u64)?;
    let format =
        identify(&start).ok_or(DecryptError::NotAnEnvelope).with_context(|| name.to_string())?.format;
    let uuid = match format {
        Format::A1 => uuid.unwrap_or_default(),
        Format::A2 => uuid_or_explain(uuid)?,
    };
    let outcome = match (format, is_stdio(output)) {
        (_, false) => decrypt_to_file(&ring, &uuid, len, &start, input, output),
        (Format::A1, true) => decrypt_then_print(&ring, &uuid, len, &start, input),
        (Format::A2, true) => decrypt_while_printing(&ring, &uuid, len, &start, input),
    };
    outcome.map_err(|error| match error.downcast::<DecryptError>() {
        Ok(DecryptError::InvalidUuid(error)) => usage(error.to_string()),
        Ok(error) => anyhow::Error::from(error).context(name.to_string()),
        Err(error) => error,
    })
}

fn decrypt_to_file(
    ring: &KeyRing,
    uuid: &str,
    len: u64,
    start: &[u8],
    rest: Input,
    output: &Path,
) -> anyhow::Result<()> {
    let mut decryptor = Decryptor::new(ring, uuid, len, PendingFile::create(output)?);
    decryptor.push(start)?;
    rest.for_each_chunk(|chunk| Ok(decryptor.push(chunk)?))?;
    decryptor.finish()?.publish()
}

/// A1 is verified only by its last bytes, so nothing may be printed earlier.
fn decrypt_then_print(ring: &KeyRing, uuid: &str, len: u64, start: &[u8], rest: Input) -> anyhow::Result<()> {
    let mut plaintext = Vec::new();
    plaintext.try_reserve_exact(usize::try_from(len)?)?;
    let mut decryptor = Decryptor::new(ring, uuid, len, plaintext);
    decryptor.push(start)?;
    rest.for_each_chunk(|chunk| Ok(decryptor.push(chunk)?))?;
    let plaintext = decryptor.finish()?;
    let mut out = io::stdout().lock();
    out.write_all(&plaintext).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// A2 is verified by segment, and printed by segment.
fn decrypt_while_printing(
    ring: &KeyRing,
    uuid: &str,
    len: u64,
    start: &[u8],
    rest: Input,
) -> anyhow::Result<()> {
    let mut decryptor = A2Decryptor::new(ring, uuid, len, StreamedOutput::new())?;
    decryptor.push(start)?;
    rest.for_each_chunk(|chunk| Ok(decryptor.push(chunk)?))?;
    decryptor.finish()?.flush().context("cannot write to standard output")
}

/// Prints one line per file. The command fails after the last file if a file is not an envelope.
fn inspect_all(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut first_error = None;
    for file in files {
        match inspect_one(file) {
            Ok(line) => print(&line)?,
            Err(error) => {
                if let Some(earlier) = first_error.replace(error) {
                    eprintln!("orthanc-envelope: {earlier:#}");
                }
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn inspect_one(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut input = Input::open(file)?;
    let start = input.read_up_to(LONGEST_HEADER)?;
    // Names of the legacy structure and of the file system do not say whether a file is encrypted.
    let is_named_encrypted = file.extension().is_some_and(|extension| extension == "enc");
    let found = if is_named_encrypted || recognize(&start, None).is_some() {
        inspect(&start, input.len())
    } else {
        Err(DecryptError::NotAnEnvelope)
    };
    let found = found.with_context(|| name.to_string())?;
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
