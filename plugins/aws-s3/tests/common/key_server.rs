//! AWS KMS for the conformance suite.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use conformance::KeyServer;
use serde_json::{Value, json};

#[path = "kms.rs"]
pub mod kms;
use kms::{ACCESS_KEY, ARN, FakeKms, SECRET_KEY, refusal};

pub(super) struct Kms {
    kms: FakeKms,
    wrapped: AtomicUsize,
    unwrapped: AtomicUsize,
}

impl Kms {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { kms: FakeKms::start()?, wrapped: AtomicUsize::new(0), unwrapped: AtomicUsize::new(0) })
    }
}

impl KeyServer for Kms {
    fn name(&self) -> &'static str {
        "AWS KMS"
    }

    fn endpoint(&self) -> String {
        self.kms.server.url("")
    }

    fn master_key(&self, endpoint: &str) -> Value {
        let credentials = json!({"AccessKey": ACCESS_KEY, "SecretKey": SECRET_KEY});
        let key = json!({"KeyId": ARN, "Endpoint": endpoint});
        json!({"AwsKms": conformance::with(key, &credentials)})
    }

    fn take_counts(&self) -> (usize, usize) {
        let since = |action, before: &AtomicUsize| {
            let now = self.kms.requests(action);
            now - before.swap(now, Ordering::Relaxed)
        };
        (since("Encrypt", &self.wrapped), since("Decrypt", &self.unwrapped))
    }

    fn refuse(&self, status: Option<u16>) {
        let code = |status| if status == 429 { "ThrottlingException" } else { "AccessDeniedException" };
        self.kms.always(status.map(|status| refusal(status, code(status))));
    }

    fn file_keys(&self) -> Vec<Vec<u8>> {
        self.kms.file_keys().iter().flat_map(|key| BASE64.decode(key)).collect()
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET_KEY.to_owned(), "Signature=".to_owned()]
    }
}
