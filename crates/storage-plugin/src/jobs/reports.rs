//! The reports of jobs in the state directory: for each job a file with its summary, `{name}.json`, and one with what
//! it has found, `{name}.jsonl`, a JSON object on each line.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use hybrid::StateDirectory;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Reports of ended jobs of one type that are kept.
const KEPT: usize = 20;
/// Reports of jobs of one type that are kept although they have not ended. Those of jobs that were lost with a killed
/// Orthanc never do.
const KEPT_UNENDED: usize = 100;
/// The folder of the reports, in each numbered folder of the state directory.
const FOLDER: &str = "reports";
/// Size of the largest summary that is read, in bytes. Those that are written have a few thousand.
const LARGEST_SUMMARY: u64 = 1 << 20;

/// The reports of jobs.
#[derive(Debug)]
pub(crate) struct Reports {
    /// The folder for the reports of this Orthanc.
    own: PathBuf,
    /// The state directory. A restarted Orthanc may have another numbered folder in it than before.
    root: PathBuf,
    /// Held while a summary is replaced, which takes a temporary file.
    writing: Mutex<()>,
}

/// Why a report could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportsError {
    #[error("cannot write the report {}: {error}; StateDirectory must be writable and have free space", .path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot read the report {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
}

/// A page of what a job has found.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    /// The summary of the job.
    pub(crate) summary: Value,
    /// The findings of the page.
    pub(crate) findings: Vec<Value>,
}

impl Reports {
    /// The reports in a state directory.
    pub(crate) fn new(state: &StateDirectory) -> Self {
        let folder = state.folder();
        Self {
            own: folder.join(FOLDER),
            root: folder.parent().unwrap_or(&folder).to_owned(),
            writing: Mutex::new(()),
        }
    }

