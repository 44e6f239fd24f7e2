//! Real servers for `cargo xtask servers` and `test --long`: installed, started on free ports of 127.0.0.1, and killed at
//! the end. What each of them is and needs is in `ci/servers`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::install::{Need, need, require};
use crate::{run, target_folder};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/servers");

/// The scripts that start a server each, in this order. One after another, because some forward to another one.
const SERVERS: [Script; 7] = [
    script("garage", None),
    script("ceph", None),
    script("moto", None),
    script("rclone", None),
    script("azurite", None),
    script("nginx-self-signed", Some("garage")),
    script("nginx-private-authority", Some("ceph")),
];

/// A script in `ci/servers`.
#[derive(Debug)]
struct Script {
    name: &'static str,
    /// The server that it forwards to.
    upstream: Option<&'static str>,
}

const fn script(name: &'static str, upstream: Option<&'static str>) -> Script {
    Script { name, upstream }
}

const NEEDS: [Need; 8] = [
    need("radosgw", "radosgw", "Ceph's S3 server"),
    need("ceph-mon", "ceph-mon", "a part of Ceph"),
    need("ceph-osd", "ceph-osd", "a part of Ceph"),
    need("ceph", "ceph-common", "sets Ceph up"),
    need("nginx", "nginx", "a proxy in front of a server"),
    need("curl", "curl", "waits for a server"),
    need("openssl", "openssl", "makes certificates"),
    need("/usr/share/doc/python3-venv/copyright", "python3-venv", "installs moto and rclone"),
];

/// A server needs less, but compiling the tests may occupy the machine.
const START_LIMIT: Duration = Duration::from_mins(3);

/// Ports of each server.
const PORTS: usize = 3;

/// Running servers. Dropping them kills them.
#[derive(Debug)]
pub struct Servers {
    folder: PathBuf,
    running: Vec<Child>,
    /// Held as long as they run.
    _lock: File,
}

impl Servers {
    /// Installs what is missing, and starts all servers.
    ///
    /// # Errors
    /// If one of them cannot be installed, or does not start.
    pub fn start() -> Result<Self> {
        require(&NEEDS)?;
        let tools = target_folder()?.join("tools");
        run(Command::new(format!("{SCRIPTS}/install.sh")).arg(&tools))?;
        let folder = target_folder()?.join("servers");
        let lock = lock(&folder)?;
        // Of an earlier run, which left its logs.
        let running = folder.join("running");
        if running.exists() {
            fs::remove_dir_all(&running).with_context(|| format!("removing {}", running.display()))?;
        }
        let mut servers = Self { folder: running, running: Vec::new(), _lock: lock };
        let mut ports: Vec<[u16; PORTS]> = Vec::new();
        for server in &SERVERS {
            let upstream = SERVERS.iter().zip(&ports).find(|(other, _)| Some(other.name) == server.upstream);
            let upstream = upstream.map(|(_, [first, ..])| *first);
            ports.push(servers.start_one(server.name, &tools, upstream)?);
        }
        Ok(servers)
    }

    /// The folder with a folder for each server, which the tests read.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a server and waits until it is ready. Returns its ports.
    fn start_one(&mut self, name: &str, tools: &Path, upstream: Option<u16>) -> Result<[u16; PORTS]> {
        eprintln!("starting {name}");
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let ports = free_ports()?;
        let output = File::create(folder.join("script.log"))?;
        // The script ends with this process, and with it everything that it starts.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(format!("{SCRIPTS}/{name}.sh")).arg(tools).arg(&folder);
        command.args(ports.iter().chain(&upstream).map(u16::to_string));
        command.stdout(output.try_clone()?).stderr(output);
        self.running.push(command.spawn().with_context(|| format!("starting {name}"))?);
        let deadline = Instant::now() + START_LIMIT;
        while !folder.join("server.json").exists() {
            let ended = self.running.last_mut().and_then(|script| script.try_wait().transpose());
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("script.log")).unwrap_or_default();
                bail!("{name} does not start; {} says\n{log}", folder.display());
            }
            sleep(Duration::from_millis(100));
        }
        Ok(ports)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for script in &mut self.running {
            // Both fail only if it has ended already.
            let _ = script.kill();
            let _ = script.wait();
        }
    }
}

/// Makes sure that no other run in this target folder uses the folder.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("another run uses {}", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).context("locking the folder of the servers"),
    }
}

/// Ports that nothing listens on, which another program could still take before the server does.
fn free_ports() -> io::Result<[u16; PORTS]> {
    let mut listeners = Vec::new();
    let mut ports = [0; PORTS];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_started() {
        let is_server = |name: &String| !["install", "common", "nginx-common"].contains(&name.as_str());
        let names = fs::read_dir(SCRIPTS)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".sh")?.to_owned()));
        let mut scripts: Vec<String> = names.filter(is_server).collect();
        let mut started = SERVERS.map(|server| server.name.to_owned());
        scripts.sort();
        started.sort();
        assert_eq!(scripts, started);
    }

    #[test]
    fn upstreams_are_started_first() {
        for (position, server) in SERVERS.iter().enumerate() {
            let before = &SERVERS[..position];
            assert!(server.upstream.is_none_or(|upstream| before.iter().any(|other| other.name == upstream)));
        }
    }

    #[test]
    fn ports_differ() {
        let ports = free_ports().unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
    }
}
