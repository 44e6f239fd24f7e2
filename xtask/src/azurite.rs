//! Azurite, for the tests of the Azure plugin, below cargo's target folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::test::target_folder;

/// What `ci/azurite` has, below it: all that decides what is installed.
const FILES: [&str; 5] =
    [".npmrc", "package.json", "package-lock.json", "no-telemetry/package.json", "no-telemetry/index.js"];

/// Installs the version that `ci/azurite` pins, unless it is there.
pub(crate) fn install_missing() -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/azurite");
    let tools = target_folder()?.join("tools");
    let folder = tools.join("azurite");
    if is_current(&source, &folder) {
        return Ok(());
    }
    eprintln!("installing Azurite, Microsoft's emulator of Azure Blob Storage");
    // Put in its place as a whole, so that an installation that was interrupted is not taken for one.
    let unfinished = tools.join("azurite-unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(unfinished.join("no-telemetry")).context("making the folder for Azurite")?;
    for file in FILES {
        fs::copy(source.join(file), unfinished.join(file)).with_context(|| format!("copying {file}"))?;
    }
    let shell = Shell::new()?;
    shell.change_dir(&unfinished);
    // Its complaint that Azurite wants a newer Node concerns parts that are not used here.
    cmd!(shell, "npm ci --loglevel error").run().context("installing Azurite")?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&unfinished, &folder).context("putting Azurite in its place")?;
    ensure!(is_current(&source, &folder), "Azurite is still missing after the installation");
    Ok(())
}

fn is_current(source: &Path, folder: &Path) -> bool {
    let same = |file: &str| {
        let read = |folder: &Path| fs::read(folder.join(file)).ok();
        read(source).is_some_and(|content| read(folder) == Some(content))
    };
    FILES.into_iter().all(same)
}
