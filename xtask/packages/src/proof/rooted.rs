//! An Orthanc that runs in a folder with a Debian.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use real_orthanc::Client;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// User and password, if Orthanc asks for them.
const USER: &str = "demo:demo";

/// Returns a port that is free. Another process may take it before Orthanc does; then the proof fails.
pub(super) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

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
    /// Runs a command below `root` as `user` (`USER:GROUP`), and waits until its Orthanc answers on `port`.
    pub(super) fn start(
        root: &Path,
        user: &str,
        command_line: &[&str],
        port: u16,
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let log = root.join("tmp/orthanc.log");
        let file = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "chroot"]).arg(format!("--userspec={user}")).arg(root);
        command.args(command_line).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
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
