//! One Orthanc: its configuration, its folder, its life.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::error::{STOP_TIMEOUT, StartError, StopError};
use crate::ports::free_port;
use crate::process::{self, Environment, Process};
use crate::rest::Client;

const START_ATTEMPTS: usize = 8;
const POLL: Duration = Duration::from_millis(10);

/// What an Orthanc is to be started with.
#[derive(Clone, Debug)]
pub struct Builder {
    plugins: Vec<PathBuf>,
    sections: Map<String, Value>,
    files: Vec<PathBuf>,
    environment: Environment,
    verbose: bool,
    start_timeout: Duration,
}

impl Builder {
    fn new() -> Self {
        let defaults = json!({
            "AuthenticationEnabled": false,
            "DicomAet": "ORTHANC",
            "DicomCheckModalityHost": false,
            "HttpThreadsCount": 50,
            // Otherwise what was just stored is read from memory, not from the storage area.
            "MaximumStorageCacheSize": 0,
            "OverwriteInstances": false,
            "RemoteAccessAllowed": false,
            "UnknownSopClassAccepted": true,
        });
        Self {
            plugins: Vec::new(),
            files: Vec::new(),
            sections: defaults.as_object().cloned().unwrap_or_default(),
            environment: Environment::default(),
            verbose: false,
            start_timeout: Duration::from_secs(60),
        }
    }

    /// Loads a plugin.
    #[must_use]
    pub fn plugin(mut self, library: impl Into<PathBuf>) -> Self {
        self.plugins.push(library.into());
        self
    }

    /// Sets one member of the configuration's root, be it a plugin's section or one of Orthanc's own options.
    /// What it held before, a default of the harness included, is replaced.
    #[must_use]
    pub fn section(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.sections.insert(name.into(), value.into());
        self
    }

    /// Removes a member of the configuration's root.
    #[must_use]
    pub fn without_section(mut self, name: &str) -> Self {
        self.sections.remove(name);
        self
    }

    /// Adds a copy of a file to those that the configuration is read from, as if it lay in `/etc/orthanc`.
    #[must_use]
    pub fn configuration_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    /// Sets an environment variable. Orthanc inherits the others, except credentials of cloud providers and proxies;
    /// `HOME` is its own folder.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.set(name.into(), value.into());
        self
    }

    /// Logs at info level too.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// How long to wait until Orthanc answers; 60 seconds if not set.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Starts Orthanc in a fresh temporary folder and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`]; a configuration that Orthanc or a plugin refuses is [`StartError::Exited`].
    pub fn start(self) -> Result<Orthanc, StartError> {
        let folder = tempfile::Builder::new().prefix("orthanc-").tempdir()?;
        let home = Home { folder, http_port: 0, dicom_port: 0, starts: 0 };
        let mut orthanc = Orthanc { process: None, builder: self, home, rest: Client::new("") };
        let mut attempt = 1;
        loop {
            orthanc.home.http_port = free_port()?;
            orthanc.home.dicom_port = free_port()?;
            match orthanc.start_once() {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => return Ok(orthanc),
            }
        }
    }
}

/// Where an Orthanc lives, running or not.
#[derive(Debug)]
struct Home {
    folder: TempDir,
    http_port: u16,
    dicom_port: u16,
    starts: usize,
}

impl Home {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn log_path(&self) -> PathBuf {
        self.path().join(format!("orthanc-{}.log", self.starts))
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Orthanc's own name, by which an answer is known to come from it and not from another on the same port.
    fn name(&self) -> String {
        self.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A real Orthanc in a temporary folder. Dropping it kills it and removes the folder.
#[derive(Debug)]
pub struct Orthanc {
    // Declared before `home`: Orthanc must be dead before its folder is removed.
    process: Option<Process>,
    builder: Builder,
    home: Home,
    rest: Client,
}

impl Orthanc {
    /// An Orthanc with the harness' defaults: no plugin, no storage cache, no authentication.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A client of its REST API.
    #[must_use]
    pub fn rest(&self) -> &Client {
        &self.rest
    }

    /// The URL of its REST API, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.rest.url("")
    }

    /// The port of its REST API.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.home.http_port
    }

    /// The port of its DICOM server, whose title is `ORTHANC`.
    #[must_use]
    pub fn dicom_port(&self) -> u16 {
        self.home.dicom_port
    }

    /// Its temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// The folder of its own storage area and of hybrid modes; the index is elsewhere.
    #[must_use]
    pub fn storage_folder(&self) -> PathBuf {
        self.home.path().join("storage")
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.home.log()
    }

