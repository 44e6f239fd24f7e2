//! Software bills of materials: which crates, in which versions and under which licences, are in a library.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use real_orthanc::workspace::Plugin;
use serde_json::Value;
use walkdir::WalkDir;

use super::contents::{self, workspace};
use super::platform::Platform;
use super::tools;

/// A name under which the program writes beside each `Cargo.toml`, and which nothing else has.
const TEMPORARY: &str = "dist-sbom";

/// The bill of materials of a plugin's library for a platform, in CycloneDX's JSON.
pub(crate) fn build(plugin: Plugin, platform: Platform, seconds: u64) -> Result<Vec<u8>> {
    let folder = workspace()?.join("plugins").join(contents::names(plugin)?.folder);
    let written = run(&folder, platform, seconds).and_then(|()| {
        let path = folder.join(format!("{TEMPORARY}.json"));
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    });
    remove_temporary()?;
    let mut bill: Value = serde_json::from_slice(&written?)?;
    forget_this_machine(&mut bill, &format!("{}/", workspace()?.display()));
    let mut text = format!("{bill:#}");
    text.push('\n');
    ensure!(text.contains(plugin.package()), "the bill of materials does not name {}", plugin.package());
    Ok(text.into_bytes())
}

fn run(folder: &Path, platform: Platform, seconds: u64) -> Result<()> {
    let mut command = Command::new(tools::cyclonedx()?);
    command.args(["cyclonedx", "--quiet", "--format", "json", "--target", platform.triple()]);
    command.args(["--override-filename", TEMPORARY, "--manifest-path"]).arg(folder.join("Cargo.toml"));
    // Without it, each bill has its own time and number.
    command.env("SOURCE_DATE_EPOCH", seconds.to_string());
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}

/// The program writes one for each member of the workspace.
fn remove_temporary() -> Result<()> {
    let name = format!("{TEMPORARY}.json");
    for folder in ["crates", "plugins", "xtask"] {
        for entry in WalkDir::new(workspace()?.join(folder)).max_depth(2) {
            let entry = entry?;
            if entry.file_name().to_string_lossy() == name {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Our own crates are named by their folder on this machine: only the part inside of the workspace is kept.
fn forget_this_machine(value: &mut Value, workspace: &str) {
    match value {
        Value::String(text) => *text = text.replace(workspace, ""),
        Value::Array(values) => values.iter_mut().for_each(|value| forget_this_machine(value, workspace)),
        Value::Object(values) => {
            values.values_mut().for_each(|value| forget_this_machine(value, workspace));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn folders_of_this_machine_do_not_reach_the_bill() {
        let mut bill = json!({"a": [{"ref": "path+file:///home/x/w/crates/hybrid#0.1.0"}], "b": 1});
        forget_this_machine(&mut bill, "/home/x/w/");
        assert_eq!(bill, json!({"a": [{"ref": "path+file://crates/hybrid#0.1.0"}], "b": 1}));
    }
}
