//! The life of a plugin, from its configuration to its end.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bucket::{Bucket, BucketCheck, BucketOptions, ObjectStorage, RetryPolicy};
use crypto_envelope::Format;
use hybrid::{FileStorage, FileStorageOptions, HybridStorage, Side, StoredForm};
use orthanc_ffi::{Change, InitializeError, Orthanc, OrthancError, Plugin, Ranges};
use serde_json::{Map, Value, json};
use storage_layout::Layout;

use crate::area::Area;
use crate::area::deletion::Removals;
use crate::area::encryption::Encryption;
use crate::config::{CommonOptions, ConfigError, EncryptionOptions, HybridOptions, Section};
use crate::moving::mover::{Engine, Stop};
use crate::moving::stored_form::AsItIs;
use crate::moving::{JOB_TYPE, resume};
use crate::offload::{Offload, PRECISION};
use crate::operations::metrics::Metrics;
use crate::operations::{Facts, Routes};
use crate::provider::{Provider, ProviderContext};
use crate::runtime::{Panicked, Runtime};

/// How long the check of the bucket at start may take.
const CHECK: Duration = Duration::from_secs(10);
/// How long a plugin that Orthanc ends waits for its deletions.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// The crates below whose log lines go into Orthanc's log.
const LOG_TARGETS: &[&str] =
    &["storage_plugin", "hybrid", "bucket", "storage_layout", "crypto_envelope", "cloud_http"];

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

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing(LOG_TARGETS);
        orthanc_ffi::set_verbose_targets(&[]);
        orthanc.set_description(P::DESCRIPTION)?;
        let Value::Object(configuration) = orthanc.configuration()? else {
            return Err(InitializeError::new("Orthanc's configuration is not a JSON object"));
        };
        let Some(mut section) = section::<P>(&configuration)? else {
            tracing::warn!("no section {:?} in the configuration: the plugin is disabled", P::SECTION);
            return Ok(Self { _background: None, _provider: PhantomData });
        };

        let common = CommonOptions::read(&mut section, &configuration)?;
        let runtime = Runtime::new(P::SECTION)
            .map_err(|error| InitializeError::new(format!("cannot start threads: {error}")))?;
        let context = ProviderContext::read::<P>(&mut section, &configuration, runtime.handle())?;
        let bucket = P::connect(&mut section, &context)?;
        section.warn_of_unknown();

        orthanc_ffi::set_verbose_targets(if context.network().http_logs { HTTP_LOGS } else { &[] });
        let ranges = ranges(common.encryption.as_ref());
        let facts = facts::<P>(&bucket.url, &common);
        let offload = common.hybrid.as_ref().and_then(|options| options.offload.clone()).map(Offload::new);
        let (storage, encryption) = storage(bucket, common, orthanc)?;
        check(&runtime, storage.objects())?;

        let (runtime, metrics) = (Arc::new(runtime), Arc::<Metrics>::default());
        let (engine, stop) =
            Engine::new(orthanc.clone(), storage.clone(), Arc::clone(&runtime), form(encryption.as_ref()));
        let background = Background::start(&engine, stop, offload.clone())?;
        register_jobs(orthanc, &engine)?;
        let removals = background.removals.clone();
        Routes { engine, facts, metrics: Arc::clone(&metrics), offload: offload.clone() }
            .register(orthanc)?;
        let area = Area { storage, encryption, removals, runtime, metrics, offload };
        orthanc.register_storage_area(Arc::new(area), ranges)?;
        Ok(Self { _background: Some(background), _provider: PhantomData })
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

/// Has Orthanc remake the jobs that it saved. Where hybrid storage was switched off meanwhile, they fail and say so.
fn register_jobs(orthanc: &Orthanc, engine: &Engine) -> Result<(), OrthancError> {
    let engine = engine.storage.files().is_some().then(|| engine.clone());
    orthanc.register_job_unserializer(move |job_type, saved| {
        let job = (job_type == JOB_TYPE).then(|| resume(engine.clone(), saved))??;
        Some(Box::new(job))
    })
}

/// What goes on when no callback of Orthanc waits for it.
struct Background {
    removals: Removals,
    runtime: Arc<Runtime>,
    stop: Arc<Stop>,
    offload: Option<(Arc<Offload>, JoinHandle<()>)>,
}