    /// Waits until the log of this run contains `text`; false when the time is over.
    #[must_use]
    pub fn wait_for_log(&self, text: &str, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.log().contains(text) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Changes what the next start uses.
    pub fn configure(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.builder = change(self.builder.clone());
    }

    /// Starts it after [`Orthanc::stop`] or [`Orthanc::kill`]: same folder, same ports, configuration written anew.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_again(&mut self) -> Result<(), StartError> {
        if self.process.is_some() {
            return Err(StartError::Running);
        }
        let mut attempt = 1;
        loop {
            match self.start_once() {
                // Whoever holds the port holds it for a short time, as the ports were chosen so.
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// [`Orthanc::stop`] and [`Orthanc::start_again`].
    ///
    /// # Errors
    /// [`StopError`] or [`StartError`].
    pub fn restart(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.stop()?;
        Ok(self.start_again()?)
    }

    /// Asks Orthanc to stop (SIGTERM) and waits until it has. An idle one takes three seconds.
    ///
    /// # Errors
    /// [`StopError`], also if it ends with another status than 0.
    pub fn stop(&mut self) -> Result<(), StopError> {
        let mut process = self.process.take().ok_or(StopError::NotRunning)?;
        // Signalling fails when it has ended before; its status then says how.
        let _ = process.terminate();
        match process.wait(STOP_TIMEOUT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(StopError::Unclean { status, log: self.log() }),
            None => Err(StopError::TimedOut { log: self.log() }),
        }
    }

    /// Kills it (SIGKILL), as a power failure would.
    ///
    /// # Errors
    /// [`StopError::NotRunning`] or [`StopError::Signal`].
    pub fn kill(&mut self) -> Result<(), StopError> {
        let mut process = self.process.take().ok_or(StopError::NotRunning)?;
        process.kill()?;
        Ok(())
    }

    /// The exit status if it has ended by itself, as after a crash.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.as_mut().map_or(Ok(None), Process::ended)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// CPU time of all its threads since its start, in seconds (resolution: 10 ms).
    ///
    /// # Errors
    /// If it is not running.
    pub fn cpu_seconds(&self) -> io::Result<f64> {
        process::cpu_seconds(self.running()?)
    }

    /// Peak of its resident memory since its start or since [`Orthanc::reset_peak_memory`].
    ///
    /// # Errors
    /// If it is not running.
    pub fn peak_memory_bytes(&self) -> io::Result<u64> {
        Ok(process::status_number(self.running()?, "VmHWM")? * 1024)
    }

    /// Lets [`Orthanc::peak_memory_bytes`] count from now on.
    ///
    /// # Errors
    /// If it is not running.
    pub fn reset_peak_memory(&self) -> io::Result<()> {
        process::reset_peak_memory(self.running()?)
    }

    /// Its resident memory now.
    ///
    /// # Errors
    /// If it is not running.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        Ok(process::status_number(self.running()?, "VmRSS")? * 1024)
    }

    /// Number of its threads.
    ///
    /// # Errors
    /// If it is not running.
    pub fn thread_count(&self) -> io::Result<u64> {
        process::status_number(self.running()?, "Threads")
    }

    /// Number of its open sockets.
    ///
    /// # Errors
    /// If it is not running.
    pub fn open_sockets(&self) -> io::Result<usize> {
        process::open_sockets(self.running()?)
    }

    fn running(&self) -> io::Result<u32> {
        self.pid().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "Orthanc is not running"))
    }

    /// The file, as it is given to Orthanc at the next start.
    fn configuration(&self) -> Value {
        let folder = |name: &str| json!(self.home.path().join(name));
        let mut root = self.builder.sections.clone();
        let mut default = |name: &str, value: Value| {
            root.entry(name).or_insert(value);
        };
        default("StorageDirectory", folder("storage"));
        default("IndexDirectory", folder("index"));
        default("TemporaryDirectory", folder("temporary"));
        default("Plugins", json!(self.builder.plugins));
        root.insert("Name".into(), json!(self.home.name()));
        root.insert("HttpPort".into(), json!(self.home.http_port));
        root.insert("DicomPort".into(), json!(self.home.dicom_port));
        Value::Object(root)
    }

    /// Writes the configuration, and returns what Orthanc reads it from: a file, or a folder where there are several.
    fn write_configuration(&self) -> io::Result<&'static str> {
        let text = format!("{:#}", self.configuration());
        if self.builder.files.is_empty() {
            return fs::write(self.home.path().join("orthanc.json"), text).map(|()| "orthanc.json");
        }
        let folder = self.home.path().join("configuration");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("orthanc.json"), text)?;
        for file in &self.builder.files {
            fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
        }
        Ok("configuration")
    }

    fn start_once(&mut self) -> Result<(), StartError> {
        if let Some(missing) = self.builder.plugins.iter().find(|library| !library.is_file()) {
            return Err(StartError::NoPlugin(missing.clone()));
        }
        self.home.starts += 1;
        fs::create_dir_all(self.home.path().join("temporary"))?;
        let configuration = self.write_configuration()?;
        let log = File::create(self.home.log_path())?;

        let program = program();
        let mut environment = Environment::default();
        environment.set("HOME".into(), self.home.path().to_string_lossy().into_owned());
        environment.extend(&self.builder.environment);
        let verbose = if self.builder.verbose { &["--verbose"][..] } else { &[] };
        let arguments = [verbose, &[configuration]].concat();
        let process = Process::start(&program, &arguments, &environment, self.home.path(), &log)
            .map_err(|source| StartError::Spawn { program: "setpriv".to_owned(), source })?;
        // Old connections of the pool lead nowhere after a restart.
        self.rest = Client::new(format!("http://127.0.0.1:{}", self.home.http_port));
        self.wait_until_ready(process)
    }

    fn wait_until_ready(&mut self, mut process: Process) -> Result<(), StartError> {
        let timeout = self.builder.start_timeout;
        let deadline = Instant::now() + timeout;
        let probe = Client::with_timeout(self.url(), Duration::from_secs(5));
        loop {
            if let Some(status) = process.ended()? {
                return Err(StartError::Exited { status, log: self.log() });
            }
            if probe.get_json("/system").is_ok_and(|system| system["Name"] == self.home.name()) {
                self.process = Some(process);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(StartError::TimedOut { timeout, log: self.log() });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Orthanc's program: `ORTHANC_PROGRAM` if set, else from the search path, else where Debian has it, which is on the
/// search path of root only.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("ORTHANC_PROGRAM") {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("Orthanc")).find(|file| file.is_file());
    found.unwrap_or_else(|| PathBuf::from("/usr/sbin/Orthanc"))
}
