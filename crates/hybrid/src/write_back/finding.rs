//! Finds the pending files of earlier processes: of this Orthanc, and of others that have ended.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::pending::{self, FoundFile, Scan};
use super::queue::Job;
use super::{LOOK, WriteBack};
use crate::state::{CACHE, StoredName};

impl WriteBack {
    /// Takes over the files of an Orthanc that has ended, whose folder is locked. The cache comes last, and its errors
    /// are only logged: nothing in it is needed.
    ///
    /// # Errors
    ///
    /// If pending files are left there, or cannot be found.
    pub(crate) fn take_over(&self, folder: &Path) -> io::Result<()> {
        let stop = || self.is_stopping();
        let taken = self.take_over_pending(folder, &stop);
        self.cache.take_over(&folder.join(CACHE), &stop);
        taken
    }

    fn take_over_pending(&self, folder: &Path, stop: &dyn Fn() -> bool) -> io::Result<()> {
        if !pending::has_files(folder) {
            return Ok(());
        }
        let finding = self.finding.lock();
        // From now on, reads look for the files.
        self.is_complete.store(false, Ordering::Release);
        let taken = self.pending.take_over(folder, stop);
        self.find_locked(&finding).and(taken)
    }

    /// Puts the files that an earlier process left into the queue, unless that has been done.
    ///
    /// # Errors
    ///
    /// If some may be missing. The others are in the queue.
    pub(crate) fn find_pending(&self) -> io::Result<()> {
        let finding = self.finding.lock();
        if self.is_complete.load(Ordering::Acquire) { Ok(()) } else { self.find_locked(&finding) }
    }

    fn find_locked(&self, _finding: &MutexGuard<'_, ()>) -> io::Result<()> {
        let Scan { files, result } = self.pending.scan(&|| self.is_stopping());
        let encrypted: HashSet<_> =
            files.iter().map(|file| file.name).filter(|name| name.encrypted).collect();
        for FoundFile { name, size, since } in files {
            // A process ended between encrypting the file and deleting it. The encrypted one decides what becomes of it.
            if !name.encrypted && encrypted.contains(&StoredName { encrypted: true, ..name }) {
                continue;
            }
            let age = since.elapsed().unwrap_or_default();
            let job = Job { name, size, checksum: None, since, repeated: true };
            self.queue.add_found(job, self.options.upload_delay.saturating_sub(age));
            // It may have been uploaded or deleted since it was found.
            if !self.pending.path(&name).exists() {
                self.queue.forget(&name);
            }
        }
        *self.scan_error.lock() = result.as_ref().err().map(ToString::to_string);
        if result.is_ok() {
            self.is_complete.store(true, Ordering::Release);
        }
        result
    }

    /// Waits until the files that an earlier process left are in the queue.
    ///
    /// # Errors
    ///
    /// The reason if they cannot be found.
    pub(super) async fn all_found(&self) -> Result<(), String> {
        while !self.is_complete.load(Ordering::Acquire) {
            if let Some(error) = self.scan_error.lock().clone() {
                return Err(error);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
