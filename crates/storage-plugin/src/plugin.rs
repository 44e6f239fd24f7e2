//! The life cycle of a plugin, from reading its configuration to shutting down.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

use bucket::Bucket;
use crypto_envelope::Format;
use hybrid::{DeletionWorker, FileStorage, FileStorageOptions, StateDirectory, StoredForm, UploadWorker};
use orthanc_ffi::{InitializeError, Orthanc, OrthancError, Plugin, Ranges};
use serde_json::Value;

use crate::area::deletion::Deletions;
use crate::area::encryption::Encryption;
use crate::area::{Area, Copies, DirectStores, KnownClear};
use crate::audit::{Auditor, BucketAudit};
use crate::catalog::Catalog;
use crate::config::EncryptionOptions;
use crate::context::Context;
use crate::endpoint::is_exposed;
use crate::jobs::{Alarm, Courtesy, Form, Host, Reports, Scope, resume};
use crate::moving::stored_form::Unchanged;
use crate::moving::{Mover, Task, resume_move};
use crate::operations::figures::Figures;
use crate::operations::history::History;
use crate::operations::key_calls::KeyServiceCalls;
use crate::operations::metrics::Metrics;
use crate::operations::verifications::Verifications;
use crate::operations::{Routes, app};
use crate::orphans::{Finder, Server, resume_find};
use crate::provider::{Provider, ProviderContext, c_str};
use crate::reencrypting::{self, Reencryption};
use crate::restoring::{self, Restorer};
use crate::runtime::Runtime;
use crate::start::background::Background;
use crate::start::check::check;
use crate::start::others;
use crate::start::section::{check_names, common, is_enabled, section, warn_of_missing};
use crate::start::storage::{absolute, state_directory, storage};
use crate::start::summary::{Facts, disabled, facts};
use crate::stop::Stop;
use crate::stow::Gateway;
use crate::verifying::{self, Schedule, Scheduler, Verifier};

