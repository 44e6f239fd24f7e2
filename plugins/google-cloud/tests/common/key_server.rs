//! Google Cloud KMS for the conformance suite.

use anyhow::Result;
use conformance::KeyServer;
use fake_cloud::{BucketServer, Fault, FaultRule, GoogleOptions, Operation};
use serde_json::{Value, json};

const KEY: &str = "projects/test-project/locations/europe-west3/keyRings/orthanc/cryptoKeys/master";

/// A server of its own.
pub(super) struct Kms {
    options: GoogleOptions,
    server: BucketServer,
}

impl Kms {
    pub(super) fn start() -> Result<Self> {
        let options = super::options()?;
        options.keys.rotate(KEY);
        let server = BucketServer::start_google(options.clone())?;
        Ok(Self { options, server })
    }
}

impl KeyServer for Kms {
    fn name(&self) -> &'static str {
        "Google Cloud KMS"
    }

    fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    fn master_key(&self, endpoint: &str) -> Value {
        json!({"GoogleKms": {"Key": KEY, "Endpoint": endpoint}})
    }

    fn take_counts(&self) -> (usize, usize) {
        let counts = self.server.requests();
        self.server.reset_counts();
        let of = |operation| usize::try_from(counts.of(operation)).unwrap_or(usize::MAX);
        (of(Operation::WrapKey), of(Operation::UnwrapKey))
    }

    fn refuse(&self, status: Option<u16>) {
        self.server.faults().clear();
        for operation in [Operation::WrapKey, Operation::UnwrapKey] {
            let rule = |status| FaultRule::new(Fault::status(status, "AccessDenied")).on(operation);
            if let Some(status) = status {
                self.server.faults().push(rule(status).times(usize::MAX));
            }
        }
    }

    fn rotate(&self) -> Result<()> {
        self.options.keys.rotate(KEY);
        Ok(())
    }

    fn disable_first(&self) {
        self.options.keys.enable(KEY, 1, false);
    }

    fn file_keys(&self) -> Vec<Vec<u8>> {
        self.options.keys.plaintexts()
    }

    fn secrets(&self) -> Vec<String> {
        vec!["Bearer ".to_owned(), "ya29.".to_owned()]
    }
}
