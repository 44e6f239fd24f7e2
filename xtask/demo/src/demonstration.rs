//! `cargo xtask demo`: stores a study in a bucket and reads it back, while the bucket fails and Orthanc is killed.

mod key_vault;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fake_cloud::{BUCKET, Operation};
use real_orthanc::Orthanc;
use real_orthanc::dicom::{self, Study};
use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;
use xtask::options::Demo;

use crate::cloud::Cloud;
use crate::load::Connection;
use crate::progress::Progress;
use crate::vault::{self, Vault};
use crate::{interrupt, load};

const OUTAGE_SECONDS: usize = 10;
const OUTAGE: Duration = Duration::from_secs(OUTAGE_SECONDS as u64);
/// Slices that are stored while the bucket is unreachable.
const OUTAGE_SLICES: u32 = 20;
/// Slices that Orthanc has acknowledged when it is killed.
const SLICES_BEFORE_KILL: usize = 20;
/// Maximum number of bytes of a file to search for in its object.
const MOST_COMPARED: usize = 1 << 20;
const UPLOADS_HELD_TIMEOUT: Duration = Duration::from_secs(60);

/// An instance that Orthanc has acknowledged.
#[derive(Clone)]
struct Instance {
    file: PathBuf,
    id: String,
    study: String,
}

/// Everything that runs.
struct Demonstration<'a> {
    options: &'a Demo,
    // Before the cloud: fields are dropped in this order, and Orthanc must end before the bucket that it uses.
    orthanc: Orthanc,
    cloud: Cloud,
    /// Has the master key, with `--key-vault`.
    vault: Option<Vault>,
    /// Number of the step that is shown.
    step: usize,
    /// Generated files, and the object that `orthanc-envelope` decrypts.
    folder: TempDir,
    stored: Vec<Instance>,
    /// Uploads that the kill interrupted.
    unacknowledged: usize,
}

/// Runs the demonstration.
pub(crate) fn run(options: &Demo) -> Result<()> {
    interrupt::catch()?;
    let mut cloud = Cloud::start(options.plugin)?;
    let vault = options.key_vault.then(Vault::start).transpose()?;
    if let Some(vault) = &vault {
        cloud.use_vault(vault, key_vault::DECAY);
    }
    let orthanc = cloud.orthanc(options.encryption.filter(|_| vault.is_none()))?;
    let system = orthanc.rest().get_json("/system")?;
    println!("Orthanc {} at {}", system["Version"].as_str().unwrap_or_default(), orthanc.url());
    println!("Plugin {}, encryption {}", options.plugin, options.encryption.unwrap_or("none"));
    println!("Bucket at {}/{BUCKET}, a server on this machine", cloud.server.endpoint());
    if vault.is_some() {
        println!("Master key in Azure Key Vault at {}, a server on this machine", vault::URL);
    }
    let folder = tempfile::tempdir()?;
    let mut demonstration = Demonstration {
        options,
        orthanc,
        cloud,
        vault,
        step: 0,
        folder,
        stored: Vec::new(),
        unacknowledged: 0,
    };
    demonstration.store_and_read()?;
    if options.key_vault {
        demonstration.count_file_keys()?;
    }
    demonstration.look_into_bucket()?;
    if options.key_vault {
        demonstration.show_vault()?;
    } else {
        demonstration.lose_bucket()?;
        demonstration.kill_orthanc()?;
    }
    if options.keep {
        let url = demonstration.orthanc.url();
        println!("\nOrthanc keeps running:");
        println!("   Orthanc Explorer      {url}/app/explorer.html");
        println!("   status of the plugin  {url}/object-storage/status");
        println!("Press Ctrl-C to delete the studies and stop.");
        interrupt::wait();
    }
    demonstration.delete()
}

