//! The life of a plugin, from its configuration to its end.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crypto_envelope::Format;
use hybrid::{AttachmentStorage, Bucket, ObjectStorage, ObjectStorageOptions, RetryPolicy};
use orthanc_ffi::{Host, InitializeError, Plugin, Ranges};
use serde_json::{Map, Value};
use storage_layout::Layout;

use crate::area::Area;
use crate::config::{CommonOptions, ConfigError, EncryptionOptions, Section};
use crate::encryption::Encryption;
use crate::provider::{Provider, Setup};
use crate::removal::Removals;
use crate::runtime::{Panicked, Runtime};

/// How long the check of the bucket at start may take.
const CHECK: Duration = Duration::from_secs(10);
/// How long a plugin that Orthanc ends waits for its deletions.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Modules whose log lines `EnableHttpLogs` turns on, from debug level up. Not those of the AWS SDK: whether its debug lines
/// can hold parts of credentials has not been examined.
const HTTP_LOGS: &[&str] = &["cloud_http", "object_store", "reqwest", "hyper_util"];

/// Orthanc's storage area in a bucket of the cloud `P`.
pub struct StoragePlugin<P> {
    /// Ends what is still going on when the plugin is dropped.
    _background: Option<Background>,
    _provider: PhantomData<P>,
}

impl<P: Provider> Plugin for StoragePlugin<P> {
    const NAME: &'static CStr = P::NAME;
    const VERSION: &'static CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"unknown",
        };

    fn initialize(host: &Host) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing();
        orthanc_ffi::set_verbose_targets(&[]);
        host.set_description(P::DESCRIPTION)?;
        let Value::Object(configuration) = host.configuration()? else {
            return Err(InitializeError::new("Orthanc's configuration is not a JSON object"));
        };
        let Some(mut section) = section::<P>(&configuration)? else {
            tracing::warn!("no section {:?} in the configuration: the plugin is disabled", P::SECTION);
            return Ok(Self { _background: None, _provider: PhantomData });
        };

        let common = CommonOptions::read(&mut section, &configuration)?;
        let runtime = Runtime::new(P::SECTION)
            .map_err(|error| InitializeError::new(format!("cannot start threads: {error}")))?;
        let setup = Setup::new(&configuration, runtime.handle());
        let connection = P::connect(&mut section, &setup)?;
        section.warn_of_unknown();

        orthanc_ffi::set_verbose_targets(if connection.http_logs { HTTP_LOGS } else { &[] });
        let ranges = ranges(common.encryption.as_ref());
        let (storage, encryption) = storage(connection.bucket, common);
        check(&runtime, &storage)?;

        let removals = Removals::new(storage.clone(), runtime.handle().clone());
        let runtime = Arc::new(runtime);
        let area = Area::new(storage, encryption, removals.clone(), Arc::clone(&runtime));
        host.register_storage_area(Arc::new(area), ranges)?;
        Ok(Self { _background: Some(Background { removals, runtime }), _provider: PhantomData })
    }
}

/// The plugin's section, under its name or its older one.
fn section<P: Provider>(configuration: &Map<String, Value>) -> Result<Option<Section<'_>>, ConfigError> {
    if let Some(section) = Section::find(configuration, P::SECTION)? {
        return Ok(Some(section));
    }
    let Some(older) = P::OLDER_SECTION else { return Ok(None) };
    let section = Section::find(configuration, older)?;
    if section.is_some() {
        tracing::warn!("the section {older:?} is deprecated: call it {:?}", P::SECTION);
    }
    Ok(section)
}

/// What goes on when no callback of Orthanc waits for it.
struct Background {
    removals: Removals,
    runtime: Arc<Runtime>,
}

impl Drop for Background {
    fn drop(&mut self) {
        let removals = self.removals.clone();
        if let Ok(unfinished @ 1..) = self.runtime.run(async move { removals.finish(SHUTDOWN).await }) {
            tracing::error!(
                "{unfinished} deletions did not come to an end: their objects stay in the bucket"
            );
        }
    }
}

impl<P: Provider> fmt::Debug for StoragePlugin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoragePlugin({})", P::SECTION)
    }
}

/// The attachments in the bucket, and what encrypts them.
fn storage(bucket: ObjectStorageOptions, common: CommonOptions) -> (AttachmentStorage, Option<Encryption>) {
    let url = &bucket.url;
    match &common.encryption {
        None => tracing::warn!("{url} will hold patient data in clear: there is no client-side encryption"),
        Some(options) if options.format == Format::A1 => tracing::warn!(
            "new objects are encrypted in format A1, as the C++ plugins do; where no such plugin uses this bucket, \
             \"Format\": \"A2\" is stronger and faster"
        ),
        Some(_) => {}
    }
    let objects = ObjectStorage::new(bucket);
    let layout =
        Layout { root: common.root, structure: common.structure, encrypted: common.encryption.is_some() };
    let read_unencrypted = common.encryption.as_ref().is_some_and(|options| options.read_unencrypted);
    let storage = AttachmentStorage::new(objects, layout, common.legacy_unknown_files, read_unencrypted);
    (storage, common.encryption.map(Encryption::new))
}

/// A1 cannot be read in ranges: Orthanc then stores DICOM headers as attachments of their own.
fn ranges(encryption: Option<&EncryptionOptions>) -> Ranges {
    match encryption {
        Some(options) if options.format == Format::A1 => Ranges::NotServed,
        _ => Ranges::Served,
    }
}

/// One request to see whether the bucket can be used. What may pass by itself is only a warning: Orthanc can start
/// before its storage does.
fn check(runtime: &Runtime, storage: &AttachmentStorage) -> Result<(), InitializeError> {
    let policy = RetryPolicy { max_retries: 0, deadline: CHECK, ..RetryPolicy::default() };
    let checked = storage.clone();
    match runtime.run(async move { checked.check(policy).await }) {
        Ok(Ok(Bucket::Found)) => Ok(()),
        Ok(Ok(Bucket::Created)) => {
            tracing::warn!("{} was missing and has been created: check that it is private", storage.url());
            Ok(())
        }
        Ok(Err(error)) if error.transient => {
            tracing::warn!("{error}; going on, since the server may come up later");
            Ok(())
        }
        Ok(Err(error)) => Err(InitializeError::new(error.to_string())),
        Err(Panicked) => Err(InitializeError::new("the check of the bucket ended unexpectedly")),
    }
}