/// For files that are only deleted.
const UNSYNCED: FileStorageOptions = FileStorageOptions { sync: false };

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
        let Value::Object(configuration) = orthanc.configuration()? else {
            return Err(InitializeError::new("Orthanc's configuration is not a JSON object"));
        };
        let Some(mut section) = section::<P>(&configuration)? else {
            warn_of_missing::<P>(&configuration)?;
            let reason = format!("the configuration has no section {:?}", P::SECTION);
            orthanc.set_description(&disabled::<P>(&reason))?;
            return Ok(Self { _background: None, _provider: PhantomData });
        };
        if !is_enabled::<P>(&mut section)? {
            orthanc.set_description(&disabled::<P>("EnableStorage is false"))?;
            return Ok(Self { _background: None, _provider: PhantomData });
        }

        let runtime = runtime(P::SECTION, orthanc)?;
        let provider = ProviderContext::read::<P>(&mut section, &configuration, runtime.handle())?;
        let key_calls = Arc::<KeyServiceCalls>::default();
        let common = common::<P>(&mut section, &configuration, &provider, &key_calls)?;
        let mut connection = P::connect(&mut section, &provider)?;
        connection.bucket.verify_checksums = common.verify_checksums;
        check_names(&section, &configuration)?;
        others::warn::<P>(&configuration);

        orthanc_ffi::set_verbose_targets(if provider.network().http_logs { HTTP_LOGS } else { &[] });
        let ranges = ranges(common.encryption.as_ref());
        let facts = facts::<P>(&connection, &common, |path| absolute(path, orthanc));
        facts.log();
        orthanc.set_description(&facts.description::<P>())?;
        let deletion_delay = common.state.deletion_delay;
        let schedule = common.verification;
        let check_write = common.check_write;
        let has_page = common.has_page;
        let bucket_audit = connection.audit.take();
        let bucket = Bucket::new(connection.bucket);
        let state = state_directory(&bucket, &common, orthanc)?;
        let stow = common.stow.clone();
        let bucket = with_journal(bucket, state.as_ref());
        let stow_bucket = bucket.clone();
        let removable = FileStorage::new(absolute(&common.state.storage_directory, orthanc), UNSYNCED);
        let (storage, encryption) = storage(bucket, common, state.as_ref(), orthanc, runtime.stop())?;
        let has_key_service =
            encryption.as_ref().is_some_and(|encryption| encryption.ring().file_keys().is_some());
        let key_calls = has_key_service.then_some(key_calls);
        check::<P>(&runtime, storage.objects(), check_write, encryption.as_ref())?;

        let patient = provider.network().retry.patient();
        let runtime = Arc::new(runtime);
        let metrics = Arc::<Metrics>::default();
        let context = Context {
            orthanc: orthanc.clone(),
            storage: storage.clone().with_retry(patient),
            runtime: Arc::clone(&runtime),
        };
        let deletions = Deletions {
            storage: storage.clone(),
            runtime: Arc::clone(&runtime),
            state: state.clone(),
            delayed: !deletion_delay.is_zero(),
        };
        let courtesy = Courtesy::default();
        let host = Host {
            catalog: context.catalog(),
            stop: runtime.stop().clone(),
            courtesy: courtesy.clone(),
            place: storage.objects().identity().into(),
            reports: state.as_deref().map(Reports::new).map(Arc::new),
            alarm: Some(Alarm::new(orthanc.clone(), runtime.handle().clone(), runtime.stop().clone())),
        };
        let verifier = Verifier::new(context.clone(), encryption.clone());
        let database = Arc::new(Server::new(orthanc.clone(), runtime.stop().clone()));
        let finder = Finder {
            host: host.clone(),
            storage: context.storage.clone(),
            runtime: Arc::clone(&runtime),
            state: state.clone(),
            database: Arc::<Server>::clone(&database),
        };
        let mover = Mover::new(context, host, form(encryption.as_ref()));
        let worker =
            state.clone().map(|state| DeletionWorker::new(storage.clone(), removable, state, deletion_delay));
        let uploads = storage
            .local()
            .map(|local| UploadWorker::new(storage.clone(), Arc::clone(local), form(encryption.as_ref())));
        let scheduler = scheduler(schedule, &verifier, &mover.host, &database);
        let auditor = auditor::<P>(&mover.context, bucket_audit, &facts, state.as_deref());
        let background = Background::start(&mover.context, state.clone(), worker, uploads, scheduler)?;
        if check_write {
            // Not the catalog of jobs: tasks must not hold the runtime that they run on.
            let catalog = Catalog::new(Server::clone(&database));
            background.keep_marker(database, catalog, storage.objects().clone());
        }
        let gateway = stow
            .map(|options| Gateway::new(options, &stow_bucket, encryption.as_ref(), &mover.context.runtime));
        let reports = mover.host.reports.clone();
        let figures = Figures {
            metrics: Arc::clone(&metrics),
            storage: storage.clone(),
            state,
            deletion_delay,
            stow: gateway.as_ref().map(Gateway::counts),
            key_calls,
            verifications: Arc::new(Verifications::new(reports, Arc::clone(&mover.host.place), schedule)),
        };
        let history = Arc::new(History::new(SystemTime::now()));
        background.sample(figures.clone(), Arc::clone(&history));
        if let Some(gateway) = gateway {
            gateway.register(orthanc)?;
        }
        let reencryption = reencryption(&mover, encryption.as_ref());
        let restorer = Restorer {
            storage: mover.context.storage.clone(),
            runtime: Arc::clone(&runtime),
            host: mover.host.clone(),
        };
        register_jobs(orthanc, &mover, &verifier, &finder, &reencryption, &restorer)?;
        let routes = Routes {
            mover,
            reencryption,
            verifier,
            finder,
            restorer,
            facts,
            figures: figures.clone(),
            history,
            auditor,
        };
        routes.register(orthanc)?;
        if has_page {
            app::register(orthanc)?;
        }
        register_metrics(orthanc, figures)?;
        let clear = KnownClear::default();
        let direct_stores = DirectStores::default();
        let copies = Copies::default();
        let area =
            Area { storage, encryption, clear, copies, deletions, runtime, metrics, direct_stores, courtesy };
        orthanc
            .register_storage_area(Arc::new(area), ranges)
            .map_err(|error| others::explain::<P>(error, &configuration))?;
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

/// The bucket whose uploads in parts are noted in the state directory.
fn with_journal(bucket: Bucket, state: Option<&Arc<StateDirectory>>) -> Bucket {
    match state {
        Some(state) => bucket.with_journal(Arc::<StateDirectory>::clone(state)),
        None => bucket,
    }
}

