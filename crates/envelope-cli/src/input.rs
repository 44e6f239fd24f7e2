//! Input: a file, a pipe, or a private copy of one of these.

use std::fs::File;
use std::io::{self, Read, Seek as _, StdinLock, Write as _};
use std::path::Path;

use anyhow::Context as _;
use tempfile::SpooledTempFile;

use crate::console::shown;
use crate::interrupt;

/// Number of bytes to read at a time.
const CHUNK: usize = 1 << 20;
/// Copies up to this size stay in memory.
const IN_MEMORY: usize = 16 << 20;

pub(crate) struct Input {
    source: Source,
    /// `None` for a pipe.
    len: Option<u64>,
    name: String,
}

enum Source {
    File(File),
    Stdin(StdinLock<'static>),
    Copy(SpooledTempFile),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stdin(stdin) => stdin.read(buffer),
            Self::Copy(copy) => copy.read(buffer),
        }
    }
}

impl Input {
    /// Opens a path, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = shown(path);
        if is_stdio(path) {
            return Ok(Self { source: Source::Stdin(io::stdin().lock()), len: None, name });
        }
        let cannot_read = || format!("cannot read {name}");
        let file = File::open(path).with_context(cannot_read)?;
        let metadata = file.metadata().with_context(cannot_read)?;
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Self { source: Source::File(file), len, name })
    }

    /// Returns the length in bytes, if it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.len
    }

    /// Reads the next `len` bytes, or fewer at the end.
    pub(crate) fn read_up_to(&mut self, len: u64) -> anyhow::Result<Vec<u8>> {
        let mut start = Vec::new();
        let read = (&mut self.source).take(len).read_to_end(&mut start);
        read.with_context(|| format!("cannot read {}", self.name))?;
        Ok(start)
    }

    /// Passes all remaining bytes to `take` in chunks.
    pub(crate) fn for_each_chunk(
        &mut self,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let outcome = self.source.read(&mut buffer);
            // After reading: an interrupt also ends the program that writes to a pipe, whose end then is not the end of
            // the file.
            interrupt::check()?;
            match outcome {
                Ok(0) => return Ok(()),
                Ok(read) => take(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.name)),
            }
        }
    }

    /// Copies `start`, which has been read, and all that follows: to know the number of bytes, or to read them twice
    /// without a change in between. Large copies are in a file without a name. The input must be encrypted.
    pub(crate) fn into_copy(mut self, start: &[u8]) -> anyhow::Result<Self> {
        if matches!(self.source, Source::Copy(_)) {
            return Ok(self);
        }
        let mut copy = SpooledTempFile::new(IN_MEMORY);
        let mut len = 0;
        let mut write = |chunk: &[u8]| {
            len += chunk.len() as u64;
            copy.write_all(chunk)
                .with_context(|| format!("cannot write a copy to {}", shown(&std::env::temp_dir())))
        };
        write(start)?;
        self.for_each_chunk(write)?;
        let mut input = Self { source: Source::Copy(copy), len: Some(len), name: self.name };
        input.rewind()?;
        Ok(input)
    }

    /// Returns to the start of a copy.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        match &mut self.source {
            Source::Copy(copy) => copy.rewind(),
            Source::File(_) | Source::Stdin(_) => Err(io::ErrorKind::NotSeekable.into()),
        }
    }
}

/// Whether a path means standard input or output.
pub(crate) fn is_stdio(path: &Path) -> bool {
    path == Path::new("-")
}
