//! Shared parts of the tests of `WriteBack`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{LoadedPlugin, content, eventually, is_attachment, with};
use crate::hybrid::support::files;

/// The time within which everything is in a bucket that works.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// An `UploadDelay` that no test lasts for, in seconds.
pub(crate) const NEVER: u64 = 3600;

/// Returns options of the plugin's section: the mode, and this section `WriteBack`.
pub(crate) fn write_back(section: &Value) -> Value {
    json!({"HybridMode": "WriteBack", "WriteBack": section})
}

/// Returns the same options without uploads before the next start.
pub(crate) fn without_uploads() -> Value {
    write_back(&json!({"UploadDelay": NEVER}))
}

/// Returns the content of the attachment with this number.
pub(crate) fn numbered(number: usize) -> Vec<u8> {
    [&number.to_le_bytes()[..], &content(3000)].concat()
}

/// The folder of an Orthanc in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateFolder(PathBuf);

impl StateFolder {
    /// The folder of the only Orthanc with this `StorageDirectory`.
    pub(crate) fn of(storage: &Path) -> Self {
        Self(storage.join(".orthanc-object-storage/0"))
    }

    /// The folder of a plugin.
    pub(crate) fn of_plugin<C: Cloud>(plugin: &LoadedPlugin<C>) -> Self {
        Self::of(&plugin.orthanc.storage_folder())
    }

    /// This numbered folder.
    pub(crate) fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The pending files, relative to their folder and sorted.
    pub(crate) fn pending(&self) -> Vec<String> {
        self.list("pending")
    }

    /// The cached files.
    pub(crate) fn cached(&self) -> Vec<String> {
        self.list("cache")
    }

    /// The files that are being written. Empty ones are markers of deletions.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let mut files = self.list("tmp");
        let has_content =
            |name: &String| self.0.join("tmp").join(name).metadata().is_ok_and(|file| file.len() > 0);
        files.retain(has_content);
        files
    }

    /// The damaged files.
    pub(crate) fn quarantined(&self) -> Vec<String> {
        self.list("quarantine")
    }

    /// The path of a pending file.
    pub(crate) fn pending_path(&self, name: &str) -> PathBuf {
        self.0.join("pending").join(name)
    }

    /// The path of a cached file.
    pub(crate) fn cached_path(&self, name: &str) -> PathBuf {
        self.0.join("cache").join(name)
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let mut files = files(&self.0.join(folder));
        files.retain(|name| !name.ends_with('/'));
        files
    }

    /// Waits until nothing is pending.
    pub(crate) fn expect_uploaded(&self) -> Result<()> {
        let done = eventually("nothing is pending", SOON, || self.pending().is_empty());
        done.map_err(|error| error.context(format!("{:?}", self.pending())))
    }
}

/// The names of the objects of attachments.
pub(crate) fn objects<C: Cloud>(plugin: &LoadedPlugin<C>) -> Vec<String> {
    plugin.server.keys(C::BUCKET).into_iter().filter(|key| is_attachment(key)).collect()
}

/// Waits until the bucket has this many attachments, and nothing is pending.
pub(crate) fn expect_all_uploaded<C: Cloud>(plugin: &LoadedPlugin<C>, count: usize) -> Result<()> {
    StateFolder::of_plugin(plugin).expect_uploaded()?;
    let found = objects(plugin);
    ensure!(found.len() == count, "{} objects: {found:?}", found.len());
    Ok(())
}

/// Stores the attachments with these numbers.
pub(crate) fn store<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    numbers: impl IntoIterator<Item = usize>,
) -> Result<()> {
    numbers.into_iter().try_for_each(|number| plugin.create(&crate::uuid(number), &numbered(number)))
}

/// Checks that the attachments with these numbers are read as they were stored.
pub(crate) fn expect_readable<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    numbers: impl IntoIterator<Item = usize>,
) -> Result<()> {
    for number in numbers {
        let (uuid, expected) = (crate::uuid(number), numbered(number));
        ensure!(plugin.read(&uuid)? == expected, "attachment {number}");
        ensure!(plugin.range(&uuid, 7, 1500)? == expected[7..1507], "a range of attachment {number}");
    }
    Ok(())
}

/// Returns the number of requests for a name of an object.
pub(crate) fn requests_for<C: Cloud>(plugin: &LoadedPlugin<C>, method: &str, name: &str) -> usize {
    let records = plugin.server.last_requests();
    records.iter().filter(|request| request.method == method && request.path.contains(name)).count()
}

/// Returns options with others added.
pub(crate) fn and(options: &Value, others: &Value) -> Value {
    with(options.clone(), others)
}
