//! The life cycle of a plugin, from reading its configuration to shutting down.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bucket::{Bucket, BucketCheck, Cause, ObjectStorage, Operation, RetryPolicy};
use crypto_envelope::Format;
use futures_util::FutureExt as _;
use hybrid::{
    DeletionWorker, FileStorage, FileStorageOptions, HybridStorage, Purpose, Side, StateDirectory, StoredForm,
};
use orthanc_ffi::{Change, InitializeError, Orthanc, OrthancError, Plugin, Ranges};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use storage_layout::Layout;

use crate::area::deletion::Deletions;
use crate::area::encryption::Encryption;
use crate::area::{Area, KnownClear};
use crate::config::{CommonOptions, ConfigError, EncryptionOptions, HybridOptions, Section, StateOptions};
use crate::context::Context;
use crate::moving::mover::Mover;
use crate::moving::stored_form::Unchanged;
use crate::moving::{JOB_TYPE, resume};
use crate::offload::{Offload, PRECISION};
use crate::operations::metrics::Metrics;
use crate::operations::{Facts, Routes};
use crate::provider::{Provider, ProviderContext, c_str};
use crate::runtime::Runtime;
use crate::stop::Stop;

/// How long the worker of deletions rests after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(60);
/// For files that are only deleted.
const UNSYNCED: FileStorageOptions = FileStorageOptions { sync: false, note_use: None };
/// Time limit for the check of the bucket at start.
const CHECK: Duration = Duration::from_secs(10);

/// The crates below whose log lines go into Orthanc's log.
const LOG_TARGETS: &[&str] =
    &["storage_plugin", "hybrid", "bucket", "storage_layout", "crypto_envelope", "cloud_http"];

/// Modules whose log lines `EnableHttpLogs` turns on, from debug level up. Excludes the AWS SDK, whose
/// debug lines have not been checked for credentials.
const HTTP_LOGS: &[&str] = &["cloud_http", "object_store", "reqwest", "hyper_util"];

/// Orthanc's storage area in a bucket of the cloud `P`.
pub struct StoragePlugin<P> {
    /// Ends background work when the plugin is dropped.
    _background: Option<Background>,
    _provider: PhantomData<P>,
}

impl<P: Provider> Plugin for StoragePlugin<P> {
    const NAME: &'static CStr = P::NAME;
    const VERSION: &'static CStr = c_str(concat!(env!("CARGO_PKG_VERSION"), "\0"));

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing(LOG_TARGETS);
        orthanc_ffi::set_verbose_targets(&[]);
        orthanc.set_description(P::DESCRIPTION)?;
        let Value::Object(configuration) = orthanc.configuration()? else {
            return Err(InitializeError::new("Orthanc's configuration is not a JSON object"));
        };
        let Some(mut section) = section::<P>(&configuration)? else {
            tracing::warn!("the configuration has no section {:?}: the plugin is disabled", P::SECTION);
            return Ok(Self { _background: None, _provider: PhantomData });
        };

        let common = CommonOptions::read(&mut section, &configuration)?;
        let runtime = runtime(P::SECTION, orthanc)?;
        let provider = ProviderContext::read::<P>(&mut section, &configuration, runtime.handle())?;
        let mut bucket = P::connect(&mut section, &provider)?;
        bucket.verify_checksums = common.verify_checksums;
        section.warn_of_unknown();

        orthanc_ffi::set_verbose_targets(if provider.network().http_logs { HTTP_LOGS } else { &[] });
        let ranges = ranges(common.encryption.as_ref());
        let facts = facts::<P>(&bucket.url, &common);
        let offload = common.hybrid.as_ref().and_then(|options| options.offload.clone()).map(Offload::new);
        let deletion_delay = common.state.deletion_delay;
        let bucket = Bucket::new(bucket);
        let state = state_directory(&bucket, &common, orthanc)?;
        let removable = FileStorage::new(absolute(&common.state.storage_directory, orthanc), UNSYNCED);
        let (storage, encryption) = storage(bucket, common, state.as_ref(), orthanc)?;
        check::<P>(&runtime, storage.objects())?;

        let runtime = Arc::new(runtime);
        let metrics = Arc::<Metrics>::default();
        let context =
            Context { orthanc: orthanc.clone(), storage: storage.clone(), runtime: Arc::clone(&runtime) };
        let deletions = Deletions {
            storage: storage.clone(),
            runtime: Arc::clone(&runtime),
            state: state.clone(),
            delayed: !deletion_delay.is_zero(),
        };
        let mover = Mover::new(context, form(encryption.as_ref()));
        let worker =
            state.clone().map(|state| DeletionWorker::new(storage.clone(), removable, state, deletion_delay));
        let background = Background::start(&mover, state, worker, offload.clone())?;
        register_jobs(orthanc, &mover)?;
        let routes = Routes {
            mover,
            facts,
            metrics: Arc::clone(&metrics),
            deletions: deletions.clone(),
            offload: offload.clone(),
        };
        routes.register(orthanc)?;
        register_metrics(orthanc, &metrics, &deletions)?;
        let clear = KnownClear::default();
        let area = Area { storage, encryption, clear, deletions, runtime, metrics, offload };
        orthanc.register_storage_area(Arc::new(area), ranges)?;
        Ok(Self { _background: Some(background), _provider: PhantomData })
    }
}

