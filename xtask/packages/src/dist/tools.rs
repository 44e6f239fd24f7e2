//! Compilers and packers that `dist` needs, and how they come here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::contents::workspace;
use super::platform::Platform;
use crate::install::{self, Need};
use crate::test::target_folder;

/// Python packages with the linker and the C library's old versions. Both are plain downloads, nothing is compiled.
const ZIG: [&str; 2] = ["cargo-zigbuild==0.24.0", "ziglang==0.17.0"];

const CYCLONEDX: &str = "0.5.9";

/// Debian's Python comes without what makes a virtual environment.
const PYTHON: [Need; 1] = [Need {
    file: "/usr/share/doc/python3-venv/copyright",
    package: "python3-venv",
    purpose: "installs Python packages",
}];

const MINGW: [Need; 3] = [
    Need { file: "x86_64-w64-mingw32-gcc", package: "gcc-mingw-w64-x86-64", purpose: "compiles for Windows" },
    Need { file: "x86_64-w64-mingw32-g++", package: "g++-mingw-w64-x86-64", purpose: "compiles for Windows" },
    Need { file: "makensis", package: "nsis", purpose: "makes the Windows installer" },
];

/// Debian's own newer Rust, for machines that rustup cannot bring the standard library for another system to.
const DEBIAN_RUST: [Need; 3] = [
    Need {
        file: "/usr/bin/rustc",
        package: "rustc-web",
        purpose: "a compiler that its standard library's sources fit to",
    },
    Need { file: "/usr/bin/cargo", package: "cargo-web", purpose: "its cargo" },
    Need {
        file: "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
        package: "rust-web-src",
        purpose: "the standard library's sources",
    },
];

/// How libraries for a platform are compiled.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    rust: Rust,
    /// The folder with `cargo-zigbuild`, for Linux.
    zig: Option<PathBuf>,
}

/// Where the compiler and the standard library come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rust {
    /// The toolchain of `rust-toolchain.toml`, with the standard library that rustup has for the platform.
    Rustup,
    /// Debian's packages, which compile the standard library themselves.
    Debian,
}

impl Toolchain {
    /// The first way that works, installed if need be. It says which.
    pub(crate) fn prepare(platform: Platform) -> Result<Self> {
        let windows = platform == Platform::Windows;
        if windows {
            install::require(&MINGW)?;
        }
        let rust = if rustup_has(platform)? {
            eprintln!("{}: rustup's standard library", platform.name());
            Rust::Rustup
        } else {
            eprintln!(
                "{}: rustup does not bring {}: Debian's Rust compiles the standard library too",
                platform.name(),
                platform.triple()
            );
            install::require(&DEBIAN_RUST)?;
            Rust::Debian
        };
        Ok(Self { rust, zig: if windows { None } else { Some(zig()?) } })
    }

    /// A command that runs its cargo, without a subcommand yet.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(if self.rust == Rust::Debian { "/usr/bin/cargo" } else { "cargo" });
        if self.rust == Rust::Debian {
            // The option to compile the standard library is not stable yet.
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", "/usr/bin/rustc").env("CARGO", "/usr/bin/cargo");
        }
        if let Some(zig) = &self.zig {
            command.env("PATH", with_folder(zig));
        }
        command
    }

    /// Whether builds go through `cargo zigbuild`.
    pub(crate) fn has_zig(&self) -> bool {
        self.zig.is_some()
    }

    /// What cargo is told beside the target.
    pub(crate) fn build_std(&self) -> &'static [&'static str] {
        if self.rust == Rust::Debian { &["-Zbuild-std=std,panic_unwind"] } else { &[] }
    }

    /// Two compilers in one target folder would undo each other's work.
    pub(crate) fn target_subfolder(&self) -> &'static str {
        if self.rust == Rust::Debian { "debian-rust" } else { "" }
    }

    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        match (self.rust, self.has_zig()) {
            (Rust::Rustup, true) => "rustup and zig",
            (Rust::Rustup, false) => "rustup and mingw-w64",
            (Rust::Debian, true) => "Debian's Rust and zig",
            (Rust::Debian, false) => "Debian's Rust and mingw-w64",
        }
    }
}

/// Whether rustup has the platform's standard library, after having been asked to fetch it.
fn rustup_has(platform: Platform) -> Result<bool> {
    if env::var_os("DIST_WITHOUT_RUSTUP").is_some() {
        return Ok(false);
    }
    let mut command = Command::new("rustup");
    command.args(["target", "add", platform.triple()]).current_dir(workspace()?).stdout(Stdio::null());
    Ok(command.status().is_ok_and(|status| status.success()))
}

/// The folder of tools that are not Debian's. It outlives `target/dist`.
fn tools() -> Result<PathBuf> {
    Ok(target_folder()?.join("dist-tools"))
}

/// The folder of `cargo-zigbuild` and zig.
fn zig() -> Result<PathBuf> {
    let folder = tools()?.join("zig");
    let done = folder.join(ZIG.join("-"));
    if !done.is_file() {
        let has_venv = Command::new("python3").args(["-c", "import ensurepip, venv"]).status();
        if !has_venv.is_ok_and(|status| status.success()) {
            install::require(&PYTHON)?;
        }
        eprintln!("fetching {} (about 100 MB)", ZIG.join(" and "));
        let _ = fs::remove_dir_all(&folder);
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(ZIG))?;
        fs::write(&done, "").context("remembering that zig is there")?;
    }
    Ok(folder.join("bin"))
}

/// The program that writes bills of materials.
pub(crate) fn cyclonedx() -> Result<PathBuf> {
    let folder = tools()?;
    let done = folder.join(format!("cyclonedx-{CYCLONEDX}"));
    if !done.is_file() {
        eprintln!("compiling cargo-cyclonedx {CYCLONEDX} (some minutes, once)");
        let mut command = Command::new("cargo");
        command.args(["install", "--locked", "--version", CYCLONEDX, "cargo-cyclonedx", "--root"]);
        run(command.arg(&folder).env("CARGO_TARGET_DIR", folder.join("build")))?;
        fs::write(&done, "").context("remembering that cargo-cyclonedx is there")?;
        let _ = fs::remove_dir_all(folder.join("build"));
    }
    Ok(folder.join("bin/cargo-cyclonedx"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}

/// The search path with a folder in front.
fn with_folder(folder: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&path));
    env::join_paths(folders).unwrap_or(path)
}
