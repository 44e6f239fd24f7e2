//! Command-line arguments and the help text.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{Format, can_be_shown};
use lexopt::ValueExt as _;

pub(crate) const HELP: &str = "\
Reads and writes the encrypted files of Orthanc's object storage plugins, without Orthanc.

  orthanc-envelope keygen OUT
      writes a new master key
  orthanc-envelope inspect IN...
      prints format, key id and sizes; requires no key
  orthanc-envelope encrypt --key ID:FILE [OPTIONS] IN... OUT
  orthanc-envelope decrypt --key ID:FILE [--key ID:FILE]... [OPTIONS] IN... OUT
      decrypt uses the key whose id is in IN
  orthanc-envelope wrapped-key IN
      prints the file key that a key service has wrapped, in base64, for the service to unwrap
  orthanc-envelope decrypt --unwrapped-key FILE [OPTIONS] IN... OUT
      FILE has the unwrapped file key in base64

  --format A1|A2   of encrypt; A1 by default, as in the plugins
  --uuid UUID      of the attachment, if the name of the only IN does not contain it; A2 is bound to it
  --force          replaces files that exist
  --skip-existing  leaves out files whose output exists: continues an interrupted command
  --quiet          prints only errors
  -h, --help; -V, --version

IN may be a folder, which means all files below it. With a folder or several IN, OUT is a folder, which is created: the
files keep their relative paths, decrypt removes .enc from their names, and encrypt adds it, except to a bare UUID.
With one file, IN and OUT may be - for standard input and output.

Exit codes: 0 success; 1 a file could not be read or written; 2 invalid arguments or key file; 3 a file is not an
envelope, was altered, or requires another key or UUID; 130 interrupted. A file gets its name only after all of it was
verified; standard output may contain the verified beginning of an A2 envelope.
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

/// What to do with an output that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Replace,
    Skip,
}

/// The files of `encrypt` and `decrypt`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Files and folders, at least one.
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) output: PathBuf,
    pub(crate) uuid: Option<String>,
    pub(crate) existing: Existing,
    pub(crate) is_quiet: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    Keygen {
        out: PathBuf,
    },
    Inspect {
        inputs: Vec<PathBuf>,
    },
    WrappedKey {
        input: PathBuf,
    },
    Encrypt {
        key: KeyArgument,
        format: Format,
        files: Files,
    },
    Decrypt {
        keys: Vec<KeyArgument>,
        files: Files,
    },
    /// With a file key that a key service has unwrapped.
    DecryptUnwrapped {
        key: PathBuf,
        files: Files,
    },
}

pub(crate) fn parse(parser: lexopt::Parser) -> anyhow::Result<Command> {
    collect(parser).map_err(|error| match error.downcast::<lexopt::Error>() {
        Ok(error) => usage(error.to_string()),
        Err(error) => error,
    })
}

/// The arguments in the order given, by kind.
#[derive(Default)]
struct Given {
    words: Vec<OsString>,
    keys: Vec<KeyArgument>,
    unwrapped_key: Option<PathBuf>,
    format: Option<Format>,
    uuid: Option<String>,
    force: bool,
    skip_existing: bool,
    quiet: bool,
}

fn collect(mut parser: lexopt::Parser) -> anyhow::Result<Command> {
    use lexopt::Arg::{Long, Short, Value};

    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("key") => given.keys.push(key_argument(&parser.value()?.string()?)?),
            Long("unwrapped-key") => given.unwrapped_key = Some(parser.value()?.into()),
            Long("format") => given.format = Some(format_argument(&parser.value()?.string()?)?),
            Long("uuid") => given.uuid = Some(parser.value()?.string()?),
            Long("force") => given.force = true,
            Long("skip-existing") => given.skip_existing = true,
            Long("quiet") => given.quiet = true,
            Value(word) => given.words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    given.into_command()
}

impl Given {
    fn into_command(mut self) -> anyhow::Result<Command> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        let command = words.next().context(UsageError("the command is missing".to_owned()))?;
        let paths: Vec<PathBuf> = words.map(PathBuf::from).collect();
        // A variable of a script that is not set must not mean the current folder.
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(usage("a name must not be empty"));
        }
        match command.to_str() {
            Some("keygen") => {
                self.refuse_options_of_others("keygen", false, false)?;
                Ok(Command::Keygen { out: only_path(paths)? })
            }
            Some("inspect") => {
                self.refuse_options_of_others("inspect", false, false)?;
                if paths.is_empty() {
                    return Err(usage("IN is missing"));
                }
                Ok(Command::Inspect { inputs: paths })
            }
            Some("wrapped-key") => {
                self.refuse_options_of_others("wrapped-key", false, false)?;
                let [input] = <[PathBuf; 1]>::try_from(paths)
                    .map_err(|_| usage("wrapped-key requires exactly one IN"))?;
                Ok(Command::WrappedKey { input })
            }
            Some("encrypt") => {
                self.refuse_options_of_others("encrypt", true, true)?;
                let [key] = <[KeyArgument; 1]>::try_from(std::mem::take(&mut self.keys))
                    .map_err(|_| usage("encrypt requires exactly one --key"))?;
                let format = self.format.unwrap_or(Format::A1);
                Ok(Command::Encrypt { key, format, files: self.files(paths)? })
            }
            Some("decrypt") => {
                self.refuse_options_of_others("decrypt", true, false)?;
                let keys = std::mem::take(&mut self.keys);
                match self.unwrapped_key.take() {
                    Some(_) if !keys.is_empty() => Err(usage("--key and --unwrapped-key exclude each other")),
                    Some(key) => Ok(Command::DecryptUnwrapped { key, files: self.files(paths)? }),
                    None if keys.is_empty() => {
                        Err(usage("decrypt requires at least one --key, or --unwrapped-key"))
                    }
                    None => Ok(Command::Decrypt { keys, files: self.files(paths)? }),
                }
            }
            _ => Err(usage(format!("unknown command{}", shown(&command)))),
        }
    }

    fn refuse_options_of_others(
        &self,
        command: &str,
        uses_keys: bool,
        has_format: bool,
    ) -> anyhow::Result<()> {
        for (name, is_given, is_accepted) in [
            ("--key", !self.keys.is_empty(), uses_keys),
            ("--unwrapped-key", self.unwrapped_key.is_some(), command == "decrypt"),
            ("--format", self.format.is_some(), has_format),
            ("--uuid", self.uuid.is_some(), uses_keys),
            ("--force", self.force, uses_keys),
            ("--skip-existing", self.skip_existing, uses_keys),
            ("--quiet", self.quiet, uses_keys),
        ] {
            if is_given && !is_accepted {
                return Err(usage(format!("{command} does not accept {name}")));
            }
        }
        Ok(())
    }

    fn files(self, mut inputs: Vec<PathBuf>) -> anyhow::Result<Files> {
        let existing = match (self.force, self.skip_existing) {
            (true, true) => return Err(usage("--force and --skip-existing exclude each other")),
            (true, false) => Existing::Replace,
            (false, true) => Existing::Skip,
            (false, false) => Existing::Refuse,
        };
        let output = inputs.pop().ok_or_else(|| usage("IN is missing"))?;
        if inputs.is_empty() {
            return Err(usage("OUT is missing"));
        }
        Ok(Files { inputs, output, uuid: self.uuid, existing, is_quiet: self.quiet })
    }
}

fn only_path(mut paths: Vec<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = paths.pop().ok_or_else(|| usage("OUT is missing"))?;
    match paths.pop() {
        Some(_) => Err(usage(format!("unexpected argument{}", shown(path.as_os_str())))),
        None => Ok(path),
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