impl Demonstration<'_> {
    /// Prints the title of the next step.
    fn begin(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
    }

    fn store_and_read(&mut self) -> Result<()> {
        self.begin("A study goes into the bucket and comes back.");
        let files = match &self.options.dicom {
            Some(folder) => dicom_files(folder)?,
            None => {
                let slices = self.options.slices;
                let megabytes = self.options.megabytes;
                println!("   Generating {slices} CT slices and a multi-frame of {megabytes} MB");
                dicom::write_study(self.folder.path(), slices, megabytes)?
            }
        };
        let first = self.stored.len();
        self.upload(&files)?;
        self.read_back(first)?;
        let objects = self.objects();
        ensure!(objects >= self.stored.len(), "{objects} objects for {} instances", self.stored.len());
        println!("   The bucket has {objects} objects. Each file came back byte for byte.");
        Ok(())
    }

    /// Shows the first bytes of a file and of its object, and decrypts the object without Orthanc.
    fn look_into_bucket(&mut self) -> Result<()> {
        self.begin("What the bucket contains.");
        let instance = self.stored.first().context("nothing was stored")?;
        let location = self.location(instance)?;
        let (name, object) = self.object(&location)?;
        let file = fs::read(&instance.file)?;
        println!("   offset  {:<36}  object {name}", "DICOM file");
        // The preamble, the beginning of the header, and the patient's name.
        let name_at = file.windows(6).position(|bytes| bytes == b"\x10\0\x10\0PN").unwrap_or(152);
        let rows = [0, 128, 136, 144].into_iter().chain((name_at..name_at + 40).step_by(8));
        for offset in rows {
            println!("   {offset:6}  {:<36}  {}", hex(&file, offset), hex(&object, offset));
        }
        if self.options.encryption.is_none() {
            ensure!(object == file, "the object differs from the file");
            println!("   Without encryption, the object is the DICOM file.");
            return Ok(());
        }
        let in_object: BTreeSet<&[u8]> = object[..object.len().min(MOST_COMPARED)].windows(16).collect();
        let mut in_file = file[128..file.len().min(MOST_COMPARED)].chunks_exact(16);
        // Areas of one grey value could be anywhere.
        let found =
            in_file.any(|bytes| bytes.iter().any(|byte| *byte != bytes[0]) && in_object.contains(bytes));
        ensure!(!found, "the object contains bytes of the file");
        println!("   No part of the file is in the object. `orthanc-envelope` decrypts it without Orthanc:");
        self.decrypt(name, &object, &file)
    }

    fn decrypt(&self, name: &str, object: &[u8], file: &[u8]) -> Result<()> {
        fs::write(self.folder.path().join(name), object)?;
        if let Some(vault) = &self.vault {
            self.unwrap_and_decrypt(vault, name)?;
        } else {
            fs::copy(self.cloud.key_file(), self.folder.path().join("master.key"))?;
            self.envelope(&["inspect", name])?;
            self.envelope(&["decrypt", "--key", "1:master.key", name, "decrypted.dcm"])?;
        }
        ensure!(fs::read(self.folder.path().join("decrypted.dcm"))? == file, "the decrypted object differs");
        println!("   decrypted.dcm equals the DICOM file.");
        Ok(())
    }

    /// Shows a run of `orthanc-envelope`, and returns what it printed.
    fn envelope(&self, arguments: &[&str]) -> Result<String> {
        let program = env::current_exe()?.with_file_name("orthanc-envelope");
        println!("   $ orthanc-envelope {}", arguments.join(" "));
        let output = Command::new(&program).args(arguments).current_dir(self.folder.path()).output();
        let output = output.with_context(|| format!("starting {}", program.display()))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        printed.lines().for_each(|line| println!("   {line}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "orthanc-envelope {}: {errors}", arguments[0]);
        Ok(printed.into_owned())
    }

    /// Returns what the plugin says about an instance's DICOM file.
    fn location(&self, instance: &Instance) -> Result<Value> {
        let locations =
            self.orthanc.rest().get_json(&format!("/object-storage/locations/{}", instance.id))?;
        let mut locations = locations.as_array().into_iter().flatten();
        locations.find(|location| location["Type"] == 1).cloned().context("no DICOM attachment")
    }

    /// Returns the name and the bytes of the object at a location.
    fn object<'l>(&self, location: &'l Value) -> Result<(&'l str, Bytes)> {
        let name = location["ObjectName"].as_str().context("no object name")?;
        let object = self.cloud.server.object(BUCKET, name).with_context(|| format!("no object {name}"))?;
        Ok((name, object.bytes))
    }

    /// Stores slices while the bucket is unreachable.
    fn lose_bucket(&mut self) -> Result<()> {
        self.begin(&format!(
            "The bucket is unreachable for {OUTAGE_SECONDS} seconds while files are stored."
        ));
        let files = self.slices(2, OUTAGE_SLICES)?;
        let first = self.stored.len();
        self.cloud.server.stop();
        let start = Instant::now();
        thread::scope(|scope| -> Result<()> {
            let server = &self.cloud.server;
            let outage = scope.spawn(|| {
                let progress = Progress::new("seconds without the bucket", OUTAGE_SECONDS);
                for _ in 0..OUTAGE_SECONDS {
                    thread::sleep(Duration::from_secs(u64::from(interrupt::check().is_ok())));
                    progress.advance();
                }
                server.start_again().context("opening the bucket's port again")
            });
            let port = self.orthanc.http_port();
            let clients = self.options.clients;
            let stored = load::run(port, clients, files.len(), |client, index| {
                let stored = store(client, &files[index])?;
                // Ctrl-C ends the outage early.
                interrupt::check()?;
                ensure!(start.elapsed() >= OUTAGE, "a file was acknowledged without the bucket");
                Ok(stored)
            });
            outage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            self.stored.extend(stored?.1.into_iter().flatten());
            Ok(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        println!("   The uploads waited. All {OUTAGE_SLICES} files are stored after {seconds:.1} s");
        self.read_back(first)
    }

    /// Kills Orthanc while every client waits for the answer to an upload.
    fn kill_orthanc(&mut self) -> Result<()> {
        self.begin("Orthanc is killed (kill -9) in the middle of uploads.");
        let clients = self.options.clients;
        let files = self.slices(3, u32::try_from(SLICES_BEFORE_KILL + 2 * clients)?)?;
        let acknowledged = Mutex::new(Vec::new());
        let count = AtomicUsize::new(0);
        let port = self.orthanc.http_port();
        let in_flight = thread::scope(|scope| -> Result<usize> {
            let uploads = scope.spawn(|| {
                load::run(port, clients, files.len(), |connection, index| {
                    let instance = store(connection, &files[index])?;
                    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).extend(instance);
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            while count.load(Ordering::SeqCst) < SLICES_BEFORE_KILL && !uploads.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            // From here on, uploads stay in flight until Orthanc is dead.
            let hold = self.cloud.server.hold(Operation::PutObject);
            ensure!(hold.wait_until(clients, UPLOADS_HELD_TIMEOUT), "no upload was in flight");
            let in_flight = hold.waiting();
            self.orthanc.kill()?;
            Ok(in_flight)
        })?;
        let acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("   Killed after {} acknowledged uploads, with {in_flight} in flight", acknowledged.len());
        self.unacknowledged = in_flight;
        self.orthanc.start_again()?;
        println!("   Orthanc is running again");
        let first = self.stored.len();
        self.stored.extend(acknowledged);
        self.read_back(first)?;
        println!("   Every acknowledged file is there.");
        Ok(())
    }

    fn delete(mut self) -> Result<()> {
        self.begin("The studies are deleted.");
        let studies: BTreeSet<&str> = self.stored.iter().map(|instance| &*instance.study).collect();
        for study in studies {
            self.orthanc.rest().delete(&format!("/studies/{study}"))?.ok()?;
        }
        self.orthanc.rest().wait_for_deletions(Duration::from_secs(60))?;
        self.orthanc.stop()?;
        let left = self.objects();
        // The DICOM file, and its header as a separate attachment.
        let orphans = 2 * self.unacknowledged;
        ensure!(left <= orphans, "{left} objects are left, of at most {orphans} from interrupted uploads");
        match left {
            0 => println!("   The bucket is empty."),
            left => println!("   Objects left by the uploads that the kill interrupted: {left}"),
        }
        println!("\nAll {} files came back byte for byte. Nothing was lost.", self.stored.len());
        Ok(())
    }

    /// Generates slices of a study.
    fn slices(&self, study: u64, count: u32) -> Result<Vec<PathBuf>> {
        let write = |(index, slice): (usize, Result<Vec<u8>>)| {
            let file = self.folder.path().join(format!("study-{study}-slice-{index}.dcm"));
            fs::write(&file, slice?)?;
            Ok(file)
        };
        Study(study).ct_series(count, 256, 256).enumerate().map(write).collect()
    }

    /// Stores files and prints the speed.
    fn upload(&mut self, files: &[PathBuf]) -> Result<()> {
        let progress = Progress::new("storing", files.len());
        let port = self.orthanc.http_port();
        let clients = self.options.clients;
        let (time, instances) = load::run(port, clients, files.len(), |connection, index| {
            let stored = store(connection, &files[index])?;
            progress.advance();
            Ok(stored)
        })?;
        print_rate("stored", files, time)?;
        self.stored.extend(instances.into_iter().flatten());
        Ok(())
    }

    /// Reads instances from number `first` on, compares each with its file, and prints the speed.
    fn read_back(&self, first: usize) -> Result<()> {
        let instances = &self.stored[first..];
        let progress = Progress::new("reading back", instances.len());
        let port = self.orthanc.http_port();
        let clients = self.options.clients;
        let (time, files) = load::run(port, clients, instances.len(), |connection, index| {
            interrupt::check()?;
            let Instance { file, id, .. } = &instances[index];
            connection
                .read(id, &fs::read(file)?)
                .with_context(|| format!("reading back {}", file.display()))?;
            progress.advance();
            Ok(file.clone())
        })?;
        print_rate("read and compared", &files, time)
    }

    /// Returns the number of objects, without those in the plugin's own folder.
    fn objects(&self) -> usize {
        let keys = self.cloud.server.keys(BUCKET).into_iter();
        keys.filter(|key| !key.contains(".orthanc-object-storage/")).count()
    }
}

/// Stores a file; `None` if another file of the same instance was stored before.
fn store(connection: &mut Connection, file: &Path) -> Result<Option<Instance>> {
    interrupt::check()?;
    let answer = fs::read(file).map_err(Into::into).and_then(|bytes| connection.upload(&bytes));
    let answer = answer.with_context(|| format!("storing {}", file.display()))?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let instance = Instance { file: file.to_owned(), id: text("ID")?, study: text("ParentStudy")? };
    Ok((answer["Status"] == "Success").then_some(instance))
}

/// All DICOM files in a folder and in those below.
fn dicom_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter().collect::<Result<Vec<_>, _>>()?;
    let files = entries.into_iter().map(walkdir::DirEntry::into_path).filter(|path| is_dicom(path));
    let files: Vec<_> = files.collect();
    ensure!(!files.is_empty(), "there is no DICOM file in {}", folder.display());
    println!("   {} DICOM files in {}", files.len(), folder.display());
    Ok(files)
}

/// Whether a file has the magic of DICOM PS3.10 after its preamble.
fn is_dicom(file: &Path) -> bool {
    let mut start = [0; 132];
    let read = fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.ends_with(b"DICM")
}

/// Eight bytes in hex and as text.
fn hex(bytes: &[u8], offset: usize) -> String {
    let bytes = &bytes[offset.min(bytes.len())..(offset + 8).min(bytes.len())];
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String =
        bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
    format!("{:23}  {text}", digits.join(" "))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn print_rate(what: &str, files: &[PathBuf], time: Duration) -> Result<()> {
    let sizes = files.iter().map(|file| Ok(fs::metadata(file)?.len()));
    let megabytes = sizes.sum::<Result<u64>>()? as f64 / 1e6;
    let seconds = time.as_secs_f64();
    let rate = megabytes / seconds;
    println!("   {} files {what}, {megabytes:.1} MB in {seconds:.2} s: {rate:.1} MB/s", files.len());
    Ok(())
}
