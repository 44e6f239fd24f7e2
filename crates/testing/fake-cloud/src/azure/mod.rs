//! Azure Blob Storage: Azurite behind this crate's front.

mod azurite;
mod bucket;
mod correct;
mod error;
mod forward;
mod options;
mod over_tls;
mod rehydration;
mod sas;
mod shared;
mod target;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use s3s::StdError;
use tokio::runtime::Handle;

use crate::azure::azurite::Azurite;
use crate::azure::bucket::Inspector;
use crate::azure::correct::corrected;
use crate::azure::forward::forward;
use crate::azure::rehydration::Rehydrations;
use crate::body::{Upload, drain};
use crate::checksum::{CONTENT_CRC64, azure_crc64_header};
use crate::dialect::{AnswerBody, Dialect, Refusal};
use crate::operation::{Operation, Target};
use crate::stored::{Buckets, StoredObject};

pub use options::{AzureOptions, Sas};
pub use over_tls::AzuriteOverTls;
pub use shared::SharedAzurite;

/// Azurite, which checks signatures and stores the blobs.
#[derive(Debug)]
pub(crate) struct AzureDialect {
    azurite: Azurite,
    inspector: Arc<Inspector>,
    rehydrations: Rehydrations,
    runtime: Handle,
    next_request: AtomicU64,
}

impl AzureDialect {
    /// Starts Azurite and creates the container.
    pub(crate) fn start(options: &AzureOptions, runtime: &Handle) -> io::Result<Self> {
        let azurite = Azurite::start(&options.account, &options.key)?;
        let dialect = Self {
            inspector: Arc::new(Inspector::new(azurite.port(), options)),
            azurite,
            rehydrations: Rehydrations::default(),
            runtime: runtime.clone(),
            next_request: AtomicU64::new(1),
        };
        dialect.wait(async |inspector| inspector.create_container("bucket").await)?;
        Ok(dialect)
    }

    /// Runs `act` on the server's threads and waits for it, inside any other runtime.
    fn wait<T, F>(&self, act: impl FnOnce(Arc<Inspector>) -> F + Send + 'static) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StdError>> + Send,
    {
        let (done, outcome) = mpsc::channel();
        let inspector = Arc::clone(&self.inspector);
        self.runtime.spawn(async move { done.send(act(inspector).await) });
        outcome.recv().map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Like [`AzureDialect::wait`], but panics on an error, because a test without access to its buckets must
    /// fail.
    #[expect(clippy::panic, reason = "called by tests only, which must fail")]
    fn must<T, F>(&self, act: impl FnOnce(Arc<Inspector>) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StdError>> + Send,
    {
        self.wait(act).unwrap_or_else(|error| panic!("Azurite: {error}"))
    }

    /// Forwards a request whose answer in Azure has the CRC-64 of its body, which Azurite does not send.
    async fn store(&self, head: &Parts, upload: Upload) -> Result<Response<AnswerBody>, StdError> {
        let body = upload.collect().await?.to_bytes();
        let crc = HeaderValue::from_str(&azure_crc64_header(&body))?;
        let request = Request::from_parts(head.clone(), Full::new(body).map_err(StdError::from));
        let mut answer = forward(self.azurite.port(), request).await?;
        if answer.status().is_success() {
            answer.headers_mut().insert(CONTENT_CRC64, crc);
        }
        Ok(answer)
    }

    /// Forwards Set Blob Tier. Azurite moves archived blobs at once, which takes hours in Azure: they are archived again
    /// until a test ends the rehydration.
    async fn set_tier(&self, head: &Parts, upload: Upload) -> Result<Response<AnswerBody>, StdError> {
        let target = self.target(head);
        if let Some(refusal) = self.rehydrations.refusal(head, &target) {
            drain(upload).await;
            return Ok(self.refuse(head, &refusal));
        }
        let answer = forward(self.azurite.port(), Request::from_parts(head.clone(), upload)).await?;
        if answer.status() == StatusCode::ACCEPTED {
            self.inspector.archive(&target.bucket, &target.key).await?;
            self.rehydrations.begin(head, &target);
        }
        Ok(answer)
    }

    fn number(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Dialect for AzureDialect {
    fn target(&self, head: &Parts) -> Target {
        target::target(head)
    }

    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody> {
        let (head, upload) = request.into_parts();
        let answer = match self.target(&head).operation {
            Operation::PutObject | Operation::UploadPart | Operation::CompleteMultipartUpload => {
                self.store(&head, upload).await
            }
            Operation::RestoreObject => self.set_tier(&head, upload).await,
            _ => forward(self.azurite.port(), Request::from_parts(head.clone(), upload)).await,
        };
        match answer {
            Ok(mut answer) => {
                // These headers belong to the connection with Azurite.
                for name in [CONNECTION.as_str(), TRANSFER_ENCODING.as_str(), "keep-alive"] {
                    answer.headers_mut().remove(name);
                }
                let answer = corrected(answer, &head, self.number()).await;
                self.rehydrations.correct(answer, &head, &self.target(&head), self.number())
            }
            Err(error) => {
                let message = format!("Azurite: {error}");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                self.refuse(&head, &Refusal::new(status, "InternalError", &message))
            }
        }
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        error::answer(head, refusal, self.number())
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        // Fails only without the container, which the client sees in its own answer.
        let _ = self.inspector.put(&target.bucket, &target.key, content).await;
    }

    fn buckets(&self) -> &dyn Buckets {
        self
    }
}

impl Buckets for AzureDialect {
    fn keys(&self, bucket: &str) -> Vec<String> {
        let bucket = bucket.to_owned();
        self.must(async move |inspector| inspector.keys(&bucket).await)
    }

    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.must(async move |inspector| inspector.object(&bucket, &key).await)
    }

    fn insert(&self, bucket: &str, key: &str, content: Bytes) {
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.must(async move |inspector| {
            inspector.create_container(&bucket).await?;
            inspector.put(&bucket, &key, content).await
        });
    }

    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.must(async move |inspector| inspector.remove(&bucket, &key).await)
    }

    fn protect(&self, bucket: &str, key: &str) {
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.must(async move |inspector| inspector.lease(&bucket, &key).await);
    }

    fn archive(&self, bucket: &str, key: &str) {
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.rehydrations.end(&bucket, &key);
        self.must(async move |inspector| inspector.archive(&bucket, &key).await);
    }

    fn restoring(&self, bucket: &str) -> Vec<String> {
        self.rehydrations.keys(bucket)
    }

    fn end_restore(&self, bucket: &str, key: &str) {
        let Some(tier) = self.rehydrations.end(bucket, key) else { return };
        let bucket = bucket.to_owned();
        let key = key.to_owned();
        self.must(async move |inspector| inspector.set_tier(&bucket, &key, &tier).await);
    }

    fn unfinished_uploads(&self, bucket: &str) -> Vec<String> {
        let bucket = bucket.to_owned();
        self.must(async move |inspector| inspector.unfinished_uploads(&bucket).await)
    }

    fn clear(&self) {
        self.must(async move |inspector| inspector.clear().await);
    }
}
