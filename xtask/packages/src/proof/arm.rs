//! The libraries for ARM, in an emulator of its processor.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::exercise::{self, Emulator};
use super::{empty_folder, library};
use crate::dist::{self, Platform};
use crate::install::{self, Need};
use crate::storage::Cloud;

const NEEDS: [Need; 2] = [
    Need { file: "qemu-aarch64", package: "qemu-user", purpose: "runs programs for ARM" },
    Need {
        file: "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1",
        package: "libc6-arm64-cross",
        purpose: "the C library for ARM",
    },
];

pub(super) fn run() -> Result<()> {
    install::require(&NEEDS)?;
    let emulator = Emulator {
        command: || {
            let mut command = Command::new("qemu-aarch64");
            command.args(["-L", "/usr/aarch64-linux-gnu"]);
            Ok(command)
        },
        path: |path: &Path| path.display().to_string(),
        program: dist::exercise(Platform::LinuxArm)?,
    };
    let folder = empty_folder("arm")?;
    for cloud in Cloud::ALL {
        let plugin = cloud.plugin();
        let bytes = library(plugin, Platform::LinuxArm)?
            .context("there is none: make it with cargo xtask dist --platform linux-aarch64")?;
        let file = folder.join(Platform::LinuxArm.library(plugin));
        fs::write(&file, bytes)?;
        exercise::run(cloud, &file, &emulator, &folder)?;
    }
    Ok(())
}
