//! A child process that never outlives its parent.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child that may have ended. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` so that the kernel kills it when this process ends, for any reason.
    ///
    /// `options` are those of `setpriv`. The child gets `environment` in addition to the variables of this process that
    /// contain no credentials. `log` is its output. It has its own process group: only the parent reacts to Ctrl-C on the terminal.
    pub fn start(
        options: &[&str],
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        folder: &Path,
        log: &File,
    ) -> io::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(options).arg("--").arg(program).args(arguments);
        hide_credentials(&mut command);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        spawn_from_lasting_thread(command).map(|child| Self { child })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the process has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Kills the process (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits until the process ends; `None` after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.ended()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.kill();
    }
}

/// Removes credentials and proxies from the child's environment: a developer's cloud credentials must never
/// reach a test.
fn hide_credentials(command: &mut Command) {
    const HIDDEN: [&str; 9] =
        ["AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCE_", "MSI_", "IDENTITY_", "ORTHANC__", "BOTO_"];
    const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let hidden = HIDDEN.iter().any(|prefix| text.starts_with(prefix))
            || PROXIES.iter().any(|proxy| text.eq_ignore_ascii_case(proxy));
        if hidden {
            command.env_remove(&name);
        }
    }
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The parent-death signal fires when the *thread* that started the child ends, and test runners start a
/// thread per test. So a single thread, which lasts as long as the process, starts all children.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (requests, received) = mpsc::channel::<Request>();
    thread::spawn(move || {
        for (mut command, answer) in received {
            // If the caller no longer waits, the child is dropped here and dies with the process.
            let _ = answer.send(command.spawn());
        }
    });
    Mutex::new(requests)
});

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    let (answer, received) = mpsc::channel();
    let ended = || io::Error::other("the thread that starts processes has ended");
    SPAWNER.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| ended())?;
    received.recv().map_err(|_| ended())?
}
