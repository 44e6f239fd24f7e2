//! Command-line arguments and the help text.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{Format, can_be_shown};
use lexopt::ValueExt as _;

pub(crate) const HELP: &str = "\
Reads and writes the encrypted files of Orthanc's object storage plugins, without Orthanc.

  orthanc-envelope keygen OUT
      writes a new master key; refuses to overwrite
  orthanc-envelope inspect FILE...
      prints format, key id and sizes; requires no key
  orthanc-envelope encrypt --key ID:FILE [--format A1|A2] [--uuid UUID] IN OUT
      the format is A1 by default, as in the plugins
  orthanc-envelope decrypt --key ID:FILE [--key ID:FILE]... [--uuid UUID] IN OUT
      uses the key whose id is in IN

IN and OUT may be - for standard input and output. A2 envelopes are bound to their attachment's UUID, which is taken
from the file's name (UUID, UUID.dcm.enc and similar) unless --uuid is given.

Exit codes: 0 success; 1 a file could not be read or written; 2 invalid arguments or key file; 3 the file is not an
envelope, was altered, or requires another key or UUID. OUT is written only if all of IN was verified; standard output
may contain the verified beginning of an A2 envelope.
";

/// The command line is invalid, or names a file that cannot be used.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (see orthanc-envelope --help)", self.0)
    }
}

impl std::error::Error for UsageError {}

pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// `ID:FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyArgument {
    pub(crate) id: u32,
    pub(crate) file: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    Keygen { out: PathBuf },
    Inspect { files: Vec<PathBuf> },
    Encrypt { key: KeyArgument, format: Format, uuid: Option<String>, input: PathBuf, output: PathBuf },
    Decrypt { keys: Vec<KeyArgument>, uuid: Option<String>, input: PathBuf, output: PathBuf },
}

pub(crate) fn parse(parser: lexopt::Parser) -> anyhow::Result<Command> {
    collect(parser).map_err(|error| match error.downcast::<lexopt::Error>() {
        Ok(error) => usage(error.to_string()),
        Err(error) => error,
    })
}

fn collect(mut parser: lexopt::Parser) -> anyhow::Result<Command> {
    use lexopt::Arg::{Long, Short, Value};

    let mut words: Vec<OsString> = Vec::new();
    let mut keys = Vec::new();
    let mut format = None;
    let mut uuid = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("key") => keys.push(key_argument(&parser.value()?.string()?)?),
            Long("format") => format = Some(format_argument(&parser.value()?.string()?)?),
            Long("uuid") => uuid = Some(parser.value()?.string()?),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut rest = words.into_iter();
    let command = rest.next().context(UsageError("the command is missing".to_owned()))?;
    let mut files: Vec<PathBuf> = rest.map(PathBuf::from).collect();
    let mut file = |name: &str| {
        if files.is_empty() { Err(usage(format!("{name} is missing"))) } else { Ok(files.remove(0)) }
    };
    let encrypts = command == "encrypt";
    let uses_keys = encrypts || command == "decrypt";
    for (name, is_given, is_accepted) in [
        ("--key", !keys.is_empty(), uses_keys),
        ("--format", format.is_some(), encrypts),
        ("--uuid", uuid.is_some(), uses_keys),
    ] {
        if is_given && !is_accepted {
            return Err(usage(format!("{} does not accept {name}", command.display())));
        }
    }
    let parsed = match command.to_str() {
        Some("keygen") => Command::Keygen { out: file("OUT")? },
        Some("inspect") => {
            let mut all = vec![file("FILE")?];
            all.append(&mut files);
            Command::Inspect { files: all }
        }
        Some("encrypt") => {
            let [key] = <[KeyArgument; 1]>::try_from(keys)
                .map_err(|_| usage("encrypt requires exactly one --key"))?;
            let format = format.unwrap_or(Format::A1);
            Command::Encrypt { key, format, uuid, input: file("IN")?, output: file("OUT")? }
        }
        Some("decrypt") => {
            if keys.is_empty() {
                return Err(usage("decrypt requires at least one --key"));
            }
            Command::Decrypt { keys, uuid, input: file("IN")?, output: file("OUT")? }
        }
        _ => return Err(usage(format!("unknown command{}", shown(&command)))),
    };
    match files.first() {
        Some(surplus) => Err(usage(format!("unexpected argument{}", shown(surplus.as_os_str())))),
        None => Ok(parsed),
    }
}

fn key_argument(text: &str) -> anyhow::Result<KeyArgument> {
    // The value is not shown, because it may be the key itself.
    let invalid = || usage(format!("--key must be ID:FILE with an id from 0 to {}", u32::MAX));
    let (id, file) = text.split_once(':').filter(|(_, file)| !file.is_empty()).ok_or_else(invalid)?;
    Ok(KeyArgument { id: id.parse().map_err(|_| invalid())?, file: file.into() })
}

fn format_argument(text: &str) -> anyhow::Result<Format> {
    match text {
        "A1" => Ok(Format::A1),
        "A2" => Ok(Format::A2),
        other => Err(usage(format!("--format must be A1 or A2, got{}", shown(OsStr::new(other))))),
    }
}

/// Whether a message may show an argument. Standard error may end up in a log, and an argument in the wrong
/// place may be a key.
pub(crate) fn is_shown(argument: &OsStr) -> bool {
    argument.to_str().is_none_or(|text| can_be_shown(text, Path::is_dir))
}

/// A blank and an argument, to follow a message.
fn shown(argument: &OsStr) -> String {
    if is_shown(argument) {
        format!(" {}", argument.display())
    } else {
        " (not shown because it may be a key)".to_owned()
    }
}
