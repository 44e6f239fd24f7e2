//! Azurite, Microsoft's emulator, as a child process that ends with this one.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The environment variable with the folder where `npm` has installed Azurite.
const VARIABLE: &str = "AZURITE";

/// The folder of `cargo xtask install`, below cargo's target folder.
const FOLDER: &str = "tools/azurite";

/// The program, below that folder.
const PROGRAM: &str = "node_modules/azurite/dist/src/blob/main.js";

/// Maximum time to start. Azurite needs a second, but the machine may be very busy.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Has Node stop at the end of its standard input, which the kernel closes even if this process is killed.
const BOOTSTRAP: &str = "process.stdin.resume().on('end', () => process.exit()); require(process.argv[1])";

/// A running Azurite, empty at first. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Azurite {
    child: Child,
    port: u16,
    _lifeline: Option<ChildStdin>,
}

impl Azurite {
    /// Starts Azurite on a free port with one account.
    pub(crate) fn start(account: &str, key: &str) -> io::Result<Self> {
        Self::start_with(account, key, &[])
    }

    /// Like [`Azurite::start`], with more arguments on the command line.
    pub(crate) fn start_with(account: &str, key: &str, arguments: &[&OsStr]) -> io::Result<Self> {
        let program = program()?;
        let mut command = Command::new("node");
        command.args(["-e", BOOTSTRAP]).arg(&program);
        command.args(["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
        command.args(["--blobPort", "0", "--blobKeepAliveTimeout", "600"]).args(arguments);
        command.env("AZURITE_ACCOUNTS", format!("{account}:{key}")).current_dir(env::temp_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("node: {error}")))?;
        let lifeline = child.stdin.take();
        let output = child.stdout.take();
        let errors = child.stderr.take();
        let mut azurite = Self { child, port: 0, _lifeline: lifeline };
        let lines = BufReader::new(output.ok_or_else(|| io::Error::other("Azurite has no standard output"))?);
        let (port, started) = mpsc::channel();
        // The thread reads to the end, because a full pipe would block Azurite.
        thread::spawn(move || read_port(lines, &port));
        match started.recv_timeout(START_LIMIT) {
            Ok(port) => azurite.port = port,
            Err(_) => {
                let _ = azurite.child.kill();
                let mut text = String::new();
                let _ = errors.map(|mut errors| errors.read_to_string(&mut text));
                return Err(io::Error::other(format!("Azurite did not start: {}", text.trim())));
            }
        }
        thread::spawn(move || errors.map(|mut errors| io::copy(&mut errors, &mut io::stderr())));
        Ok(azurite)
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // Both fail only if Azurite has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the port, which Azurite prints once it listens.
fn read_port(output: impl BufRead, port: &mpsc::Sender<u16>) {
    for line in output.lines().map_while(Result::ok) {
        let number = line.contains("successfully listens on").then(|| line.rsplit(':').next()?.parse().ok());
        if let Some(number) = number.flatten() {
            // The receiver waits for the first port only.
            let _ = port.send(number);
        }
    }
}

/// Finds the program: in the folder of the variable, or in that of `cargo xtask install`.
fn program() -> io::Result<PathBuf> {
    if let Some(folder) = env::var_os(VARIABLE) {
        return found(Path::new(&folder)).ok_or_else(missing);
    }
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target");
    let program = env::current_exe()?;
    let folders = target.iter().map(PathBuf::as_path).chain(program.ancestors()).chain([workspace.as_path()]);
    folders.map(|folder| folder.join(FOLDER)).find_map(|folder| found(&folder)).ok_or_else(missing)
}

fn found(folder: &Path) -> Option<PathBuf> {
    // The path must be absolute, because Node's working directory is another one.
    folder.join(PROGRAM).canonicalize().ok()
}

fn missing() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("Azurite is not installed: run `cargo xtask install`, or set {VARIABLE} to its folder"),
    )
}
