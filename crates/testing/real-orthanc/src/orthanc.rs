//! One Orthanc: its configuration, its folder, and starting and stopping it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::complete::{self, CompleteConfiguration};
use crate::error::StartError;
use crate::ports::free_port;
use crate::process::Process;
use crate::release::program;
use crate::rest::Client;

const START_ATTEMPTS: usize = 8;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Orthanc stops its servers one after the other, each with a pause: an idle Orthanc takes three seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration of an Orthanc to start.
#[derive(Clone, Debug)]
pub struct Builder {
    plugins: Vec<PathBuf>,
    sections: Map<String, Value>,
    files: Vec<PathBuf>,
    complete: Option<CompleteConfiguration>,
    login: String,
    environment: Vec<(String, String)>,
    log_options: &'static [&'static str],
    obeys_permissions: bool,
    is_ordinary_user: bool,
    speaks_tls: bool,
}

impl Builder {
    /// The options of `setpriv`.
    fn privileges(&self) -> &'static [&'static str] {
        let is_root = rustix::process::geteuid().is_root();
        match (self.obeys_permissions, self.is_ordinary_user) {
            (true, _) if is_root => &["--bounding-set", "-dac_override,-dac_read_search"],
            (_, true) if is_root => &[
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=+dac_override,+sys_ptrace",
                "--ambient-caps=+dac_override,+sys_ptrace",
                // For access(2), with which DCMTK looks for its files.
                "--securebits=+no_setuid_fixup",
            ],
            _ => &[],
        }
    }

    fn new() -> Self {
        let defaults = json!({
            "AuthenticationEnabled": false,
            "DicomAet": "ORTHANC",
            "DicomCheckModalityHost": false,
            "HttpThreadsCount": 50,
            // With caches, Orthanc would not read recently stored files from the storage area.
            "DicomParserCacheSize": 0,
            "MaximumStorageCacheSize": 0,
            "OverwriteInstances": false,
            "RemoteAccessAllowed": false,
            "UnknownSopClassAccepted": true,
        });
        Self {
            plugins: Vec::new(),
            files: Vec::new(),
            complete: None,
            login: String::new(),
            sections: defaults.as_object().cloned().unwrap_or_default(),
            environment: Vec::new(),
            log_options: &[],
            obeys_permissions: false,
            is_ordinary_user: false,
            speaks_tls: false,
        }
    }

    /// Loads a plugin.
    pub fn plugin(mut self, library: impl Into<PathBuf>) -> Self {
        self.plugins.push(library.into());
        self
    }

    /// Sets a plugin's section or one of Orthanc's options, replacing any earlier value and the default.
    pub fn section(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.sections.insert(name.into(), value.into());
        self
    }

    /// Removes a plugin's section or one of Orthanc's options.
    pub fn without_section(mut self, name: &str) -> Self {
        self.sections.remove(name);
        self
    }

    /// Adds a copy of a file to the configuration folder.
    pub fn configuration_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    /// Uses these files, by name and text, instead of the configuration of tests, as an administrator has written them:
    /// only Orthanc's name, its ports and the folders of Debian's package are replaced. Orthanc loads the plugins of its
    /// Debian too.
    pub fn complete_configuration(mut self, files: Vec<(String, String)>) -> Self {
        self.complete = Some(CompleteConfiguration(files));
        self
    }

    /// Sets the user and the password of the client: `user:password`.
    pub fn login(mut self, login: &str) -> Self {
        self.login = format!("{login}@");
        self
    }

    /// Sets an environment variable. Orthanc inherits the others, except credentials of cloud providers and
    /// proxies; `HOME` is its own folder.
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Whether Orthanc logs at info level too.
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.log_options = if verbose { &["--verbose"] } else { &[] };
        self
    }

    /// Orthanc logs everything, which includes what plugins say at the most detailed level.
    pub fn trace(mut self) -> Self {
        self.log_options = &["--trace", "--trace-plugins"];
        self
    }

    /// Makes Orthanc obey the permissions of files, even if root starts it.
    pub fn obeying_permissions(mut self) -> Self {
        self.obeys_permissions = true;
        self
    }

    /// Runs Orthanc as another user than root, who can nevertheless use the files of root, and those that tests keep open.
    pub fn as_ordinary_user(mut self) -> Self {
        self.is_ordinary_user = true;
        self
    }

    /// Waits for the log to say that Orthanc has started: the client of [`Orthanc::rest`] does not speak TLS.
    pub fn speaking_tls(mut self) -> Self {
        self.speaks_tls = true;
        self
    }

    /// Starts Orthanc in a new temporary folder and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`]; a configuration that Orthanc or a plugin refuses is [`StartError::Exited`].
    pub fn start(self) -> Result<Orthanc, StartError> {
        let folder = tempfile::Builder::new().prefix("orthanc-").tempdir()?;
        let home = Home { folder, http_port: 0, dicom_port: 0, starts: 0 };
        let mut orthanc = Orthanc { process: None, builder: self, home, rest: Client::new("") };
        orthanc.start_with_retries(|home| {
            home.http_port = free_port()?;
            home.dicom_port = free_port()?;
            Ok(())
        })?;
        Ok(orthanc)
    }
}