impl Background {
    /// Starts it. What calls Orthanc waits until Orthanc has started.
    fn start(engine: &Engine, stop: Stop, offload: Option<Arc<Offload>>) -> Result<Self, InitializeError> {
        let (runtime, stop) = (Arc::clone(&engine.runtime), Arc::new(stop));
        let removals = Removals::new(engine.storage.clone(), runtime.handle().clone());
        let (stopping, starting) = (Arc::clone(&stop), offload.clone());
        engine.orthanc.register_on_change(move |change| match change {
            Change::OrthancStarted => starting.iter().for_each(|offload| offload.begin()),
            Change::OrthancStopped => stopping.now(),
        })?;
        let worker = match (offload, engine.storage.files()) {
            (Some(offload), Some(files)) => {
                let worker = offload.spawn(engine.clone(), files.clone());
                let failed = |error| InitializeError::new(format!("cannot start threads: {error}"));
                Some((offload, worker.map_err(failed)?))
            }
            _ => None,
        };
        Ok(Self { removals, runtime, stop, offload: worker })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.now();
        if let Some((offload, worker)) = self.offload.take() {
            offload.stop();
            // It panicked, which was logged where it happened.
            let _ = worker.join();
        }
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

/// The attachments, and what encrypts them.
fn storage(
    bucket: BucketOptions,
    common: CommonOptions,
    orthanc: &Orthanc,
) -> Result<(HybridStorage, Option<Arc<Encryption>>), InitializeError> {
    let url = &bucket.url;
    match &common.encryption {
        None => tracing::warn!("{url} will hold patient data in clear: there is no client-side encryption"),
        Some(options) if options.format == Format::A1 => tracing::warn!(
            "new objects are encrypted in format A1, as the C++ plugins do; where no such plugin uses this bucket, \
             \"Format\": \"A2\" is stronger and faster"
        ),
        Some(_) => {}
    }
    let objects = Bucket::new(bucket);
    let layout =
        Layout { root: common.root, structure: common.structure, encrypted: common.encryption.is_some() };
    let read_unencrypted = common.encryption.as_ref().is_some_and(|options| options.read_unencrypted);
    let objects = ObjectStorage::new(objects, layout, common.legacy_unknown_files, read_unencrypted);
    let storage = match common.hybrid {
        None => HybridStorage::objects_only(objects),
        Some(options) => {
            let first = options.first;
            HybridStorage::new(objects, files(options, orthanc)?, first)
        }
    };
    Ok((storage, common.encryption.map(Encryption::new).map(Arc::new)))
}

/// The files beside the bucket.
fn files(options: HybridOptions, orthanc: &Orthanc) -> Result<FileStorage, InitializeError> {
    let HybridOptions { first, directory, sync, offload } = options;
    // Orthanc takes a path that does not begin at the root for one beside its configuration.
    let directory = match orthanc.configuration_folder() {
        Some(folder) if directory.is_relative() => folder.join(directory),
        _ => directory,
    };
    let files =
        FileStorage::new(directory, FileStorageOptions { sync, note_use: offload.map(|_| PRECISION) });
    files.clear_up();
    if first == Side::FileSystem {
        files.check_writable().map_err(|error| {
            InitializeError::new(format!("option StorageDirectory cannot be used: {error}"))
        })?;
    }
    let directory = files.root().display();
    match first {
        Side::FileSystem => tracing::warn!("new attachments are written to {directory}, not to the bucket"),
        Side::ObjectStorage => {
            tracing::warn!("attachments that are not in the bucket are read from {directory}");
        }
    }
    Ok(files)
}

/// How attachments lie in the storages.
fn form(encryption: Option<&Arc<Encryption>>) -> Arc<dyn StoredForm> {
    match encryption {
        Some(encryption) => Arc::<Encryption>::clone(encryption),
        None => Arc::new(AsItIs),
    }
}

/// What `GET /object-storage/status` tells of the configuration.
fn facts<P: Provider>(bucket: &str, common: &CommonOptions) -> Facts {
    let mode = match common.hybrid.as_ref().map(|options| options.first) {
        None => "Disabled",
        Some(Side::FileSystem) => "WriteToFileSystem",
        Some(Side::ObjectStorage) => "WriteToObjectStorage",
    };
    let encryption = common.encryption.as_ref().map_or(Value::Null, |options| {
        json!({
            "Format": options.format.to_string(),
            "MasterKeyId": options.ring.current_id(),
            "KeyIds": options.ring.ids().collect::<Vec<_>>(),
            "ReadUnencrypted": options.read_unencrypted,
        })
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Facts { version, provider: P::SECTION, bucket: bucket.to_owned(), mode, encryption }
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
fn check(runtime: &Runtime, storage: &ObjectStorage) -> Result<(), InitializeError> {
    let policy = RetryPolicy { max_retries: 0, deadline: CHECK, ..RetryPolicy::default() };
    let checked = storage.clone();
    match runtime.run(async move { checked.check(policy).await }) {
        Ok(Ok(BucketCheck::Found)) => Ok(()),
        Ok(Ok(BucketCheck::Created)) => {
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