/// The runtime, whose threads have a name in Orthanc's log.
fn runtime(name: &str, orthanc: &Orthanc) -> Result<Runtime, InitializeError> {
    let begin = orthanc.clone();
    let end = orthanc.clone();
    Runtime::new(name, Stop::new(), move || begin.name_thread(c"OBJECT-STORAGE"), move || end.forget_thread())
        .map_err(|error| InitializeError::new(format!("cannot start threads: {error}")))
}

/// The plugin's section, under its present or its older name.
fn section<P: Provider>(configuration: &Map<String, Value>) -> Result<Option<Section<'_>>, ConfigError> {
    if let Some(section) = Section::find(configuration, P::SECTION)? {
        return Ok(Some(section));
    }
    let Some(older) = P::OLDER_SECTION else { return Ok(None) };
    let section = Section::find(configuration, older)?;
    if section.is_some() {
        tracing::warn!("the section {older:?} is deprecated; rename it to {:?}", P::SECTION);
    }
    Ok(section)
}

/// Registers the job type, so that Orthanc can restore saved jobs. If hybrid storage has been switched off
/// since, they fail with an error that says so.
fn register_jobs(orthanc: &Orthanc, mover: &Mover) -> Result<(), OrthancError> {
    let mover = mover.context.storage.files().is_some().then(|| mover.clone());
    orthanc.register_job_unserializer(move |job_type, saved| {
        let job = (job_type == JOB_TYPE).then(|| resume(mover.clone(), saved))??;
        Some(Box::new(job))
    })
}

/// Registers the metrics in Orthanc's Prometheus route.
fn register_metrics(
    orthanc: &Orthanc,
    metrics: &Arc<Metrics>,
    deletions: &Deletions,
) -> Result<(), OrthancError> {
    let to = orthanc.clone();
    let metrics = Arc::clone(metrics);
    let deletions = deletions.clone();
    orthanc.register_metrics(move || metrics.publish(&to, &deletions))
}

/// Work that no callback of Orthanc waits for.
struct Background {
    runtime: Arc<Runtime>,
    state: Option<Arc<StateDirectory>>,
    offload: Arc<OffloadThread>,
}

/// The thread of [`Offload`], which calls Orthanc and must therefore end before Orthanc shuts down.
#[derive(Default)]
struct OffloadThread(Mutex<Option<(Arc<Offload>, JoinHandle<()>)>>);

impl Background {
    /// Starts the background work. Threads that call Orthanc wait until Orthanc has started, and have ended
    /// when Orthanc's signal to stop returns.
    fn start(
        mover: &Mover,
        state: Option<Arc<StateDirectory>>,
        worker: Option<DeletionWorker>,
        offload: Option<Arc<Offload>>,
    ) -> Result<Self, InitializeError> {
        let Context { orthanc, storage, runtime } = &mover.context;
        let thread = Arc::<OffloadThread>::default();
        let starting = offload.clone();
        let stop = runtime.stop().clone();
        let ending = Arc::clone(&thread);
        orthanc.register_on_change(move |change| match change {
            Change::OrthancStarted => starting.iter().for_each(|offload| offload.begin()),
            Change::OrthancStopped => {
                stop.now();
                ending.end();
            }
        })?;
        if let (Some(offload), Some(files)) = (offload, storage.files()) {
            let worker = offload.spawn(mover.clone(), files.clone());
            let failed = |error| InitializeError::new(format!("cannot start threads: {error}"));
            *thread.0.lock() = Some((offload, worker.map_err(failed)?));
        }
        if let Some(worker) = worker {
            let stop = runtime.stop().clone();
            runtime.handle().spawn(async move {
                tokio::select! {
                    () = delete_until_stopped(worker) => {}
                    () = stop.signal() => {}
                }
            });
        }
        Ok(Self { runtime: Arc::clone(runtime), state, offload: thread })
    }
}

/// Runs the worker, again after a panic, which the panic hook has logged.
async fn delete_until_stopped(worker: DeletionWorker) {
    loop {
        if AssertUnwindSafe(Box::pin(worker.clone().run())).catch_unwind().await.is_ok() {
            return;
        }
        tokio::time::sleep(AFTER_PANIC).await;
    }
}

impl OffloadThread {
    fn end(&self) {
        if let Some((offload, worker)) = self.0.lock().take() {
            offload.stop();
            // The panic hook has already logged a panic of the worker.
            let _ = worker.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.runtime.stop().now();
        self.offload.end();
        if let Some(state) = &self.state
            && let Err(error) = state.markers().sync()
        {
            tracing::warn!("{error}; a power failure could lose recent deletions");
        }
    }
}

impl<P: Provider> fmt::Debug for StoragePlugin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoragePlugin({})", P::SECTION)
    }
}

