//! Output: a temporary file that is renamed once all of it was verified, or standard output.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{DecryptError, PlaintextTarget, RevocableTarget};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::console::shown;

/// The beginning of the names of temporary files, and their end.
const PENDING: (&str, &str) = (".orthanc-envelope-", ".partial");

/// Whether a file is a temporary file of this program.
pub(crate) fn is_pending_file(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(PENDING.0.as_bytes()) && name.ends_with(PENDING.1.as_bytes())
}

/// Removes the temporary files that killed processes have left in a folder. Those of running ones are locked.
pub(crate) fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| is_pending_file(&entry.file_name())) {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// A temporary file next to its final path, readable only by its owner, and removed unless
/// [published](Self::publish).
pub(crate) struct PendingFile {
    file: NamedTempFile,
    path: PathBuf,
    scratch: Zeroizing<Vec<u8>>,
}

impl PendingFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(PENDING.0)
            .suffix(PENDING.1)
            .tempfile_in(folder)
            .with_context(|| format!("cannot write to {}", shown(folder)))?;
        // Not every file system has locks. Then nobody can take the file for an abandoned one, either.
        file.as_file().try_lock().ok();
        Ok(Self { file, path: path.to_owned(), scratch: Zeroizing::default() })
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", shown(&self.path)))
    }

    /// Syncs the content to disk, then renames the file.
    pub(crate) fn publish(self, replace: bool) -> anyhow::Result<()> {
        let cannot_write = format!("cannot write {}", shown(&self.path));
        self.file.as_file().sync_all().with_context(|| cannot_write.clone())?;
        let outcome =
            if replace { self.file.persist(&self.path) } else { self.file.persist_noclobber(&self.path) };
        outcome.map(drop).map_err(|error| error.error).context(cannot_write)
    }
}

impl PlaintextTarget for PendingFile {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        fill_then_write(&mut self.scratch, &mut self.file, len, fill)
    }
}

impl RevocableTarget for PendingFile {
    fn discard(&mut self) {
        // Errors are ignored, because the file is not published after this and is removed.
        let file = self.file.as_file_mut();
        file.set_len(0).and_then(|()| file.rewind()).ok();
    }
}

/// Standard output. This target cannot discard what it received, so it suits only verified bytes.
pub(crate) struct StandardOutput {
    out: io::StdoutLock<'static>,
    scratch: Zeroizing<Vec<u8>>,
}

impl StandardOutput {
    pub(crate) fn new() -> Self {
        Self { out: io::stdout().lock(), scratch: Zeroizing::default() }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes).context(CANNOT_PRINT)
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context(CANNOT_PRINT)
    }
}

const CANNOT_PRINT: &str = "cannot write to standard output";

impl PlaintextTarget for StandardOutput {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        fill_then_write(&mut self.scratch, &mut self.out, len, fill)
    }
}

/// The target of A1 that is printed, which can be verified only as a whole: the first pass forgets the plaintext, the
/// second one prints it. The envelope must be the same both times.
pub(crate) enum TwoPasses {
    Verifying(Zeroizing<Vec<u8>>),
    Verified(StandardOutput),
}

impl TwoPasses {
    pub(crate) fn verify() -> Self {
        Self::Verifying(Zeroizing::default())
    }

    pub(crate) fn print() -> Self {
        Self::Verified(StandardOutput::new())
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Verifying(_) => Ok(()),
            Self::Verified(out) => out.flush(),
        }
    }
}

impl PlaintextTarget for TwoPasses {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        match self {
            Self::Verifying(scratch) => fill_then_write(scratch, &mut io::sink(), len, fill),
            Self::Verified(out) => out.append_with(len, fill),
        }
    }
}

impl RevocableTarget for TwoPasses {
    /// There is nothing to discard in the first pass, and nothing unverified in the second one.
    fn discard(&mut self) {}
}

fn fill_then_write(
    scratch: &mut Vec<u8>,
    out: &mut impl Write,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
) -> Result<(), DecryptError> {
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let room = &mut scratch[..len];
    fill(room)?;
    out.write_all(room).map_err(DecryptError::target)
}

/// Writes a file that is readable only by its owner. Fails if the file exists.
pub(crate) fn write_new_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write {}", shown(path));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path).with_context(cannot_write)?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(cannot_write)
}
