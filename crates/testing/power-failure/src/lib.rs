//! What a power failure may leave of the files that a process has written.
//!
//! A [`Recorder`] runs programs with a library (`recorder.c`) that records each change of a folder tree, and the
//! [`event`]s of the program in between. [`Recorder::check`] replays the records on a model of a disk, and shows
//! the states that a power failure may leave at each moment: see [`disk`].

pub mod disk;

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use hybrid::Purpose;
use storage_layout::{Attachment, ContentType};
use tempfile::TempDir;

use self::disk::{Disk, Order, State};

const RECORDS: &str = "POWER_FAILURE_RECORDS";
const TREE: &str = "POWER_FAILURE_TREE";
const UNRECORDED: &str = "the program is not recorded";
const KILL_AFTER: &str = "POWER_FAILURE_KILL_AFTER";

/// Records what programs do to one folder tree.
#[derive(Debug)]
pub struct Recorder {
    folder: TempDir,
    tree: PathBuf,
}

/// A change of the tree, or an event.
#[derive(Debug)]
struct Record {
    kind: String,
    /// The inode number of the file or folder.
    inode: u64,
    /// An offset or a size.
    number: usize,
    /// The bytes written, the path, two paths, or the event.
    payload: Vec<u8>,
}

impl Recorder {
    /// Compiles the library and creates an empty tree.
    ///
    /// # Errors
    ///
    /// If there is no C compiler.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recorder.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", source, "-o"]);
        let compiled = compiler.arg(folder.path().join("recorder.so")).output().context("cc")?;
        ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
        // The library compares whole paths.
        let tree = folder.path().canonicalize()?.join("tree");
        fs::create_dir(&tree)?;
        Ok(Self { folder, tree })
    }

    /// The tree that the programs change.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// Number of records so far.
    ///
    /// # Errors
    ///
    /// If no program was recorded.
    pub fn records(&self) -> Result<usize> {
        Ok(self.read()?.len())
    }

    fn read(&self) -> Result<Vec<Record>> {
        Record::read_all(&fs::read(self.file()).context("no records: is the program linked statically?")?)
    }

    /// Runs a program, after those that ran before, and kills it after `kill_after` records.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn run(&self, program: &mut Command, kill_after: Option<usize>) -> Result<ExitStatus> {
        let kill_after = kill_after.unwrap_or(0).to_string();
        let program = program
            .env("LD_PRELOAD", self.folder.path().join("recorder.so"))
            .env(RECORDS, self.file())
            .env(TREE, &self.tree)
            .env(KILL_AFTER, kill_after);
        Ok(program.status()?)
    }

    /// Calls `check` with each state that a power failure may leave and the events before it. Returns the number
    /// of different states.
    ///
    /// # Errors
    ///
    /// The error of `check` with the last record before the power failure; or the programs have changed the tree
    /// in a way that was not recorded.
    pub fn check(
        &self,
        order: Order,
        mut check: impl FnMut(&[String], &State) -> Result<()>,
    ) -> Result<usize> {
        let records = self.read()?;
        let mut disk = Disk::new(order);
        let mut events = Vec::new();
        let mut states = HashSet::new();
        for (index, record) in records.iter().enumerate() {
            let moment = format!("after record {index}, {} {}", record.kind, record.summary());
            if record.kind == "event" {
                events.push(record.path()?.to_owned());
            } else {
                disk.apply(record).context(moment.clone())?;
            }
            if record.kind == "mkdir" && records.get(index + 1).is_some_and(|next| next.kind == "mkdir") {
                // The states after the last of them are the states after all of them.
                continue;
            }
            disk.each_state(index, &mut |state| {
                let mut hasher = DefaultHasher::new();
                (events.len(), state).hash(&mut hasher);
                let is_new = states.insert(hasher.finish());
                if is_new { check(&events, state).context(moment.clone()) } else { Ok(()) }
            })?;
        }
        ensure!(disk.current() == State::read(&self.tree)?, "a change of the tree was not recorded");
        Ok(states.len())
    }
}

/// Records an event, such as an acknowledgement, from inside a recorded program.
///
/// # Errors
///
/// If the program is not recorded.
pub fn event(text: &str) -> Result<()> {
    let records = std::env::var_os(RECORDS).context(UNRECORDED)?;
    let record = format!("event 0 0 {}\n{text}", text.len());
    // One call, so that no record of another thread gets in between.
    let written = OpenOptions::new().append(true).open(records)?.write(record.as_bytes())?;
    ensure!(written == record.len(), "the record is incomplete");
    Ok(())
}

/// The events of the programs that ran before this one, and of this one.
///
/// # Errors
///
/// If the program is not recorded.
pub fn past_events() -> Result<Vec<String>> {
    let records = Record::read_all(&fs::read(std::env::var_os(RECORDS).context(UNRECORDED)?)?)?;
    let events = records.iter().filter(|record| record.kind == "event");
    events.map(|event| Ok(event.path()?.to_owned())).collect()
}

impl Record {
    fn read_all(mut bytes: &[u8]) -> Result<Vec<Self>> {
        let mut records = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&bytes[..end])?;
            let [kind, inode, number, length] = line.split(' ').collect::<Vec<_>>()[..] else {
                bail!("{line} is not a record");
            };
            let rest = &bytes[end + 1..];
            let (payload, rest) = rest.split_at_checked(length.parse()?).context("an incomplete record")?;
            records.push(Self {
                kind: kind.to_owned(),
                inode: inode.parse()?,
                number: number.parse()?,
                payload: payload.to_owned(),
            });
            bytes = rest;
        }
        Ok(records)
    }

    /// The path, the event, or both paths.
    fn path(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.payload)?)
    }

    fn paths(&self) -> Result<(&str, &str)> {
        self.path()?.split_once('\n').context("two paths expected")
    }

    /// For messages.
    fn summary(&self) -> String {
        String::from_utf8_lossy(&self.payload[..self.payload.len().min(150)]).replace('\n', " ")
    }
}

/// What the state directories of the tests are for.
pub fn purpose() -> Purpose {
    Purpose { bucket: "memory://bucket".to_owned(), settings: String::new() }
}

/// The attachments of the tests. Some share both folders of their paths, one, or none.
///
/// # Errors
///
/// None: the UUIDs are valid.
pub fn attachment(number: usize) -> Result<Attachment> {
    let [outer, inner] = [number / 4, number / 2 % 2];
    let uuid = format!("{outer:02x}{inner:02x}{number:04x}-8b2d-4c5f-9d62-7d0d2f1a9c11");
    Ok(Attachment::new(&uuid, ContentType::DICOM)?)
}

/// What is stored under an attachment's UUID.
pub fn content(uuid: &str) -> Vec<u8> {
    uuid.repeat(30).into_bytes()
}