/// The storage, and the encryption of its attachments.
fn storage(
    mut bucket: Bucket,
    common: CommonOptions,
    state: Option<&Arc<StateDirectory>>,
    orthanc: &Orthanc,
) -> Result<(HybridStorage, Option<Arc<Encryption>>), InitializeError> {
    let url = bucket.url();
    match &common.encryption {
        None => tracing::warn!("client-side encryption is off: {url} will contain unencrypted patient data"),
        Some(options) => options.warn(),
    }
    if let Some(state) = state {
        bucket = bucket.with_journal(Arc::<StateDirectory>::clone(state));
    }
    let layout =
        Layout { root: common.root, structure: common.structure, encrypted: common.encryption.is_some() };
    let read_unencrypted = common.encryption.as_ref().is_some_and(|options| options.read_unencrypted);
    let objects = ObjectStorage::new(bucket, layout, common.legacy_unknown_files, read_unencrypted);
    let storage = match common.hybrid {
        None => HybridStorage::objects_only(objects),
        Some(options) => {
            let first = options.first;
            HybridStorage::new(objects, files(options, orthanc)?, first)
        }
    };
    Ok((storage, common.encryption.map(Encryption::new).map(Arc::new)))
}

/// The plugin's own folder; `None` if it cannot be used.
fn state_directory(
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
    match StateDirectory::open(&absolute(directory, orthanc), &purpose) {
        Ok(state) => Ok(Some(Arc::new(state))),
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

/// Resolves a relative path against the folder of Orthanc's configuration, as Orthanc does.
fn absolute(path: &Path, orthanc: &Orthanc) -> PathBuf {
    match orthanc.configuration_folder() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path.to_owned(),
    }
}

/// The files in `StorageDirectory`.
fn files(options: HybridOptions, orthanc: &Orthanc) -> Result<FileStorage, InitializeError> {
    let HybridOptions { first, directory, sync, offload } = options;
    let files = FileStorage::new(
        absolute(&directory, orthanc),
        FileStorageOptions { sync, note_use: offload.map(|_| PRECISION) },
    );
    files.clear_up();
    if first == Side::FileSystem {
        files
            .check_writable()
            .map_err(|error| InitializeError::new(format!("`StorageDirectory` cannot be used: {error}")))?;
    }
    let root = files.root().display();
    match first {
        Side::FileSystem => tracing::warn!("new attachments are written to {root}, not to the bucket"),
        Side::ObjectStorage => {
            tracing::warn!("attachments that are not in the bucket are read from {root}");
        }
    }
    Ok(files)
}

/// The form in which attachments are stored.
fn form(encryption: Option<&Arc<Encryption>>) -> Arc<dyn StoredForm> {
    match encryption {
        Some(encryption) => Arc::<Encryption>::clone(encryption),
        None => Arc::new(Unchanged),
    }
}

/// The fields of `GET /object-storage/status` that follow from the configuration.
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
            "ReadFormats": options.read_formats.iter().map(Format::to_string).collect::<Vec<_>>(),
            "ReadUnencrypted": options.read_unencrypted,
        })
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Facts { version, provider: P::SECTION, bucket: bucket.to_owned(), mode, encryption }
}

/// Whether Orthanc may read ranges. With A1 it may not, and stores DICOM headers as separate attachments
/// instead.
fn ranges(encryption: Option<&EncryptionOptions>) -> Ranges {
    match encryption {
        Some(options) if options.format == Format::A1 => Ranges::NotServed,
        _ => Ranges::Served,
    }
}

/// Checks with one request that the bucket can be used. A transient failure is only a warning, since Orthanc
/// may start before the server does, and so is a missing permission, which storing may not need.
fn check<P: Provider>(runtime: &Runtime, storage: &ObjectStorage) -> Result<(), InitializeError> {
    let policy = RetryPolicy { max_retries: 0, deadline: CHECK, ..RetryPolicy::default() };
    let checked = storage.clone();
    match runtime.run(async move { checked.check(policy).await }) {
        Ok(BucketCheck::Found) => Ok(()),
        Ok(BucketCheck::Created) => {
            tracing::warn!("{} did not exist and was created: check that it is private", storage.url());
            Ok(())
        }
        Err(error) if error.cause == Cause::Foreign => {
            Err(InitializeError::new(format!("{error}; this does not look like {}", P::SERVER)))
        }
        Err(error) if error.operation == Operation::Check && error.lacks_permission() => {
            tracing::warn!("{error}; continuing; reading requires {}", P::READ_PERMISSIONS);
            Ok(())
        }
        Err(error) if error.transient => {
            tracing::warn!("{error}; continuing, since the server may become available later");
            Ok(())
        }
        Err(error) => Err(InitializeError::new(error.to_string())),
    }
}
