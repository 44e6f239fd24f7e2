//! ChromeDriver, a WebDriver server, and one session of it with its own Chromium.

use std::fs::{self, File};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use real_orthanc::{Client, Method, Process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Maximum time to start. ChromeDriver needs 100 ms, but the machine may be very busy.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Chromium's arguments.
const ARGUMENTS: [&str; 7] = [
    "--headless=new",
    // Tests run as root in a container, where Chromium's sandbox does not start.
    "--no-sandbox",
    // `/dev/shm` of a container may be small.
    "--disable-dev-shm-usage",
    // Chromium ends when the pipe is closed, even if ChromeDriver is killed.
    "--remote-debugging-pipe",
    "--no-proxy-server",
    "--disable-gpu",
    "--lang=en-GB",
];

/// A running ChromeDriver with one session. Dropping it ends both programs.
#[derive(Debug)]
pub(crate) struct Driver {
    client: Client,
    session: String,
    // Declared in this order: the programs must have ended before their folder is removed.
    process: Process,
    _folder: TempDir,
}

impl Driver {
    /// Starts ChromeDriver on a free port, and Chromium with a new profile in a temporary folder.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("browser-").tempdir()?;
        let path =
            folder.path().to_str().context("the path of the temporary folder is not UTF-8")?.to_owned();
        let log_path = folder.path().join("chromedriver.log");
        let log = File::create(&log_path)?;
        // Everything that the programs write goes to this folder.
        let environment = ["HOME", "TMPDIR"].map(|name| (name.to_owned(), path.clone()));
        let mut process =
            Process::start(&[], Path::new("chromedriver"), &["--port=0"], &environment, folder.path(), &log)?;
        let port = port(&mut process, &log_path)?;
        let client = Client::new(format!("http://127.0.0.1:{port}"));
        let mut driver = Self { client, session: String::new(), process, _folder: folder };
        let profile = format!("--user-data-dir={path}/profile");
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let capabilities = json!({
            "browserName": "chrome",
            "timeouts": {"script": 60_000, "pageLoad": 60_000},
            "unhandledPromptBehavior": "ignore",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        });
        let body = json!({"capabilities": {"alwaysMatch": capabilities}});
        let session = driver.send(Method::POST, "/session", Some(&body))?;
        driver.session = session["sessionId"].as_str().context("no session id")?.to_owned();
        Ok(driver)
    }

    /// Sends a command of the session, and returns its result.
    pub(crate) fn post(&self, command: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, &self.path(command), Some(body))
    }

    /// Reads a property of the session.
    pub(crate) fn get(&self, command: &str) -> Result<Value> {
        self.send(Method::GET, &self.path(command), None)
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.post("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}/{command}", self.session)
    }

    fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string);
        let headers = [("Content-Type", "application/json")];
        let answer = self.client.request(method, path, &headers, body.as_deref().map(str::as_bytes))?;
        let mut json = answer.json()?;
        ensure!(answer.status == 200, "{path}: {}: {}", json["value"]["error"], json["value"]["message"]);
        Ok(json["value"].take())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // ChromeDriver waits until Chromium has ended. If this fails, killing ChromeDriver ends Chromium too.
            let _ = self.send(Method::DELETE, &format!("/session/{}", self.session), None);
        }
        let _ = self.process.kill();
    }
}

/// Waits until ChromeDriver says on which port it listens.
fn port(process: &mut Process, log: &Path) -> Result<u16> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let text = fs::read_to_string(log)?;
        let started = text.lines().find_map(|line| line.split_once("started successfully on port "));
        if let Some(port) = started.and_then(|(_, port)| port.trim_end_matches('.').parse().ok()) {
            return Ok(port);
        }
        if Instant::now() > deadline || process.ended()?.is_some() {
            bail!(
                "ChromeDriver (package chromium-driver) has not started; `cargo xtask install` installs it:\n{text}"
            );
        }
        sleep(Duration::from_millis(5));
    }
}