/// What starts verifications without a request.
fn scheduler(
    schedule: Option<Schedule>,
    verifier: &Verifier,
    host: &Host,
    database: &Arc<Server>,
) -> Option<Scheduler> {
    let schedule = schedule?;
    if host.reports.is_none() {
        tracing::warn!(
            "`Verification` requires a StateDirectory that can be written to: the archive is not verified by itself"
        );
        return None;
    }
    Some(Scheduler::new(verifier.clone(), host.clone(), Arc::<Server>::clone(database), schedule))
}

/// Registers the job types, so that Orthanc can restore saved jobs. If the mode has been changed since, they fail
/// with an error that says so.
fn register_jobs(
    orthanc: &Orthanc,
    mover: &Mover,
    verifier: &Verifier,
    finder: &Finder,
    reencryption: &Reencryption,
    restorer: &Restorer,
) -> Result<(), OrthancError> {
    let (mover, verifier, finder) = (mover.clone(), verifier.clone(), finder.clone());
    let (reencryption, restorer) = (reencryption.clone(), restorer.clone());
    orthanc.register_job_unserializer(move |job_type, saved| {
        let host = mover.host.clone();
        let job = match Task::of(job_type) {
            Some(task) => resume_move(host, saved, |target| mover.work(task, target))?,
            None if job_type == reencrypting::JOB_TYPE => reencryption.resume(saved),
            None if job_type == verifying::JOB_TYPE => {
                resume(host, verifier.saved_work(saved)?, Scope::read(&saved["Content"]), saved)
            }
            None if job_type == restoring::JOB_TYPE => {
                resume(host, restorer.saved_work(saved)?, Scope::read(&saved["Content"]), saved)
            }
            None => resume_find(&finder, job_type, saved)?,
        };
        Some(Box::new(job))
    })
}

fn auditor<P: Provider>(
    context: &Context,
    bucket: Option<Arc<dyn BucketAudit>>,
    facts: &Facts,
    state: Option<&StateDirectory>,
) -> Arc<Auditor> {
    let is_exposed = facts.endpoint.parse().is_ok_and(|endpoint| is_exposed(&endpoint));
    let reads_key_vault = context.storage.objects().reads_key_vault_blobs();
    Arc::new(Auditor {
        context: context.clone(),
        section: P::SECTION,
        bucket,
        encryption: facts.encryption.as_ref().and_then(|facts| facts.audited(reads_key_vault)),
        endpoint: (facts.endpoint.clone(), is_exposed),
        root: if facts.root.is_empty() { String::new() } else { format!("{}/", facts.root) },
        state: state.map(StateDirectory::folder),
        answers: Arc::default(),
    })
}

/// Registers the metrics in Orthanc's Prometheus route.
fn register_metrics(orthanc: &Orthanc, figures: Figures) -> Result<(), OrthancError> {
    let to = orthanc.clone();
    orthanc.register_metrics(move || figures.publish(&to))
}

impl<P: Provider> fmt::Debug for StoragePlugin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoragePlugin({})", P::SECTION)
    }
}

/// The form in which attachments are stored.
fn form(encryption: Option<&Arc<Encryption>>) -> Arc<dyn StoredForm> {
    match encryption {
        Some(encryption) => Arc::<Encryption>::clone(encryption),
        None => Arc::new(Unchanged),
    }
}

/// The job that brings all attachments into this form.
fn reencryption(mover: &Mover, encryption: Option<&Arc<Encryption>>) -> Reencryption {
    let present =
        encryption.map_or_else(|| Form::new(Form::CLEAR, String::new()), |encryption| encryption.present());
    let Context { storage, runtime, .. } = mover.context.clone();
    Reencryption::new(storage, runtime, mover.host.clone(), form(encryption), present)
}

/// Whether Orthanc may read ranges. With A1 it may not, and stores DICOM headers as separate attachments
/// instead.
fn ranges(encryption: Option<&EncryptionOptions>) -> Ranges {
    match encryption {
        Some(options) if options.format == Format::A1 => Ranges::NotServed,
        _ => Ranges::Served,
    }
}
