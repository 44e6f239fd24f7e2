//! The storage that the configuration describes: bucket, files, the plugin's own folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket::{Bucket, ObjectStorage};
use hybrid::{
    FileStorage, FileStorageOptions, HybridStorage, Purpose, Side, StateDirectory, WriteBack,
    WriteBackOptions,
};
use orthanc_ffi::{InitializeError, Orthanc};
use storage_layout::Layout;

use super::disk;
use crate::area::encryption::Encryption;
use crate::config::{CommonOptions, HybridOptions, StateOptions};
use crate::stop::Stop;

/// The storage, and the encryption of its attachments.
pub(crate) fn storage(
    bucket: Bucket,
    common: CommonOptions,
    state: Option<&Arc<StateDirectory>>,
    orthanc: &Orthanc,
    stop: &Stop,
) -> Result<(HybridStorage, Option<Arc<Encryption>>), InitializeError> {
    let url = bucket.url();
    match &common.encryption {
        None => tracing::warn!("client-side encryption is off: {url} will contain unencrypted patient data"),
        Some(options) => options.warn(),
    }
    // Exists in all modes, since attachments may be pending when the mode is changed.
    let mut local = None;
    if let Some(state) = state {
        let options = write_back(&common);
        if let Some(options) = &options {
            disk::warn(&state.folder(), options);
        }
        let opened = WriteBack::open(Arc::clone(state), options);
        local = Some(opened.map_err(|error| InitializeError::new(error.to_string()))?);
    }
    let layout =
        Layout { root: common.root, structure: common.structure, encrypted: common.encryption.is_some() };
    let read_unencrypted = common.encryption.as_ref().is_some_and(|options| options.read_unencrypted);
    let mut objects = ObjectStorage::new(bucket, layout, common.legacy_unknown_files, read_unencrypted);
    if common.decryption.is_some() {
        objects = objects.with_encrypted();
    }
    if common.key_vault_blobs {
        objects = objects.with_key_vault_blobs();
    }
    let storage = match common.hybrid {
        None => HybridStorage::objects_only(objects),
        Some(options) => {
            let first = options.first;
            HybridStorage::new(objects, files(options, orthanc)?, first)
        }
    };
    let storage = match local {
        Some(local) => storage.with_local(local),
        None => storage,
    };
    let folder = state.map(|state| state.folder());
    let with = |options| Encryption::new(options, storage.objects().clone(), folder, stop.clone());
    let encryption = match (common.encryption, common.decryption) {
        (Some(options), _) => Some(with(options)),
        (None, Some(options)) => Some(with(options).only_reading()),
        (None, None) => None,
    };
    Ok((storage, encryption.map(Arc::new)))
}

/// The plugin's own folder; `None` if it cannot be used.
pub(crate) fn state_directory(
    bucket: &Bucket,
    common: &CommonOptions,
    orthanc: &Orthanc,
) -> Result<Option<Arc<StateDirectory>>, InitializeError> {
    let StateOptions { directory, storage_directory, deletion_delay } = &common.state;
    let purpose = Purpose {
        bucket: format!("{}, root {:?}", bucket.identity(), common.root.join("")),
        settings: format!(
            "delay {} s, files in {:?}",
            deletion_delay.as_secs(),
            absolute(storage_directory, orthanc)
        ),
    };
    let directory = absolute(directory, orthanc);
    match StateDirectory::open(&directory, &purpose) {
        Ok(state) => Ok(Some(Arc::new(state))),
        Err(error) if write_back(common).is_some() => {
            let problem = "\"HybridMode\": \"WriteBack\" requires a StateDirectory that can be written to";
            Err(InitializeError::new(format!("{problem}: {error}")))
        }
        Err(error) if StateDirectory::may_have_pending(&directory) => {
            let problem = "StateDirectory has attachments that are in no bucket, so it must be writable";
            Err(InitializeError::new(format!("{problem}: {error}")))
        }
        Err(error) if !deletion_delay.is_zero() => {
            let problem = "DeletionDelay requires a StateDirectory that can be written to";
            Err(InitializeError::new(format!("{problem}: {error}")))
        }
        Err(error) => {
            tracing::warn!(
                "{error}; StateDirectory cannot be used, so each deletion waits for the server, and an object \
                 that cannot be deleted within five seconds remains in the bucket"
            );
            Ok(None)
        }
    }
}

/// The section `WriteBack`; `None` in other modes.
fn write_back(common: &CommonOptions) -> Option<WriteBackOptions> {
    common.hybrid.as_ref().and_then(|options| options.write_back.clone())
}

/// Resolves a relative path against the folder of Orthanc's configuration, as Orthanc does.
pub(crate) fn absolute(path: &Path, orthanc: &Orthanc) -> PathBuf {
    match orthanc.configuration_folder() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path.to_owned(),
    }
}

/// The files in `StorageDirectory`.
fn files(options: HybridOptions, orthanc: &Orthanc) -> Result<FileStorage, InitializeError> {
    let HybridOptions { first, directory, sync, write_back: _ } = options;
    let files = FileStorage::new(absolute(&directory, orthanc), FileStorageOptions { sync });
    files.clear_up();
    if first == Side::FileSystem {
        files
            .check_writable()
            .map_err(|error| InitializeError::new(format!("`StorageDirectory` cannot be used: {error}")))?;
    }
    Ok(files)
}
