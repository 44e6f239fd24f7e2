//! The container recipe, in a folder with a Debian instead of a container engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fake_cloud::{BUCKET, BucketServer, Options};
use real_orthanc::Postgres;
use serde_json::json;
use xshell::cmd;

use super::rooted::{Rooted, free_port};
use super::{Stored, empty_folder, step};
use crate::system::{dist_folder, output, require, shell};

/// The folder of the image that the recipe copies its scripts to.
const SCRIPTS: &str = "usr/local/share/orthanc";

pub(super) fn run() -> Result<()> {
    require(&["debootstrap"])?;
    let root = empty_folder("container")?;
    let shell = shell()?;
    step("debootstrap creates a Debian 12", || {
        output(cmd!(shell, "debootstrap --variant=minbase bookworm {root}"))?;
        // As in container images, packages start no services.
        let policy = root.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        Ok(fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?)
    })?;
    step("the recipe installs Orthanc and the packages", || {
        let packages = shell.read_dir(dist_folder()?)?;
        let packages = packages.into_iter().filter(|file| file.extension().is_some_and(|end| end == "deb"));
        copy(packages.collect(), &root.join("tmp/packages"))?;
        let scripts = ["install", "entrypoint", "environment.jq"];
        copy(scripts.map(|name| Path::new("ci/docker").join(name)).into(), &root.join(SCRIPTS))?;
        output(cmd!(shell, "chroot {root} /bin/sh /{SCRIPTS}/install"))?;
        let authorities = root.join("etc/ssl/certs/ca-certificates.crt");
        ensure!(authorities.is_file(), "the packages must install certificate authorities");
        Ok(())
    })?;
    step("configured by variables and secrets, a second container has the studies of the first", || {
        second_container_has_the_studies(&root)
    })?;
    fs::remove_dir_all(&root).context("removing the Debian")
}

fn copy(files: Vec<PathBuf>, folder: &Path) -> Result<()> {
    let shell = shell()?;
    output(cmd!(shell, "install -D --target-directory {folder} {files...}")).map(drop)
}

/// Starts the image's entry point.
fn start(root: &Path, variables: &[(&str, String)]) -> Result<Rooted> {
    let port = free_port()?;
    let mut all = variables.to_vec();
    all.push(("ORTHANC__HTTP_PORT", port.to_string()));
    all.push(("ORTHANC__DICOM_SERVER_ENABLED", "false".to_owned()));
    all.push(("ORTHANC__REGISTERED_USERS", r#"{"demo": "demo"}"#.to_owned()));
    Rooted::start(root, "999:999", &[&format!("/{SCRIPTS}/entrypoint")], port, &all)
}

/// Starts two containers, one after the other, that share only a database and a bucket.
fn second_container_has_the_studies(root: &Path) -> Result<()> {
    let database = Postgres::start()?;
    let options = Options::default();
    let bucket = BucketServer::start(options.clone())?;
    let secrets = root.join("run/secrets");
    fs::create_dir_all(&secrets)?;
    fs::write(secrets.join("access"), options.access_key + "\n")?;
    fs::write(secrets.join("ORTHANC__AWS_S3_STORAGE__SECRET_KEY"), options.secret_key + "\n")?;
    let variables = [
        ("ORTHANC__POSTGRESQL__ENABLE_INDEX", "true".to_owned()),
        ("ORTHANC__POSTGRESQL__ENABLE_STORAGE", "false".to_owned()),
        ("ORTHANC__POSTGRESQL__HOST", "127.0.0.1".to_owned()),
        ("ORTHANC__POSTGRESQL__PORT", database.port().to_string()),
        ("ORTHANC__POSTGRESQL__DATABASE", "orthanc".to_owned()),
        ("ORTHANC__POSTGRESQL__USERNAME", "postgres".to_owned()),
        ("ORTHANC__POSTGRESQL__PASSWORD", String::new()),
        // The first container is killed, and leaves its lock behind.
        ("ORTHANC__POSTGRESQL__LOCK", "false".to_owned()),
        ("ORTHANC__AWS_S3_STORAGE__BUCKET_NAME", BUCKET.to_owned()),
        ("ORTHANC__AWS_S3_STORAGE__REGION", options.region),
        ("ORTHANC__AWS_S3_STORAGE__ACCESS_KEY_SECRET", "access".to_owned()),
        ("ORTHANC__AWS_S3_STORAGE__ENDPOINT", bucket.endpoint()),
        ("ORTHANC__AWS_S3_STORAGE__VIRTUAL_ADDRESSING", "false".to_owned()),
    ];
    let first = start(root, &variables)?;
    let study = Stored::upload(&first.rest, 5)?;
    let objects = bucket.keys(BUCKET).len();
    ensure!(objects == 5, "the bucket must contain 5 objects, got {objects}");
    drop(first);
    let second = start(root, &variables)?;
    study.check(&second.rest)?;
    let plugins = second.rest.get_json("/plugins")?;
    ensure!(plugins.as_array().is_some_and(|all| all.contains(&json!("AWS S3 Storage"))), "{plugins}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn recipe_has_the_steps_of_the_proof() {
        let recipe = crate::system::workspace().unwrap().join("ci/docker/Dockerfile");
        let recipe = std::fs::read_to_string(recipe).unwrap();
        let steps: Vec<_> =
            recipe.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        let expected = [
            "FROM debian:12-slim",
            "COPY *.deb /tmp/packages/",
            "COPY install entrypoint environment.jq /usr/local/share/orthanc/",
            "RUN /bin/sh /usr/local/share/orthanc/install",
        ];
        assert_eq!(steps[..4], expected);
    }
}
