//! The time, memory, threads and sockets that a running Orthanc uses, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

use crate::Orthanc;

impl Orthanc {
    /// CPU time of all threads since the start, in seconds (resolution: 10 ms).
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.proc("stat")?)?;
        // The second field is the program's name in parentheses, which may contain spaces.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |index: usize| after_name.split_ascii_whitespace().nth(index)?.parse::<u32>().ok();
        let (user, system) = field(11).zip(field(12)).with_context(|| stat.clone())?;
        #[expect(clippy::cast_precision_loss, reason = "the kernel says 100")]
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok((f64::from(user) + f64::from(system)) / ticks_per_second)
    }

    /// Peak of the resident memory since the start or since [`Orthanc::reset_peak_memory`].
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        Ok(self.status_number("VmHWM")? * 1024)
    }

    /// Makes [`Orthanc::peak_memory_bytes`] start again from the current memory.
    pub fn reset_peak_memory(&self) -> Result<()> {
        Ok(fs::write(self.proc("clear_refs")?, "5")?)
    }

    /// Current resident memory.
    pub fn memory_bytes(&self) -> Result<u64> {
        Ok(self.status_number("VmRSS")? * 1024)
    }

    /// Number of threads.
    pub fn thread_count(&self) -> Result<u64> {
        self.status_number("Threads")
    }

    /// Number of open sockets.
    pub fn open_sockets(&self) -> Result<usize> {
        let descriptors = fs::read_dir(self.proc("fd")?)?;
        let targets = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
    }

    fn status_number(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        number.with_context(|| format!("/proc/PID/status has no {name}"))
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(format!("/proc/{}/{file}", self.pid().context("Orthanc is not running")?))
    }
}
