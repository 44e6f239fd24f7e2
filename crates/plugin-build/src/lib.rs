//! Build script of the plugins: passes the facts in a plugin's `Cargo.toml` to its crate and sets the linker options
//! of its shared library.
//!
//! The whole of a plugin's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     plugin_build::build()
//! }
//! ```

mod facts;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use facts::Facts;

/// The variable with the commit, in the environment of the build and for `option_env!` in the plugin.
const COMMIT: &str = "ORTHANC_PLUGIN_COMMIT";
/// All functions that Orthanc calls.
const EXPORTS: &str = "{ global: OrthancPlugin*; local: *; };";

/// Sets `ORTHANC_PLUGIN_NAME` and `ORTHANC_PLUGIN_SECTION` for `env!` in the plugin, `ORTHANC_PLUGIN_COMMIT` if it is known, and hides all functions of its
/// library but the entry points of Orthanc's interface.
///
/// # Errors
///
/// Returns an error if cargo's variables are not set, a fact is missing in `Cargo.toml`, or cargo's output folder is not
/// writable.
pub fn build() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let facts = Facts::read(Path::new(&env::var("CARGO_MANIFEST_DIR")?))?;
    println!("cargo::rustc-env=ORTHANC_PLUGIN_NAME={}", facts.name);
    println!("cargo::rustc-env=ORTHANC_PLUGIN_SECTION={}", facts.section);
    if let Some(commit) = commit(Path::new(&env::var("CARGO_MANIFEST_DIR")?)) {
        println!("cargo::rustc-env={COMMIT}={commit}");
    }
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        hide_symbols()?;
    }
    Ok(())
}

/// Returns the commit that the plugin in `folder` is built from: the environment's, or else that of the repository. An
/// archive of the sources has none, and is not taken for a part of a repository around it.
fn commit(folder: &Path) -> Option<String> {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    if let Some(commit) = env::var(COMMIT).ok().filter(|commit| !commit.is_empty()) {
        return Some(commit);
    }
    let root = folder.ancestors().nth(2)?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = output.status.success().then_some(output.stdout)?;
        Some(String::from_utf8(text).ok()?.trim().to_owned())
    };
    if !root.join(".git").exists() {
        return None;
    }
    // Has a line for each commit and each checkout.
    let log = root.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// A dependency marks C functions as exported, but two plugins in one process must not find each other's functions.
fn hide_symbols() -> Result<(), Box<dyn Error>> {
    if env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc")) {
        // zig's linker lacks `--exclude-libs`. Of two lists of exports it takes the last; other linkers refuse a second.
        let list = PathBuf::from(env::var("OUT_DIR")?).join("exports.map");
        fs::write(&list, EXPORTS)?;
        println!("cargo::rustc-link-arg-cdylib=-Wl,--version-script={}", list.display());
    } else {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--exclude-libs,ALL");
    }
    Ok(())
}
