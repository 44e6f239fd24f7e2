//! A study on its way into a bucket and back, through a real Orthanc.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::{Long, ValueExt};
use real_orthanc::{Client, dicom};
use walkdir::WalkDir;

use crate::progress::Progress;
use crate::storage::{self, Bucket, Cloud, Encryption, Launched, Storage};
use crate::{install, interrupt};

/// The command's options; see the usage text.
#[derive(Debug)]
pub(crate) struct Options {
    dicom: Option<PathBuf>,
    slices: u32,
    megabytes: u32,
    clients: usize,
    encryption: Option<Encryption>,
    keep: bool,
    storage: Storage,
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            dicom: None,
            slices: 300,
            megabytes: 100,
            clients: 4,
            encryption: None,
            keep: false,
            storage: Storage::Cloud(Cloud::S3),
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("dicom") => options.dicom = Some(arguments.value()?.into()),
                Long("slices") => options.slices = arguments.value()?.parse()?,
                Long("megabytes") => options.megabytes = arguments.value()?.parse()?,
                Long("clients") => options.clients = arguments.value()?.parse()?,
                Long("encryption") => options.encryption = Some(arguments.value()?.parse()?),
                Long("keep") => options.keep = true,
                // `builtin` is not in the usage text: it shows nothing of a plugin, but tests the demonstration itself.
                Long("provider") => options.storage = arguments.value()?.parse()?,
                other => bail!(other.unexpected()),
            }
        }
        ensure!(options.clients > 0, "--clients: at least one");
        Ok(options)
    }
}

/// `cargo xtask demo`.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.storage {
        Storage::Cloud(Cloud::Azure) => install::install_for_tests()?,
        _ => install::install_missing()?,
    }
    interrupt::catch()?;
    let mut launched = storage::launch(options.storage, options.encryption)?;
    println!("Orthanc: {}, DICOM port {}", launched.orthanc.url(), launched.orthanc.dicom_port());
    println!("Storage: {} at {}", options.storage.name(), launched.bucket.endpoint());
    let folder = tempfile::tempdir()?;
    let files = match &options.dicom {
        Some(folder) => dicom_files(folder)?,
        None => {
            println!("Generating {} CT slices and a multi-frame of {} MB", options.slices, options.megabytes);
            dicom::write_study(folder.path(), options.slices, options.megabytes)?
        }
    };
    let stored = upload(&launched, &files, options.clients)?;
    read_back(&launched, &stored, options.clients)?;
    let objects = show_bucket(&*launched.bucket);
    ensure!(objects >= stored.len(), "{objects} objects in the bucket for {} instances", stored.len());
    if options.keep {
        println!("Running at {} until Ctrl-C; then the study is deleted", launched.orthanc.url());
        interrupt::wait();
    }
    delete(&launched, &stored)?;
    launched.orthanc.stop()?;
    println!("All {} instances came back byte for byte, and nothing was left behind.", stored.len());
    Ok(())
}

/// An instance that Orthanc has taken.
struct Stored {
    file: PathBuf,
    bytes: u64,
    id: String,
    study: String,
}

/// All DICOM files in a folder and those below.
fn dicom_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() && is_dicom(entry.path()) {
            files.push(entry.into_path());
        }
    }
    ensure!(!files.is_empty(), "there is no DICOM file in {}", folder.display());
    println!("{} DICOM files in {}", files.len(), folder.display());
    Ok(files)
}

/// Whether a file has the magic of DICOM PS3.10 after its preamble.
fn is_dicom(file: &Path) -> bool {
    let mut start = [0; 132];
    let read = fs::File::open(file).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start.ends_with(b"DICM")
}

