//! A child process that never outlives its parent, and what `/proc` tells of it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running (or ended, not yet forgotten) child. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` so that the kernel kills it when this process ends, by whatever cause.
    ///
    /// The child has its own process group: a Ctrl-C on the terminal is for the parent to handle.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &Environment,
        folder: &Path,
        log: &File,
    ) -> io::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        environment.apply(&mut command);
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        spawn_from_lasting_thread(command).map(|child| Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits for the end; `None` when the time is over.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child sees of the parent's environment: everything but credentials and proxies, and then the additions.
///
/// A developer's own cloud credentials must never reach a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    additions: Vec<(String, String)>,
}

impl Environment {
    const HIDDEN: [&str; 9] =
        ["AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCE_", "MSI_", "IDENTITY_", "ORTHANC__", "BOTO_"];
    const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

    pub(crate) fn set(&mut self, name: String, value: String) {
        self.additions.retain(|(known, _)| *known != name);
        self.additions.push((name, value));
    }

    /// Takes over what `other` adds.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (name, value) in &other.additions {
            self.set(name.clone(), value.clone());
        }
    }

    fn apply(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let hidden = Self::HIDDEN.iter().any(|prefix| text.starts_with(prefix))
                || Self::PROXIES.iter().any(|proxy| text.eq_ignore_ascii_case(proxy));
            if hidden {
                command.env_remove(&name);
            }
        }
        command.envs(self.additions.iter().map(|(name, value)| (name, value)));
    }
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The parent-death signal fires when the *thread* that started the child ends, and test runners start a thread for
/// each test: so children are started by one thread that lasts as long as the process.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (requests, received) = mpsc::channel::<Request>();
    thread::spawn(move || {
        for (mut command, answer) in received {
            // The asker may be gone: its child is then dropped here, and dies with the process.
            let _ = answer.send(command.spawn());
        }
    });
    Mutex::new(requests)
});

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    let (answer, received) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    SPAWNER.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    received.recv().map_err(|_| gone())?
}

/// User and system CPU time of all threads of the process, in seconds (resolution: 10 ms).
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold blanks: count from its end.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| after_name.split_ascii_whitespace().nth(index)?.parse::<u32>().ok();
    let (user, system) = field(11).zip(field(12)).ok_or_else(|| unexpected("stat"))?;
    #[expect(clippy::cast_precision_loss, reason = "the kernel says 100")]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok((f64::from(user) + f64::from(system)) / ticks_per_second)
}

/// A number from `/proc/PID/status`, such as `Threads` or `VmHWM` (which is in KiB).
pub(crate) fn status_number(pid: u32, name: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    number.ok_or_else(|| unexpected("status"))
}

/// Makes the kernel count `VmHWM`, the peak of the resident memory, from now on.
pub(crate) fn reset_peak_memory(pid: u32) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Number of open file descriptors that are sockets.
pub(crate) fn open_sockets(pid: u32) -> io::Result<usize> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    let targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
}

fn unexpected(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} is not as expected"))
}
