//! The steps of the container recipe, in a plain folder with a Debian in it: for machines without a container engine.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fake_cloud::BucketServer;
use real_orthanc::dicom::Study;
use real_orthanc::{Client, Postgres};
use serde_json::json;

use super::{begin, done, empty_folder, output};
use crate::dist;
use crate::install::{self, Need};

const NEEDS: [Need; 1] =
    [Need { file: "debootstrap", package: "debootstrap", purpose: "makes a folder with a Debian in it" }];

const BUCKET: &str = "bucket";
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The REST API of an Orthanc whose users are those of the environment.
const USER: &str = "demo:demo";

pub(super) fn run() -> Result<()> {
    install::require(&NEEDS)?;
    let root = empty_folder("container")?;
    begin("debootstrap makes a Debian 12");
    output(Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).arg(&root))?;
    // As images have it: packages start no services.
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
    done();
    let recipe = fs::read_to_string(dist::workspace()?.join("ci/docker/Dockerfile"))?;
    for step in steps(&recipe)? {
        begin(step.title());
        step.perform(&root)?;
        done();
    }
    stateless(&root)?;
    fs::remove_dir_all(&root).context("removing the Debian")
}

/// A line of the recipe that changes the image's files.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Copy { from: Vec<String>, to: String },
    Run(String),
}

/// The instructions that are understood; of those that only describe the image, none matters here.
fn steps(recipe: &str) -> Result<Vec<Step>> {
    let lines: Vec<&str> = recipe.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let mut steps = Vec::new();
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let (instruction, rest) = line.split_once(' ').with_context(|| format!("the line {line}"))?;
        match instruction {
            "COPY" => {
                let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
                let to = words.pop().context("COPY without a target")?;
                steps.push(Step::Copy { from: words, to });
            }
            "RUN" => steps.push(Step::Run(rest.to_owned())),
            "FROM" => ensure!(rest == "debian:12-slim", "the proof makes a Debian 12, not {rest}"),
            "SHELL" | "USER" | "VOLUME" | "EXPOSE" | "ENTRYPOINT" => {}
            other => bail!("the proof does not know {other}"),
        }
    }
    Ok(steps)
}

impl Step {
    fn title(&self) -> &'static str {
        match self {
            Self::Copy { .. } => "COPY",
            Self::Run(_) => "RUN",
        }
    }

    fn perform(&self, root: &Path) -> Result<()> {
        match self {
            Self::Copy { from, to } => copy(from, &root.join(to.trim_start_matches('/'))),
            Self::Run(script) => {
                let mut command = Command::new("chroot");
                command.arg(root).args(["/bin/bash", "-o", "pipefail", "-c", script]);
                output(&mut command).map(drop)
            }
        }
    }
}

fn copy(from: &[String], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for pattern in from {
        let files = match pattern.strip_prefix('*') {
            Some(end) => ending_with(&dist::folder()?, end)?,
            None => vec![dist::workspace()?.join("ci/docker").join(pattern)],
        };
        ensure!(!files.is_empty(), "there is no {pattern}: make the packages with cargo xtask dist --linux");
        for file in files {
            let name = file.file_name().context("a file without a name")?;
            fs::copy(&file, to.join(name)).with_context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}

fn ending_with(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.to_string_lossy().ends_with(end)).collect())
}

/// An Orthanc of the image, by its entry point. Killed when dropped.
struct Container {
    process: Child,
    log: PathBuf,
    rest: Client,
}

impl Drop for Container {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Container {
    fn start(root: &Path, variables: &[(&str, String)]) -> Result<Self> {
        // Free now; whoever takes it meanwhile lets the proof fail, not pass.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = root.join("tmp/orthanc.log");
        let file = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "chroot", "--userspec=orthanc:orthanc"]).arg(root);
        command
            .arg("/usr/local/share/orthanc/entrypoint")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("ORTHANC__HTTP_PORT", port.to_string()).env("ORTHANC__DICOM_SERVER_ENABLED", "false");
        command.env("ORTHANC__REGISTERED_USERS", r#"{"demo": "demo"}"#);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().context("starting the entry point")?;
        let rest = Client::new(format!("http://{USER}@127.0.0.1:{port}"));
        let mut container = Self { process, log, rest };
        container.wait_until_ready()?;
        Ok(container)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.rest.get_json("/system").is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                bail!("Orthanc does not answer:\n{}", fs::read_to_string(&self.log)?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Two containers after each other, which share a database and a bucket and nothing else.
fn stateless(root: &Path) -> Result<()> {
    begin("configured by the environment, a second container has the studies of the first");
    let database = Postgres::start()?;
    let options = fake_cloud::Options::default();
    let bucket = BucketServer::start(options.clone())?;
    let variables = [
        ("ORTHANC__POSTGRESQL__ENABLE_INDEX", "true".to_owned()),
        ("ORTHANC__POSTGRESQL__ENABLE_STORAGE", "false".to_owned()),
        ("ORTHANC__POSTGRESQL__HOST", "127.0.0.1".to_owned()),
        ("ORTHANC__POSTGRESQL__PORT", database.port().to_string()),
        ("ORTHANC__POSTGRESQL__DATABASE", "orthanc".to_owned()),
        ("ORTHANC__POSTGRESQL__USERNAME", "postgres".to_owned()),
        ("ORTHANC__POSTGRESQL__PASSWORD", String::new()),
        // The first one is killed, and leaves its lock behind.
        ("ORTHANC__POSTGRESQL__LOCK", "false".to_owned()),
        ("ORTHANC__AWS_S3_STORAGE__BUCKET_NAME", BUCKET.to_owned()),
        ("ORTHANC__AWS_S3_STORAGE__REGION", options.region),
        ("ORTHANC__AWS_S3_STORAGE__ACCESS_KEY", options.access_key),
        ("ORTHANC__AWS_S3_STORAGE__SECRET_KEY", options.secret_key),
        ("ORTHANC__AWS_S3_STORAGE__ENDPOINT", bucket.endpoint()),
        ("ORTHANC__AWS_S3_STORAGE__VIRTUAL_ADDRESSING", "false".to_owned()),
    ];
    let slices: Vec<Vec<u8>> = Study(1).ct_series(5, 64, 64).collect::<Result<_, _>>()?;
    let first = Container::start(root, &variables)?;
    let ids: Vec<String> =
        slices.iter().map(|slice| Ok(first.rest.upload(slice)?.id)).collect::<Result<_>>()?;
    ensure!(bucket.keys(BUCKET).len() == slices.len(), "{} objects", bucket.keys(BUCKET).len());
    drop(first);
    let second = Container::start(root, &variables)?;
    for (id, slice) in ids.iter().zip(&slices) {
        ensure!(second.rest.file(id)? == *slice, "instance {id} came back as another one");
    }
    let plugins = second.rest.get_json("/plugins")?;
    ensure!(plugins.as_array().is_some_and(|all| all.contains(&json!("AWS S3 Storage"))), "{plugins}");
    done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_is_one_that_the_proof_can_follow() {
        let recipe = dist::workspace().unwrap().join("ci/docker/Dockerfile");
        let steps = steps(&fs::read_to_string(recipe).unwrap()).unwrap();
        let copies = steps.iter().filter(|step| matches!(step, Step::Copy { .. })).count();
        assert_eq!((steps.len(), copies), (4, 2), "{steps:?}");
    }

    #[test]
    fn an_unknown_instruction_is_no_step_that_is_left_out() {
        assert!(steps("ADD x y").is_err());
        assert!(steps("FROM debian:11").is_err());
    }
}
