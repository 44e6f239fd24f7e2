//! Linker options of the plugins' shared libraries, for their build scripts.

use std::env;
use std::fs;
use std::path::PathBuf;

/// All that Orthanc calls.
const EXPORTS: &str = "{ global: OrthancPlugin*; local: *; };";

/// Has the library show the four entry points of Orthanc's interface and nothing else. The whole of a build script.
///
/// # Errors
///
/// When cargo did not say what it builds, or its folder cannot be written to.
pub fn link() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" {
        return Ok(());
    }
    // A dependency marks functions for C as exported. Only the four entry points are to be seen: two plugins in one
    // process must not find each other's functions.
    if env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc")) {
        // zig's linker lacks the option below. Of two lists of exports, it takes the last one; others refuse a second.
        let list = PathBuf::from(env::var("OUT_DIR")?).join("exports.map");
        fs::write(&list, EXPORTS)?;
        println!("cargo::rustc-link-arg-cdylib=-Wl,--version-script={}", list.display());
    } else {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--exclude-libs,ALL");
    }
    Ok(())
}
