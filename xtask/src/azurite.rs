//! Installs Azurite, Microsoft's emulator of Azure Blob Storage, below cargo's target folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{run, target_folder};

/// Files in `ci/azurite` that decide what is installed.
const FILES: [&str; 5] =
    [".npmrc", "package.json", "package-lock.json", "no-telemetry/package.json", "no-telemetry/index.js"];

/// Installs the version that `ci/azurite` pins, unless it is installed already.
pub(crate) fn install_missing() -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/azurite");
    let tools = target_folder()?.join("tools");
    let folder = tools.join("azurite");
    if is_current(&source, &folder) {
        return Ok(());
    }
    eprintln!("Installing Azurite, Microsoft's emulator of Azure Blob Storage");
    // Renamed at the end, so that an interrupted installation is never used.
    let unfinished = tools.join("azurite-unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(unfinished.join("no-telemetry")).context("creating the folder for Azurite")?;
    for file in FILES {
        fs::copy(source.join(file), unfinished.join(file)).with_context(|| format!("copying {file}"))?;
    }
    // npm warns that Azurite needs a newer Node: that concerns parts of Azurite that are not used here.
    run(Command::new("npm").args(["ci", "--loglevel", "error"]).current_dir(&unfinished))?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&unfinished, &folder).context("renaming the folder of Azurite")?;
    ensure!(is_current(&source, &folder), "Azurite is still missing after its installation");
    Ok(())
}

fn is_current(source: &Path, folder: &Path) -> bool {
    FILES.into_iter().all(|file| {
        let wanted = fs::read(source.join(file)).ok();
        wanted.is_some() && wanted == fs::read(folder.join(file)).ok()
    })
}
