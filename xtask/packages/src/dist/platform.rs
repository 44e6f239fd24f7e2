//! The platforms that packages are made for, and how things are called there.

use std::str::FromStr;

use anyhow::{Error, Result, bail};
use real_orthanc::workspace::Plugin;

/// An operating system and a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The end of the archives' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LinuxX86 => "linux-x86_64",
            Self::LinuxArm => "linux-aarch64",
            Self::Windows => "windows-x86_64",
        }
    }

    /// The compiler's name of it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::LinuxX86 => "x86_64-unknown-linux-gnu",
            Self::LinuxArm => "aarch64-unknown-linux-gnu",
            Self::Windows => "x86_64-pc-windows-gnu",
        }
    }

    /// Debian's name of the processor; none where there are no Debian packages.
    pub(crate) fn debian_architecture(self) -> Option<&'static str> {
        match self {
            Self::LinuxX86 => Some("amd64"),
            Self::LinuxArm => Some("arm64"),
            Self::Windows => None,
        }
    }

    /// The file that Orthanc loads.
    pub(crate) fn library(self, plugin: Plugin) -> String {
        match self {
            Self::LinuxX86 | Self::LinuxArm => format!("lib{}.so", plugin.library()),
            Self::Windows => format!("{}.dll", plugin.library()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|platform| platform.name() == text) {
            Some(platform) => Ok(platform),
            None => {
                bail!("{text} is no platform; there are {}", Self::ALL.map(Self::name).join(", "))
            }
        }
    }
}
