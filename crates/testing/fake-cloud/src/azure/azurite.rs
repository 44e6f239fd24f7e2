//! Azurite, Microsoft's emulator, as a child process that never outlives this one.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Names the folder where `npm` has installed Azurite.
const VARIABLE: &str = "AZURITE";

/// Below cargo's target folder.
const FOLDER: &str = "tools/azurite";

/// Below that folder.
const PROGRAM: &str = "node_modules/azurite/dist/src/blob/main.js";

/// It starts within a second, but a machine may be very busy.
const START_LIMIT: Duration = Duration::from_mins(1);

/// The end of its standard input is the end of it: the kernel closes the pipe when this process dies, however it does.
const BOOTSTRAP: &str = "process.stdin.resume().on('end', () => process.exit()); require(process.argv[1])";

/// A running Azurite with nothing stored. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Azurite {
    child: Child,
    port: u16,
    _lifeline: Option<ChildStdin>,
}

impl Azurite {
    /// Starts it on a free port with one account.
    pub(crate) fn start(account: &str, key: &str) -> io::Result<Self> {
        Self::start_with(account, key, Vec::new())
    }

    /// As [`Azurite::start`], with more arguments of its command line.
    pub(crate) fn start_with(account: &str, key: &str, arguments: Vec<OsString>) -> io::Result<Self> {
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
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let mut azurite = Self { child, port: 0, _lifeline: lifeline };
        let lines = Box::new(output.ok_or_else(no_output)?) as Box<dyn Read + Send>;
        let (port, started) = mpsc::channel();
        // Read on to the end: with the pipe full, Azurite would stop.
        thread::spawn(move || read_port(BufReader::new(lines), &port));
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

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn no_output() -> io::Error {
    io::Error::other("no output of Azurite")
}

/// Azurite tells where it listens once it does.
fn read_port(output: impl BufRead, port: &mpsc::Sender<u16>) {
    for line in output.lines().map_while(Result::ok) {
        let number = line.contains("successfully listens on").then(|| line.rsplit(':').next()?.parse().ok());
        if let Some(number) = number.flatten() {
            // The other side waits for the first one only.
            let _ = port.send(number);
        }
    }
}

/// Where `npm` has put it: the folder of the variable, or that of `cargo xtask install`.
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
    // Absolute, since Node would look for another one below its own folder.
    folder.join(PROGRAM).canonicalize().ok()
}

fn missing() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("Azurite is not installed: run `cargo xtask install`, or name its folder in {VARIABLE}"),
    )
}
