//! Encryption and decryption of one file.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use crypto_envelope::{
    A1Decryptor, A2Decryptor, DecryptError, Decryptor, EncryptError, Encryptor, Format, KeyRing,
    RECOGNIZE_LEN, RevocableTarget, identify, recognize,
};

use crate::args::{Existing, usage};
use crate::console::{Console, shown};
use crate::input::{Input, is_stdio};
use crate::output::{PendingFile, StandardOutput, TwoPasses};

/// The extension of envelopes in the flat structure.
const EXTENSION: &str = "enc";

/// What to do with each file.
pub(crate) enum Work {
    Encrypt { ring: KeyRing, format: Format },
    Decrypt { ring: KeyRing },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The output existed.
    Skipped,
}

/// What one file is converted with.
pub(crate) struct Converter<'a> {
    pub(crate) work: &'a Work,
    /// Takes precedence over the UUID in the name.
    pub(crate) uuid: Option<&'a str>,
    pub(crate) existing: Existing,
    pub(crate) console: &'a Console,
}

impl Work {
    /// Past participle, for messages.
    pub(crate) fn done(&self) -> &'static str {
        match self {
            Self::Encrypt { .. } => "encrypted",
            Self::Decrypt { .. } => "decrypted",
        }
    }

    /// Returns the name of the output of a file: as in a bucket or in Orthanc's storage folder, whose files are named
    /// by UUID alone.
    pub(crate) fn output_name(&self, input: &Path) -> PathBuf {
        let extension = input.extension().is_some_and(|extension| extension == EXTENSION);
        match self {
            Self::Decrypt { .. } if extension => input.with_extension(""),
            Self::Encrypt { .. } if !is_bare_uuid(input) => {
                let mut name = OsString::from(input);
                name.push(format!(".{EXTENSION}"));
                name.into()
            }
            _ => input.to_owned(),
        }
    }
}

/// Whether a file is an envelope, by its name and its first bytes. Names of the legacy structure and of the file system
/// do not say whether a file is encrypted.
pub(crate) fn is_envelope(path: &Path, start: &[u8], ring: Option<&KeyRing>) -> bool {
    let is_named_encrypted = path.extension().is_some_and(|extension| extension == EXTENSION);
    (is_named_encrypted && identify(start).is_some()) || recognize(start, ring).is_some()
}

/// Returns the UUID in a file's name: the part before the first dot.
fn uuid_in_name(path: &Path) -> Option<&str> {
    let stem = path.file_name()?.to_str()?.split('.').next()?;
    let is_uuid = stem.len() == 36
        && stem.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_uuid.then_some(stem)
}

fn is_bare_uuid(path: &Path) -> bool {
    uuid_in_name(path).is_some_and(|uuid| path.file_name().is_some_and(|name| name == uuid))
}

