//! The files that arguments mean: files themselves, and all files below folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use walkdir::{DirEntry, WalkDir};

use crate::console::shown;
use crate::output::is_pending_file;

/// The folder of the plugins' own objects in a bucket, which are not attachments.
const OWN_OBJECTS: &str = ".orthanc-object-storage";

/// A file to work on.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// The path below the argument that is a folder, or the name of the argument that is a file.
    pub(crate) relative: PathBuf,
    pub(crate) len: u64,
}

/// Returns the files in no particular order. An error is about one file or folder.
pub(crate) fn walk(arguments: &[PathBuf]) -> impl Iterator<Item = anyhow::Result<Found>> {
    arguments.iter().flat_map(|argument| {
        WalkDir::new(argument)
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !is_own(entry))
            .filter_map(move |entry| found(argument, entry).transpose())
    })
}

fn is_own(entry: &DirEntry) -> bool {
    if entry.file_type().is_dir() {
        entry.file_name() == OWN_OBJECTS
    } else {
        is_pending_file(entry.file_name())
    }
}

/// Returns `None` for a folder.
fn found(argument: &Path, entry: walkdir::Result<DirEntry>) -> anyhow::Result<Option<Found>> {
    let entry = entry.map_err(|error| {
        let path = error.path().unwrap_or(argument).to_owned();
        match error.into_io_error() {
            Some(error) => anyhow::Error::from(error).context(format!("cannot read {}", shown(&path))),
            None => anyhow!("cannot read {}", shown(&path)),
        }
    })?;
    let path = entry.path();
    if entry.depth() > 0 && entry.path_is_symlink() {
        let name = shown(path);
        return Err(anyhow!(
            "{name} is a symbolic link, which is not followed; name what it points to as an argument"
        ));
    }
    // Follows the link that an argument may be.
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", shown(path)))?;
    if metadata.is_dir() {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Err(anyhow!("{} must be a file or a folder", shown(path)));
    }
    let below = path.strip_prefix(argument).unwrap_or(path);
    let relative = if below.as_os_str().is_empty() { entry.file_name().into() } else { below.to_owned() };
    Ok(Some(Found { path: path.to_owned(), relative, len: metadata.len() }))
}
