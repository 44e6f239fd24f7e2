//! The platforms that packages are made for, and their names.

use std::str::FromStr;

use anyhow::{Context, Error, Result};

use real_orthanc::workspace::Plugin;

/// An operating system and a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// Linux on x86-64.
    LinuxX86,
    /// Linux on ARM, 64-bit.
    LinuxArm,
    /// Windows on x86-64.
    Windows,
}

impl Platform {
    pub(crate) const ALL: [Self; 3] = [Self::LinuxX86, Self::LinuxArm, Self::Windows];
    pub(crate) const LINUX: [Self; 2] = [Self::LinuxX86, Self::LinuxArm];

    /// Returns the end of the archives' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LinuxX86 => "linux-x86_64",
            Self::LinuxArm => "linux-aarch64",
            Self::Windows => "windows-x86_64",
        }
    }

    /// Returns the compiler's name.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::LinuxX86 => "x86_64-unknown-linux-gnu",
            Self::LinuxArm => "aarch64-unknown-linux-gnu",
            Self::Windows => "x86_64-pc-windows-gnu",
        }
    }

    /// Returns the extension of archives.
    pub(crate) fn archive_extension(self) -> &'static str {
        if self == Self::Windows { "zip" } else { "tar.gz" }
    }

    /// Returns Debian's name of the processor.
    pub(crate) fn debian(self) -> Option<&'static str> {
        match self {
            Self::LinuxX86 => Some("amd64"),
            Self::LinuxArm => Some("arm64"),
            Self::Windows => None,
        }
    }

    /// Returns the file of the program `orthanc-envelope`.
    pub(crate) fn tool(self) -> &'static str {
        if self == Self::Windows { "orthanc-envelope.exe" } else { super::TOOL }
    }

    /// Returns the file that Orthanc loads.
    pub(crate) fn library(self, plugin: Plugin) -> String {
        let library = plugin.library();
        if self == Self::Windows { format!("{library}.dll") } else { format!("lib{library}.so") }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|platform| platform.name() == text);
        found.with_context(|| {
            format!("the platform must be one of {}, got {text}", Self::ALL.map(Self::name).join(", "))
        })
    }
}