impl Converter<'_> {
    /// Converts a file; either path may be `-`.
    pub(crate) fn convert(&self, input: &Path, output: &Path) -> anyhow::Result<Outcome> {
        if !is_stdio(output) && self.is_to_be_skipped(input, output)? {
            return Ok(Outcome::Skipped);
        }
        match self.work {
            Work::Encrypt { ring, format } => self.encrypt(ring, *format, input, output)?,
            Work::Decrypt { ring } => self.decrypt(ring, input, output)?,
        }
        Ok(Outcome::Done)
    }

    fn is_to_be_skipped(&self, input: &Path, output: &Path) -> anyhow::Result<bool> {
        // A dangling symbolic link exists, too.
        if fs::symlink_metadata(output).is_err() {
            return Ok(false);
        }
        if fs::metadata(output).is_ok_and(|metadata| !metadata.is_file()) {
            // Renaming the temporary file to the path of a device would replace the device.
            return Err(usage(format!("{} must be a file; use - for standard output", shown(output))));
        }
        if fs::canonicalize(input)
            .is_ok_and(|input| fs::canonicalize(output).is_ok_and(|output| input == output))
        {
            return Err(usage(format!("{} cannot be both input and output", shown(input))));
        }
        match self.existing {
            Existing::Replace => Ok(false),
            Existing::Skip => Ok(true),
            Existing::Refuse => {
                Err(anyhow!("{} exists; use --force to replace it, or --skip-existing", shown(output)))
            }
        }
    }

    /// Returns the UUID given, or that of a file's name. A1 requires none.
    fn uuid_for<'a>(
        &'a self,
        format: Format,
        input: &'a Path,
        output: Option<&'a Path>,
    ) -> anyhow::Result<&'a str> {
        let in_names = || output.and_then(uuid_in_name).or_else(|| uuid_in_name(input));
        let uuid = self.uuid.or_else(in_names);
        match (format, uuid) {
            (Format::A1, uuid) => Ok(uuid.unwrap_or_default()),
            (Format::A2, Some(uuid)) => Ok(uuid),
            (Format::A2, None) => {
                let name = shown(input);
                Err(usage(format!(
                    "{name}: A2 requires the attachment's UUID, but the file's name contains none: use --uuid"
                )))
            }
        }
    }

    fn publish(&self, file: PendingFile) -> anyhow::Result<()> {
        file.publish(self.existing == Existing::Replace)
    }

    fn encrypt(&self, ring: &KeyRing, format: Format, input: &Path, output: &Path) -> anyhow::Result<()> {
        let uuid = self.uuid_for(format, input, Some(output))?;
        if is_stdio(output) {
            let mut out = StandardOutput::new();
            self.encrypt_to(ring, format, uuid, input, |bytes| out.write_all(bytes))?;
            return out.flush();
        }
        // The output is created first, so that an invalid name is reported before the work.
        let mut file = PendingFile::create(output)?;
        self.encrypt_to(ring, format, uuid, input, |bytes| file.write_all(bytes))?;
        self.publish(file)
    }

    fn encrypt_to(
        &self,
        ring: &KeyRing,
        format: Format,
        uuid: &str,
        input: &Path,
        mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut source = Input::open(input)?;
        let mut envelope = Vec::new();
        let mut encryptor =
            Encryptor::new(ring, format, uuid, &mut envelope).map_err(|error| match error {
                EncryptError::InvalidUuid(error) => usage(error.to_string()),
                other => other.into(),
            })?;
        let mut len = 0;
        source.for_each_chunk(|chunk| {
            encryptor.push(chunk, &mut envelope)?;
            write(&envelope)?;
            envelope.clear();
            len += chunk.len() as u64;
            self.console.advance(chunk.len() as u64);
            Ok(())
        })?;
        encryptor.finish(&mut envelope)?;
        write(&envelope)?;
        match source.len() {
            Some(expected) if expected != len => {
                Err(anyhow!("{} changed while it was read: {len} of {expected} bytes", shown(input)))
            }
            _ => Ok(()),
        }
    }

    fn decrypt(&self, ring: &KeyRing, input: &Path, output: &Path) -> anyhow::Result<()> {
        self.decrypt_envelope(ring, input, output).map_err(|error| match error.downcast::<DecryptError>() {
            Ok(DecryptError::InvalidUuid(error)) => usage(error.to_string()),
            Ok(error @ DecryptError::NotUnwrapped { .. }) => {
                const ADVICE: &str = "unwrap the output of wrapped-key there, and use --unwrapped-key";
                anyhow::Error::from(error).context(format!("{}: {ADVICE}", shown(input)))
            }
            Ok(DecryptError::Target(error)) => {
                let error = error.downcast::<io::Error>();
                let error = error.map_or_else(anyhow::Error::from_boxed, |error| anyhow::Error::from(*error));
                error.context(format!("cannot write {}", shown(output)))
            }
            Ok(error) => anyhow::Error::from(error).context(shown(input)),
            Err(error) => error,
        })
    }

    fn decrypt_envelope(&self, ring: &KeyRing, path: &Path, output: &Path) -> anyhow::Result<()> {
        let mut input = Input::open(path)?;
        if input.len().is_none() {
            input = input.into_copy(&[])?;
        }
        let start = input.read_up_to(RECOGNIZE_LEN as u64)?;
        let Some(header) = identify(&start).filter(|_| is_envelope(path, &start, Some(ring))) else {
            return Err(DecryptError::NotAnEnvelope.into());
        };
        let uuid = self.uuid_for(header.format, path, None)?;
        let envelope = Envelope { ring, uuid, start, rest: input, console: self.console };
        match (header.format, is_stdio(output)) {
            (_, false) => self.publish(envelope.decrypt_to(PendingFile::create(output)?)?),
            (Format::A1, true) => envelope.print_a1(),
            (Format::A2, true) => envelope.print_a2(),
        }
    }
}

/// An envelope, of which the start has been read.
struct Envelope<'a> {
    ring: &'a KeyRing,
    uuid: &'a str,
    start: Vec<u8>,
    rest: Input,
    console: &'a Console,
}

impl Envelope<'_> {
    fn len(&self) -> u64 {
        // Only pipes have none, and have been copied.
        self.rest.len().unwrap_or_default()
    }

    fn push_all(&mut self, mut push: impl FnMut(&[u8]) -> Result<(), DecryptError>) -> anyhow::Result<()> {
        push(&self.start)?;
        self.rest.for_each_chunk(|chunk| {
            push(chunk)?;
            self.console.advance(chunk.len() as u64);
            Ok(())
        })
    }

    fn decrypt_to<T: RevocableTarget>(mut self, target: T) -> anyhow::Result<T> {
        let mut decryptor = Decryptor::new(self.ring, self.uuid, self.len(), target);
        self.push_all(|chunk| decryptor.push(chunk))?;
        Ok(decryptor.finish()?)
    }

    /// Prints A1, of which nothing may be printed before its last byte has been verified: the first pass verifies, the
    /// second one prints. Both read a copy, which nobody can change in between.
    fn print_a1(self) -> anyhow::Result<()> {
        let mut copy = self.rest.into_copy(&self.start)?;
        let len = copy.len().unwrap_or_default();
        for target in [TwoPasses::verify(), TwoPasses::print()] {
            copy.rewind()?;
            let mut decryptor = A1Decryptor::new(self.ring, len, target)?;
            copy.for_each_chunk(|chunk| Ok(decryptor.push(chunk)?))?;
            decryptor.finish()?.flush()?;
        }
        Ok(())
    }

    /// A2 is verified by segment, and printed by segment.
    fn print_a2(mut self) -> anyhow::Result<()> {
        let mut decryptor = A2Decryptor::new(self.ring, self.uuid, self.len(), StandardOutput::new())?;
        self.push_all(|chunk| decryptor.push(chunk))?;
        decryptor.finish()?.flush()
    }
}
