//! Azure Blob Storage: Azurite behind our front.

mod azurite;
mod bucket;
mod correct;
mod error;
mod forward;
mod options;
mod over_tls;
mod sign;
mod target;
mod xml;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use s3s::StdError;
use tokio::runtime::Handle;

use crate::azure::azurite::Azurite;
use crate::azure::bucket::Inspector;
use crate::azure::correct::corrected;
use crate::azure::forward::forward;
use crate::azure::sign::Signer;
use crate::body::Upload;
use crate::dialect::{AnswerBody, Dialect, Refusal};
use crate::operation::Target;
use crate::stored::{StoredObject, UnfinishedUpload};

pub use options::{AzureOptions, Sas};
pub use over_tls::AzuriteOverTls;

/// Azurite, which checks signatures and keeps the blobs.
#[derive(Debug)]
pub(crate) struct AzureDialect {
    azurite: Azurite,
    inspector: Arc<Inspector>,
    runtime: Handle,
    next_request: AtomicU64,
}

impl AzureDialect {
    /// Starts Azurite and creates the containers.
    pub(crate) fn start(options: &AzureOptions, runtime: &Handle) -> io::Result<Self> {
        let azurite = Azurite::start(&options.account, &options.key)?;
        let signer = Signer::new(&options.account, &options.key);
        let inspector = Inspector::new(azurite.port(), options.account.clone(), signer);
        let dialect = Self {
            azurite,
            inspector: Arc::new(inspector),
            runtime: runtime.clone(),
            next_request: AtomicU64::new(1),
        };
        let containers = options.containers.clone();
        dialect.wait(async move |inspector| {
            for container in &containers {
                inspector.create_container(container).await?;
            }
            Ok(())
        })?;
        Ok(dialect)
    }

    /// Has the server's threads do something and waits for it, whichever runtime the caller may be in.
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

    /// As [`AzureDialect::wait`]. A test that cannot look into its buckets must not go on.
    #[expect(clippy::panic, reason = "for tests, whose questions are answered or which fail")]
    fn must<T, F>(&self, act: impl FnOnce(Arc<Inspector>) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StdError>> + Send,
    {
        self.wait(act).unwrap_or_else(|error| panic!("Azurite: {error}"))
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
        let request = Request::from_parts(head.clone(), upload);
        match forward(self.azurite.port(), request).await {
            Ok(mut answer) => {
                // Of the connection behind, not of ours.
                for name in [CONNECTION.as_str(), TRANSFER_ENCODING.as_str(), "keep-alive"] {
                    answer.headers_mut().remove(name);
                }
                corrected(answer, &head).await
            }
            Err(error) => {
                let refusal =
                    Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, code: "InternalError".to_owned() };
                let host = Ipv4Addr::LOCALHOST;
                error::answer(&head, &refusal, self.number(), &format!("Azurite on {host}: {error}"))
            }
        }
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        error::answer(head, refusal, self.number(), "Injected by the test server")
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        // Without the container there is nothing to replace; the client learns that anyway.
        let _ = self.inspector.put(&target.bucket, &target.key, content).await;
    }

    fn keys(&self, bucket: &str) -> Vec<String> {
        let bucket = bucket.to_owned();
        self.must(async move |inspector| inspector.keys(&bucket).await)
    }

    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.must(async move |inspector| inspector.object(&bucket, &key).await)
    }

    fn insert(&self, bucket: &str, key: &str, content: Bytes) {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.must(async move |inspector| {
            inspector.create_container(&bucket).await?;
            inspector.put(&bucket, &key, content).await
        });
    }

    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.must(async move |inspector| inspector.remove(&bucket, &key).await)
    }

    fn unfinished_uploads(&self, bucket: &str) -> Vec<UnfinishedUpload> {
        let bucket = bucket.to_owned();
        self.must(async move |inspector| inspector.unfinished_uploads(&bucket).await)
    }

    fn clear(&self) {
        self.must(async move |inspector| inspector.clear().await);
    }
}
