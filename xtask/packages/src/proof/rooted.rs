//! An Orthanc that runs in a folder with a Debian.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use real_orthanc::Client;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// User and password, which are in the environment of the process.
const USER: &str = "demo:demo";

/// The process. It is killed when dropped.
pub(super) struct Rooted {
    process: Child,
    log: PathBuf,
    pub(super) rest: Client,
}

impl Drop for Rooted {
    fn drop(&mut self) {
        // Both calls fail only if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Rooted {
    /// Runs a command below `root` as `user` (`USER:GROUP`), and waits until its Orthanc answers.
    pub(super) fn start(
        root: &Path,
        user: &str,
        command_line: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        // Another process may take the port before Orthanc does. Then the proof fails.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = root.join("tmp/orthanc.log");
        let file = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "chroot"]).arg(format!("--userspec={user}")).arg(root);
        command.args(command_line).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("ORTHANC__HTTP_PORT", port.to_string()).env("ORTHANC__DICOM_SERVER_ENABLED", "false");
        command.env("ORTHANC__REGISTERED_USERS", r#"{"demo": "demo"}"#);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().context("starting Orthanc")?;
        let rest = Client::new(format!("http://{USER}@127.0.0.1:{port}"));
        let mut orthanc = Self { process, log, rest };
        orthanc.wait_until_ready()?;
        Ok(orthanc)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.rest.get_json("/system").is_err() {
            let running = self.process.try_wait()?.is_none() && Instant::now() < deadline;
            ensure!(running, "Orthanc does not answer:\n{}", fs::read_to_string(&self.log)?);
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}
