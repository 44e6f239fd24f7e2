//! Output: a temporary file that is renamed once all of it was verified, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use crypto_envelope::{DecryptError, PlaintextTarget, RevocableTarget};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::args::usage;

/// A temporary file next to its final path, readable only by its owner, and removed unless
/// [published](Self::publish).
pub(crate) struct PendingFile {
    file: NamedTempFile,
    path: PathBuf,
    scratch: Zeroizing<Vec<u8>>,
}

impl PendingFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        // Renaming the temporary file to the path of a device would replace the device.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(usage(format!("{} must be a file; use - for standard output", path.display())));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file =
            NamedTempFile::new_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(Self { file, path: path.to_owned(), scratch: Zeroizing::default() })
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Syncs the content to disk, then renames the file. An existing file is replaced.
    pub(crate) fn publish(self) -> anyhow::Result<()> {
        let cannot_write = || format!("cannot write {}", self.path.display());
        self.file.as_file().sync_all().with_context(cannot_write)?;
        let path = self.path.clone();
        self.file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
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

/// Standard output. This target cannot discard what it received, so it suits only A2's verified segments.
pub(crate) struct StreamedOutput {
    out: io::StdoutLock<'static>,
    scratch: Zeroizing<Vec<u8>>,
}

impl StreamedOutput {
    pub(crate) fn new() -> Self {
        Self { out: io::stdout().lock(), scratch: Zeroizing::default() }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl PlaintextTarget for StreamedOutput {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        fill_then_write(&mut self.scratch, &mut self.out, len, fill)
    }
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
    let cannot_write = || format!("cannot write {}", path.display());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path).with_context(cannot_write)?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(cannot_write)
}
