//! Master keys in Google Cloud KMS: the client at a local service, and the whole plugin.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/cloud.rs"]
mod cloud;
mod failing;
mod load;
mod memory;
mod plugin;
mod refusals;
mod wrapping;

use std::sync::Arc;

use OrthancGoogleCloudStorage::Google as Plugin;
use cloud::Google;
use conformance::{configuration, section, with};
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Wrapped};
use fake_cloud::{BucketServer, Fault, FaultRule, GoogleOptions, Operation, PushedRule};
use serde_json::{Value, json};
use storage_plugin::{Provider as _, ProviderContext, Section};
use tokio::runtime::{Builder, Runtime};

/// The key of the local service.
pub(crate) const KEY: &str =
    "projects/test-project/locations/europe-west3/keyRings/orthanc/cryptoKeys/master";

/// Starts the plugin in a child process: see [`conformance::Machine`].
#[test]
fn child() -> anyhow::Result<()> {
    conformance::child::<Google>()
}

/// A local service with one key, and a client of it.
pub(crate) struct Kms {
    pub(crate) options: GoogleOptions,
    pub(crate) server: BucketServer,
    pub(crate) service: Arc<dyn KeyService>,
    runtime: Runtime,
}

impl Kms {
    /// The client has a patience of two seconds.
    pub(crate) fn start() -> Self {
        Self::with(&json!({"OutageTimeout": 2}))
    }

    /// `own` are changes of the plugin's section.
    pub(crate) fn with(own: &Value) -> Self {
        let options = cloud::options().unwrap();
        options.keys.rotate(KEY);
        let server = BucketServer::start_google(options.clone()).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = json!({"Key": KEY, "Endpoint": server.endpoint()});
        let service = open(&runtime, &with(section::<Google>(&server, &json!({})), own), &service).unwrap();
        Self { options, server, service, runtime }
    }

    /// Returns another client of the service.
    pub(crate) fn open(&self, own: &Value, service: &Value) -> Arc<dyn KeyService> {
        let own = with(section::<Google>(&self.server, &json!({"OutageTimeout": 2})), own);
        let service = with(json!({"Key": KEY, "Endpoint": self.server.endpoint()}), service);
        open(&self.runtime, &own, &service).unwrap()
    }

    /// Wraps a new key.
    pub(crate) fn wrap(&self) -> Result<(FileKey, Wrapped), KeyServiceError> {
        self.wrap_with(&self.service)
    }

    pub(crate) fn wrap_with(
        &self,
        service: &Arc<dyn KeyService>,
    ) -> Result<(FileKey, Wrapped), KeyServiceError> {
        let file_key = FileKey::random()?;
        let wrapped = self.runtime.block_on(service.wrap(&file_key))?;
        Ok((file_key, wrapped))
    }

    pub(crate) fn unwrap(&self, wrapped: &Wrapped) -> Result<FileKey, KeyServiceError> {
        self.unwrap_with(&self.service, wrapped)
    }

    pub(crate) fn unwrap_with(
        &self,
        service: &Arc<dyn KeyService>,
        Wrapped { key, wrapped }: &Wrapped,
    ) -> Result<FileKey, KeyServiceError> {
        self.runtime.block_on(service.unwrap(key, wrapped))
    }

    /// Returns the numbers of requests to wrap and to unwrap since the last call, which must be all.
    pub(crate) fn requests(&self) -> (u64, u64) {
        let counts = self.server.requests();
        self.server.reset_counts();
        let found = (counts.of(Operation::WrapKey), counts.of(Operation::UnwrapKey));
        assert_eq!(counts.total, found.0 + found.1);
        found
    }

    /// Makes the next requests fail.
    pub(crate) fn fault(&self, fault: Fault, times: usize) -> PushedRule {
        self.server.faults().push(FaultRule::new(fault).times(times))
    }
}

/// Returns the client with these options and this section of the plugin.
pub(crate) fn open(
    runtime: &Runtime,
    own: &Value,
    service: &Value,
) -> Result<Arc<dyn KeyService>, orthanc_ffi::InitializeError> {
    let configuration = configuration::<Google>(own.clone());
    let configuration = configuration.as_object().unwrap();
    let mut own = Section::find(configuration, Plugin::SECTION).unwrap().unwrap();
    let context = ProviderContext::read::<Plugin>(&mut own, configuration, runtime.handle()).unwrap();
    let services = json!({ "GoogleKms": service });
    let mut service = Section::find(services.as_object().unwrap(), "GoogleKms").unwrap().unwrap();
    Plugin::key_service(&mut service, &mut own, &context)
}

/// Checks that the service refuses, with a message that contains all `fragments`.
pub(crate) fn expect_refused<T>(outcome: Result<T, KeyServiceError>, fragments: &[&str]) {
    let Err(KeyServiceError::Refused(message)) = &outcome else { panic!("{:?}", outcome.err()) };
    expect_fragments(message, fragments);
}

/// Checks that the service is not available, with a message that contains all `fragments`.
pub(crate) fn expect_unavailable<T>(outcome: Result<T, KeyServiceError>, fragments: &[&str]) {
    let Err(KeyServiceError::Unavailable(message)) = &outcome else { panic!("{:?}", outcome.err()) };
    expect_fragments(message, fragments);
}

fn expect_fragments(message: &str, fragments: &[&str]) {
    let key = format!("Google Cloud KMS ({KEY}): ");
    for fragment in fragments.iter().chain([&key.as_str()]) {
        assert!(message.contains(fragment), "{fragment:?} is not in {message:?}");
    }
}