fn upload(launched: &Launched, files: &[PathBuf], clients: usize) -> Result<Vec<Stored>> {
    let rest = launched.orthanc.rest();
    let (stored, figures) = measured(launched, "Uploading", files, clients, |file| {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let uploaded = rest.upload(&bytes).with_context(|| format!("storing {}", file.display()))?;
        // A second file of the same instance: the first one counts, and is what comes back.
        let new = uploaded.status == "Success";
        let stored = || Stored {
            file: file.clone(),
            bytes: bytes.len() as u64,
            id: uploaded.id.clone(),
            study: uploaded.study.clone(),
        };
        Ok((new.then(stored), bytes.len() as u64))
    })?;
    let stored: Vec<Stored> = stored.into_iter().flatten().collect();
    figures.print("uploads");
    if stored.len() < files.len() {
        println!("  {} files are of instances stored before", files.len() - stored.len());
    }
    Ok(stored)
}

fn read_back(launched: &Launched, stored: &[Stored], clients: usize) -> Result<()> {
    let rest: &Client = launched.orthanc.rest();
    let (_, figures) = measured(launched, "Reading back", stored, clients, |instance| {
        let got = rest.file(&instance.id)?;
        let expected = fs::read(&instance.file)?;
        ensure!(got == expected, "MISMATCH: instance {} is not as {}", instance.id, instance.file.display());
        Ok(((), instance.bytes))
    })?;
    figures.print("reads");
    Ok(())
}

fn show_bucket(bucket: &dyn Bucket) -> usize {
    let objects = bucket.list();
    let bytes: u64 = objects.iter().map(|(_, size)| size).sum();
    println!("The bucket has {} objects, {:.1} MB, such as", objects.len(), megabytes(bytes));
    for (name, size) in objects.iter().take(3) {
        println!("  {name}  {size} bytes");
    }
    objects.len()
}

fn delete(launched: &Launched, stored: &[Stored]) -> Result<()> {
    let (start, requests) = (Instant::now(), launched.bucket.request_count());
    let studies: BTreeSet<&str> = stored.iter().map(|instance| &*instance.study).collect();
    for study in &studies {
        launched.orthanc.rest().delete(&format!("/studies/{study}"))?.ok()?;
    }
    let requests = launched.bucket.request_count() - requests;
    let seconds = start.elapsed().as_secs_f64();
    println!("Deleted {} instances in {seconds:.2} s, {requests} requests", stored.len());
    let left = launched.bucket.list();
    ensure!(left.is_empty(), "{} objects are left in the bucket, such as {:?}", left.len(), left.first());
    println!("The bucket is empty");
    Ok(())
}

/// What a step took.
struct Figures {
    count: usize,
    bytes: u64,
    time: Duration,
    requests: u64,
}

impl Figures {
    fn print(&self, what: &str) {
        let seconds = self.time.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = self.count as f64 / seconds;
        println!(
            "  {} {what}, {:.1} MB in {seconds:.2} s: {rate:.0} {what}/s, {:.1} MB/s, {} requests",
            self.count,
            megabytes(self.bytes),
            megabytes(self.bytes) / seconds,
            self.requests
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs `work` on every item, several at once, shows progress, and adds up the bytes that it returns. Ends at the
/// first error.
fn measured<T: Sync, R: Send>(
    launched: &Launched,
    label: &'static str,
    items: &[T],
    clients: usize,
    work: impl Fn(&T) -> Result<(R, u64)> + Sync,
) -> Result<(Vec<R>, Figures)> {
    let progress = Progress::new(label, items.len());
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let (start, requests) = (Instant::now(), launched.bucket.request_count());
    let client = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            interrupt::check()?;
            // After an error the others shall not go on.
            let result = work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            progress.advance();
        }
        Ok(())
    };
    let ended: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let panicked = |_| Err(anyhow::anyhow!("a client panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    progress.finish();
    ended.into_iter().collect::<Result<()>>()?;
    let time = start.elapsed();
    let (results, sizes): (Vec<R>, Vec<u64>) =
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().unzip();
    let requests = launched.bucket.request_count() - requests;
    Ok((results, Figures { count: items.len(), bytes: sizes.iter().sum(), time, requests }))
}
