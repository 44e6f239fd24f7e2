//! Input: a file of known length, or a stream that is read into memory first.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use anyhow::Context as _;

/// Number of bytes to read at a time.
const CHUNK: usize = 1 << 20;

/// An input of known length.
pub(crate) struct Input {
    source: Box<dyn Read>,
    len: u64,
    name: String,
}

impl Input {
    /// Opens a path, or standard input for `-`. Input without a known length (a pipe) is read into memory.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let cannot_read = || format!("cannot read {name}");
        let mut stream: Box<dyn Read> = if is_stdio(path) {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).with_context(cannot_read)?;
            let metadata = file.metadata().with_context(cannot_read)?;
            if metadata.is_file() {
                return Ok(Self { source: Box::new(file), len: metadata.len(), name });
            }
            Box::new(file)
        };
        let mut content = Vec::new();
        stream.read_to_end(&mut content).with_context(cannot_read)?;
        let len = content.len() as u64;
        Ok(Self { source: Box::new(io::Cursor::new(content)), len, name })
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads the next `len` bytes, or fewer at the end.
    pub(crate) fn read_up_to(&mut self, len: u64) -> anyhow::Result<Vec<u8>> {
        let mut start = Vec::new();
        (&mut self.source)
            .take(len)
            .read_to_end(&mut start)
            .with_context(|| format!("cannot read {}", self.name))?;
        Ok(start)
    }

    /// Reads all remaining bytes.
    pub(crate) fn read_all(mut self) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::new();
        content.try_reserve_exact(usize::try_from(self.len)?)?;
        self.source.read_to_end(&mut content).with_context(|| format!("cannot read {}", self.name))?;
        Ok(content)
    }

    /// Passes all remaining bytes to `take` in chunks, and shows progress on a terminal.
    pub(crate) fn for_each_chunk(
        mut self,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut progress = Progress::new(self.len);
        loop {
            let read = match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.name)),
            };
            take(&buffer[..read])?;
            progress.advance(read as u64);
        }
    }
}

/// Whether a path means standard input or output.
pub(crate) fn is_stdio(path: &Path) -> bool {
    path == Path::new("-")
}

/// Shows per cent on standard error, if it is a terminal and the input is large.
struct Progress {
    total: u64,
    done: u64,
    shown: Option<u64>,
}

impl Progress {
    const WORTH_SHOWING: u64 = 64 << 20;

    fn new(total: u64) -> Self {
        let show = total >= Self::WORTH_SHOWING && io::stderr().is_terminal();
        Self { total, done: 0, shown: show.then_some(0) }
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let percent = self.done.saturating_mul(100) / self.total.max(1);
        if self.shown.is_some_and(|shown| shown < percent) {
            self.shown = Some(percent);
            eprint!("\r{percent:3} %");
            // A failure to show progress must not stop the work.
            io::stderr().flush().ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r     \r");
        }
    }
}
