//! Configuration files as an administrator writes them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::release::plugins_of_debian;

/// The folder of the files in Orthanc's temporary folder.
pub(crate) const FOLDER: &str = "configuration";

/// Names and texts of files. In them, only Orthanc's name, its ports and the folders `/var/lib/orthanc` and
/// `/usr/share/orthanc/plugins` are replaced when they are written.
#[derive(Clone, Debug)]
pub(crate) struct CompleteConfiguration(pub(crate) Vec<(String, String)>);

impl CompleteConfiguration {
    pub(crate) fn write(&self, home: &Path, name: &str, http_port: u16, dicom_port: u16) -> io::Result<()> {
        let folder = home.join(FOLDER);
        fs::create_dir_all(&folder)?;
        for (file, text) in &self.0 {
            let text = text
                .replace("\"Orthanc\"", &format!("{name:?}"))
                .replace("8042", &http_port.to_string())
                .replace("4242", &dicom_port.to_string())
                .replace("/var/lib/orthanc", &home.to_string_lossy())
                .replace("/usr/share/orthanc/plugins", &home.join("plugins").to_string_lossy());
            fs::write(folder.join(file), text)?;
        }
        Ok(())
    }

    /// Makes the folder of plugins: those of Debian, and `own`.
    pub(crate) fn link_plugins(home: &Path, own: &[PathBuf]) -> io::Result<()> {
        let folder = home.join("plugins");
        if folder.exists() {
            return Ok(());
        }
        fs::create_dir(&folder)?;
        let debian = fs::read_dir(plugins_of_debian())?.map(|entry| entry.map(|entry| entry.path()));
        for library in own.iter().cloned().map(Ok).chain(debian) {
            let library = library?;
            let link = folder.join(library.file_name().unwrap_or_default());
            // Packages of ours may be installed.
            if !link.exists() {
                symlink(library, link)?;
            }
        }
        Ok(())
    }
}