    /// The summaries of all reports, the last ones first.
    ///
    /// # Errors
    ///
    /// If the state directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<Value>, ReportsError> {
        Ok(self.summaries(None)?.collect())
    }

    /// The last summary of one of these job types that `fits`. Reads no earlier ones.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub(crate) fn last(
        &self,
        job_types: &[&str],
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>, ReportsError> {
        Ok(self.summaries(Some(job_types))?.find(fits))
    }

    /// How many copies the last job of these types for the whole archive in the bucket and root path `place` has found in
    /// each form; `None` before there was one.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub(crate) fn census(&self, job_types: &[&str], place: &str) -> Result<Option<Value>, ReportsError> {
        let is_census = |summary: &Value| {
            summary["Everything"] == true
                && summary["State"] == "Success"
                && summary["Place"] == place
                && summary["Forms"].is_array()
        };
        Ok(self.last(job_types, is_census)?.map(|summary| {
            json!({"JobId": summary["JobId"], "Started": summary["Started"], "Forms": summary["Forms"]})
        }))
    }

    /// A page of the findings of a job, by the job's id in Orthanc; `None` if there is no report of it.
    ///
    /// # Errors
    ///
    /// If the report cannot be read.
    pub(crate) fn page(&self, id: &str, since: usize, limit: usize) -> Result<Option<Page>, ReportsError> {
        let summaries = self.names()?.into_iter().filter_map(|(folder, name)| {
            summary(&folder.join(format!("{name}.json"))).map(|summary| (folder, name, summary))
        });
        let mut of_job = summaries.filter(|(.., summary)| summary["JobId"] == id);
        let Some((folder, name, summary)) = of_job.next() else { return Ok(None) };
        let path = folder.join(format!("{name}.jsonl"));
        let read = |error| ReportsError::Read { path: path.clone(), error };
        let file = match open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Some(Page { summary, findings: Vec::new() }));
            }
            file => file.map_err(read)?,
        };
        let mut findings = Vec::new();
        for line in BufReader::new(file).lines().skip(since).take(limit) {
            // The last line may be incomplete while the job is writing it.
            findings.extend(serde_json::from_str(&line.map_err(read)?));
        }
        Ok(Some(Page { summary, findings }))
    }

    /// Calls `act` with each finding of a job, by the job's id in Orthanc.
    ///
    /// # Errors
    ///
    /// If the report cannot be read.
    pub(crate) fn each_finding(&self, id: &str, mut act: impl FnMut(&Value)) -> Result<(), ReportsError> {
        for (folder, name) in self.names()? {
            let of_job = summary(&folder.join(format!("{name}.json")));
            if of_job.is_none_or(|summary| summary["JobId"] != id) {
                continue;
            }
            let path = folder.join(format!("{name}.jsonl"));
            let read = |error| ReportsError::Read { path: path.clone(), error };
            let file = match open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.map_err(read)?,
            };
            for line in BufReader::new(file).lines() {
                if let Ok(finding) = serde_json::from_str(&line.map_err(read)?) {
                    act(&finding);
                }
            }
        }
        Ok(())
    }

    /// The path of a report without its extension: where it is, or where it is to be written.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let names = self.names().unwrap_or_default();
        let folder = names.into_iter().find(|(_, known)| known == name).map(|(folder, _)| folder);
        folder.unwrap_or_else(|| self.own.clone()).join(name)
    }

    /// Notes in the report of a job that it was cancelled, unless the report says by now that it runs, or has ended.
    /// Returns the summary.
    ///
    /// # Errors
    ///
    /// If the report cannot be read or written.
    pub(super) fn note_canceled(&self, id: &str) -> Result<Option<Value>, ReportsError> {
        for (folder, name) in self.names()? {
            let path = folder.join(format!("{name}.json"));
            let writing = self.writing.lock();
            let Some(mut summary) = summary(&path).filter(|summary| summary["JobId"] == id) else { continue };
            if is_waiting(&summary) {
                canceled(&mut summary);
                replace(&path, &summary)?;
            }
            drop(writing);
            return Ok(Some(summary));
        }
        Ok(None)
    }

    /// Replaces a summary, so that it is complete after a power failure.
    pub(super) fn write_summary(&self, path: &Path, summary: &Value) -> Result<(), ReportsError> {
        let _writing = self.writing.lock();
        replace(path, summary)
    }

    /// Deletes the oldest reports of a type, so that another one is not too many. Keeps those of jobs that have not ended,
    /// which continue where their report ends, and the last ones about everything.
    pub(super) fn make_room(&self, job_type: &str) -> Result<(), ReportsError> {
        let mut kept = Kept::default();
        for (folder, name) in self.sorted(Some(&[job_type]))? {
            let summary = summary(&folder.join(format!("{name}.json"))).unwrap_or_default();
            if kept.keeps(&summary) {
                continue;
            }
            for extension in ["jsonl", "json"] {
                let path = folder.join(format!("{name}.{extension}"));
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(ReportsError::Write { path, error });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The summaries of all reports, or of those of some job types, the last ones first. Each is read when it is asked for.
    fn summaries(&self, job_types: Option<&[&str]>) -> Result<impl Iterator<Item = Value>, ReportsError> {
        let sorted = self.sorted(job_types)?.into_iter();
        Ok(sorted.filter_map(|(folder, name)| summary(&folder.join(format!("{name}.json")))))
    }

    /// The folder and the name of each report, or of those of some job types, the last ones first.
    fn sorted(&self, job_types: Option<&[&str]>) -> Result<Vec<(PathBuf, String)>, ReportsError> {
        let mut names = self.names()?;
        let is_of = |name: &str| {
            let job_type = name.split('-').next().unwrap_or_default();
            job_types.is_none_or(|job_types| job_types.contains(&job_type))
        };
        names.retain(|(_, name)| is_of(name));
        names.sort_unstable_by(|(_, one), (_, other)| begun(other).cmp(begun(one)));
        Ok(names)
    }

    /// The folder and the name of each report.
    fn names(&self) -> Result<Vec<(PathBuf, String)>, ReportsError> {
        let mut names = Vec::new();
        for numbered in entries(&self.root)? {
            let folder = numbered.join(FOLDER);
            for path in entries(&folder)? {
                let is_summary = path.extension().is_some_and(|extension| extension == "json");
                if let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_summary) {
                    names.push((folder.clone(), name.to_owned()));
                }
            }
        }
        Ok(names)
    }
}

/// The reports of one job type that are kept, from the last one to the first.
#[derive(Debug, Default)]
struct Kept {
    ended: usize,
    unended: usize,
    /// Those that succeeded for everything: their place, their database, and whether they were scheduled.
    complete: Vec<[Value; 3]>,
}

impl Kept {
    /// Whether a report is kept although another one will be added.
    fn keeps(&mut self, summary: &Value) -> bool {
        if ["Pending", "Running", "Paused"].iter().any(|state| summary["State"] == *state) {
            self.unended += 1;
            return self.unended < KEPT_UNENDED;
        }
        self.ended += 1;
        let mut keeps = self.ended < KEPT;
        if summary["Everything"] == true && summary["State"] == "Success" {
            let key = ["Place", "Database", "Scheduled"].map(|field| summary[field].clone());
            let is_last = !self.complete.contains(&key);
            if is_last {
                self.complete.push(key);
            }
            keeps |= is_last;
        }
        keeps
    }
}

/// The part of a name that says when the job began, and the key after it.
fn begun(name: &str) -> &str {
    name.split_once('-').map_or(name, |(_, rest)| rest)
}

/// The paths in a folder; none if it does not exist or is a file.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ReportsError> {
    let read = |error| ReportsError::Read { path: folder.to_owned(), error };
    match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        found => found.map_err(read)?.map(|entry| Ok(entry.map_err(read)?.path())).collect(),
    }
}

/// Opens a file to read it. Anything else is taken to be missing: a pipe would block.
fn open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    File::open(path)
}

/// A summary; `None` if it was cut off by a power failure, is being deleted, or is not one.
pub(super) fn summary(path: &Path) -> Option<Value> {
    let mut content = Vec::new();
    open(path).ok()?.take(LARGEST_SUMMARY).read_to_end(&mut content).ok()?;
    serde_json::from_slice(&content).ok()
}

/// Whether the job of a report waits for its turn, or to be resumed, as far as the report knows.
pub(super) fn is_waiting(summary: &Value) -> bool {
    summary["State"] == "Pending" || summary["State"] == "Paused"
}

/// Changes a summary to that of a job that was cancelled now.
pub(super) fn canceled(summary: &mut Value) {
    summary["State"] = json!("Canceled");
    summary["Ended"] = json!(Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true));
}

fn replace(path: &Path, summary: &Value) -> Result<(), ReportsError> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(json!(summary).to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // It would stay empty on a full disk.
        drop(fs::remove_file(&temporary));
        ReportsError::Write { path: path.to_owned(), error }
    })
}
