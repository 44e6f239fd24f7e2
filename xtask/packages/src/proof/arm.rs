//! The libraries for ARM, in an emulator of the processor.

use std::fs;
use std::path::Path;

use anyhow::Result;
use xshell::cmd;

use super::empty_folder;
use super::exercise::{self, Emulator};
use crate::dist::{self, Platform};
use crate::system::require;
use real_orthanc::workspace::Plugin;

pub(super) fn run() -> Result<()> {
    require(&["qemu-user", "libc6-arm64-cross"])?;
    let emulator = Emulator {
        command: |shell, program| Ok(cmd!(shell, "qemu-aarch64 -L /usr/aarch64-linux-gnu {program}")),
        path: |path: &Path| path.display().to_string(),
        program: dist::build_exercise(Platform::LinuxArm)?,
    };
    let folder = empty_folder("arm")?;
    for plugin in Plugin::all() {
        let bytes = dist::packed_library(plugin, Platform::LinuxArm)?;
        let file = folder.join(Platform::LinuxArm.library(plugin));
        fs::write(&file, bytes)?;
        exercise::run(plugin, &file, &emulator, &folder)?;
    }
    Ok(())
}
