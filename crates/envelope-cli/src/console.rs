//! Standard error: messages, and progress on a terminal.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Width of the longest line of progress.
const WIDTH: usize = 76;

/// Returns a path without control characters: files of a bucket may have names that a terminal obeys.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string().chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Numbers of files and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

pub(crate) struct Console {
    is_quiet: bool,
    /// `None` unless standard error is a terminal.
    progress: Option<RefCell<Progress>>,
}

impl Console {
    pub(crate) fn new(is_quiet: bool) -> Self {
        let is_shown = !is_quiet && io::stderr().is_terminal();
        Self { is_quiet, progress: is_shown.then(|| RefCell::new(Progress::new(Instant::now()))) }
    }

    pub(crate) fn shows_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Prints a line about what succeeded.
    pub(crate) fn print(&self, message: &str) {
        if !self.is_quiet {
            self.print_error(message);
        }
    }

    pub(crate) fn print_error(&self, message: &str) {
        self.clear();
        eprintln!("orthanc-envelope: {message}");
    }

    /// Sets what the progress is compared with.
    pub(crate) fn expect(&self, total: Amount) {
        self.update(|progress| progress.total = total);
    }

    /// Reduces what the progress is compared with.
    pub(crate) fn skip(&self, bytes: u64) {
        self.update(|progress| progress.total.bytes = progress.total.bytes.saturating_sub(bytes));
    }

    /// Counts bytes that were read.
    pub(crate) fn advance(&self, bytes: u64) {
        self.update(|progress| progress.done.bytes += bytes);
    }

    /// Counts a file, also one that failed.
    pub(crate) fn finish_file(&self) {
        self.update(|progress| progress.done.files += 1);
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        let Some(progress) = &self.progress else { return };
        let mut progress = progress.borrow_mut();
        change(&mut progress);
        if let Some(line) = progress.line(Instant::now()) {
            // The blanks erase the rest of an earlier line. A failure to show progress must not stop the work.
            eprint!("\r{line:WIDTH$}");
            io::stderr().flush().ok();
        }
    }

    fn clear(&self) {
        if let Some(progress) = &self.progress
            && progress.borrow_mut().is_visible()
        {
            eprint!("\r{:WIDTH$}\r", "");
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
}

struct Progress {
    total: Amount,
    done: Amount,
    begun: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Commands that take less show nothing.
    const DELAY: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(200);

    fn new(now: Instant) -> Self {
        Self { total: Amount::default(), done: Amount::default(), begun: now, shown: None }
    }

    /// Returns the line to show, unless the last one is too recent.
    fn line(&mut self, now: Instant) -> Option<String> {
        let elapsed = now.duration_since(self.begun);
        let is_due = self.shown.is_none_or(|shown| now.duration_since(shown) >= Self::INTERVAL);
        if elapsed < Self::DELAY || !is_due {
            return None;
        }
        self.shown = Some(now);
        let mut parts = Vec::new();
        if self.total.files > 1 {
            parts.push(format!("{} of {} files", self.done.files, self.total.files));
        }
        if let Some(percent) = self.done.bytes.saturating_mul(100).checked_div(self.total.bytes) {
            parts.push(format!("{} of {} ({percent} %)", size(self.done.bytes), size(self.total.bytes)));
        } else {
            parts.push(size(self.done.bytes));
        }
        let rate = u128::from(self.done.bytes) * 1000 / elapsed.as_millis().max(1);
        parts.push(format!("{}/s", size(u64::try_from(rate).unwrap_or(u64::MAX))));
        Some(parts.join(", "))
    }

    /// Whether a line is on the terminal; it is taken to be removed.
    fn is_visible(&mut self) -> bool {
        self.shown.take().is_some()
    }
}

/// Formats a number of bytes, in powers of 1000.
fn size(bytes: u64) -> String {
    let mut scaled = bytes;
    let mut tenths = 0;
    let mut units = ["kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = "B";
    while scaled >= 1000 {
        tenths = scaled % 1000 / 100;
        scaled /= 1000;
        unit = units.next().unwrap_or(unit);
    }
    if unit == "B" { format!("{scaled} B") } else { format!("{scaled}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_line_every_200_ms_after_a_second() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut progress = Progress::new(begun);
        progress.total = Amount { files: 1000, bytes: 3_000_000_000 };
        progress.done = Amount { files: 7, bytes: 1_230_000_000 };
        assert_eq!(progress.line(at(999)), None);
        let line = progress.line(at(2000)).unwrap();
        assert_eq!(line, "7 of 1000 files, 1.2 GB of 3.0 GB (41 %), 615.0 MB/s");
        assert_eq!(progress.line(at(2199)), None);
        assert!(progress.line(at(2200)).is_some());
    }

    #[test]
    fn one_pipe_has_no_total() {
        let begun = Instant::now();
        let mut progress = Progress::new(begun);
        progress.done.bytes = 999;
        assert_eq!(progress.line(begun + Duration::from_secs(1)).unwrap(), "999 B, 999 B/s");
    }

    #[test]
    fn names_have_no_control_characters() {
        assert_eq!(shown(Path::new("a\u{1b}]0;x\u{7}\nb")), "a?]0;x??b");
    }
}