/// The folder and the ports of an Orthanc, running or not.
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

    /// Orthanc's name, which distinguishes its answers from those of another Orthanc on the same port.
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
    /// A configuration without plugins, storage cache and authentication.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A client of its REST API.
    pub fn rest(&self) -> &Client {
        &self.rest
    }

    /// The URL of its REST API, without a trailing slash.
    pub fn url(&self) -> String {
        self.rest.url("")
    }

    /// Its version, such as `[1, 10, 1]`.
    pub fn version(&self) -> Result<[u32; 3]> {
        let system = self.rest.get_json("/system")?;
        let text = system["Version"].as_str().context("Orthanc does not say its version")?;
        let numbers: Vec<u32> = text.splitn(3, '.').map(str::parse).collect::<Result<_, _>>()?;
        <[u32; 3]>::try_from(numbers).map_err(|numbers| anyhow!("{numbers:?} is not a version of Orthanc"))
    }

    /// The port of its REST API.
    pub fn http_port(&self) -> u16 {
        self.home.http_port
    }

    /// The port of its DICOM server, whose title is `ORTHANC`.
    pub fn dicom_port(&self) -> u16 {
        self.home.dicom_port
    }

    /// Its temporary folder.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// The folder of its built-in storage area and of hybrid modes. The index is elsewhere.
    pub fn storage_folder(&self) -> PathBuf {
        self.home.path().join("storage")
    }

    /// The log since the last start.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.home.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Changes the configuration for the next start.
    pub fn configure(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.builder = change(self.builder.clone());
    }

    /// Starts Orthanc after [`Orthanc::stop`] or [`Orthanc::kill`], in the same folder and on the same
    /// ports. The configuration is written again.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_again(&mut self) -> Result<(), StartError> {
        if self.process.is_some() {
            return Err(io::Error::other("Orthanc is already running").into());
        }
        self.start_with_retries(|_home| Ok(()))
    }

    /// Stops Orthanc and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        Ok(self.start_again()?)
    }

    /// Asks Orthanc to stop (SIGTERM) and waits until it has. Any exit status but 0 is an error.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("Orthanc is not running")?;
        // Signalling fails if Orthanc has already ended; its exit status then says why.
        let _ = process.terminate();
        let Some(status) = process.wait(STOP_TIMEOUT)? else {
            bail!("Orthanc did not stop within {STOP_TIMEOUT:?} and was killed; its log:\n{}", self.log());
        };
        ensure!(status.success(), "Orthanc ended with {status}; its log:\n{}", self.log());
        Ok(())
    }

    /// Kills Orthanc (SIGKILL), as a power failure would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("Orthanc is not running")?.kill()?;
        Ok(())
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The configuration for the next start.
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

    /// Writes the configuration and returns the path for Orthanc: a file, or a folder if there are several
    /// files.
    fn write_configuration(&self) -> io::Result<&'static str> {
        if let Some(complete) = &self.builder.complete {
            complete.write(self.home.path(), &self.home.name(), self.home.http_port, self.home.dicom_port)?;
            CompleteConfiguration::link_plugins(self.home.path(), &self.builder.plugins)?;
            return Ok(complete::FOLDER);
        }
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

    /// Starts Orthanc, again if another process holds one of its ports for a moment.
    fn start_with_retries(
        &mut self,
        mut choose_ports: impl FnMut(&mut Home) -> io::Result<()>,
    ) -> Result<(), StartError> {
        let mut attempt = 1;
        loop {
            choose_ports(&mut self.home)?;
            match self.start_once() {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    fn start_once(&mut self) -> Result<(), StartError> {
        // Orthanc only warns of a missing library, so a test would pass without the plugin.
        if let Some(missing) = self.builder.plugins.iter().find(|library| !library.is_file()) {
            let message = format!("there is no plugin {}", missing.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message).into());
        }
        self.home.starts += 1;
        fs::create_dir_all(self.home.path().join("temporary"))?;
        let configuration = self.write_configuration()?;
        let log = File::create(self.home.log_path())?;

        let mut environment = vec![("HOME".to_owned(), self.home.path().display().to_string())];
        environment.extend_from_slice(&self.builder.environment);
        let arguments = [self.builder.log_options, &[configuration]].concat();
        let process = Process::start(
            self.builder.privileges(),
            &program()?,
            &arguments,
            &environment,
            self.home.path(),
            &log,
        )?;
        // A new client, because connections of the old pool are closed.
        self.rest = Client::new(format!("http://{}127.0.0.1:{}", self.builder.login, self.home.http_port));
        self.wait_until_ready(process)
    }

    fn wait_until_ready(&mut self, mut process: Process) -> Result<(), StartError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let probe = Client::with_timeout(self.url(), Duration::from_secs(5));
        loop {
            if let Some(status) = process.ended()? {
                return Err(StartError::Exited { status, log: self.log() });
            }
            let is_ready = if self.builder.speaks_tls {
                self.log().contains("Orthanc has started")
            } else {
                probe.get_json("/system").is_ok_and(|system| system["Name"] == self.home.name())
            };
            if is_ready {
                self.process = Some(process);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(StartError::TimedOut { timeout: START_TIMEOUT, log: self.log() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
