//! The names of the plugins.

use anyhow::{Context, Result};

/// A plugin of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    package: &'static str,
    library: &'static str,
}

impl Plugin {
    /// All plugins.
    pub(crate) fn all() -> [Self; 3] {
        [
            Self { package: "aws-s3", library: "OrthancAwsS3Storage" },
            Self { package: "azure-blob", library: "OrthancAzureBlobStorage" },
            Self { package: "google-cloud", library: "OrthancGoogleCloudStorage" },
        ]
    }

    /// The plugin of a cargo package.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Self::all().into_iter().find(|plugin| plugin.package == name);
        found.with_context(|| format!("the plugin must be aws-s3, azure-blob or google-cloud, got {name}"))
    }

    /// Returns the cargo package, which is also the folder in `plugins/`.
    pub(crate) fn package(self) -> &'static str {
        self.package
    }

    /// Returns the library target.
    pub(crate) fn library(self) -> &'static str {
        self.library
    }

    /// Returns the Debian package, which is also the beginning of the archives' names.
    pub(crate) fn distribution(self) -> String {
        format!("orthanc-{}-storage", self.package)
    }

    /// Returns the section of Orthanc's configuration.
    pub(crate) fn section(self) -> &'static str {
        self.library.trim_start_matches("Orthanc")
    }

    /// Returns the file with the sample configuration.
    pub(crate) fn sample(self) -> String {
        format!("{}-storage.json", self.package)
    }
}
