//! Google Cloud KMS, which wraps the file keys of A2 with a key that it never gives out.
//!
//! <https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/encrypt>

mod error;
mod message;
mod name;

use std::fmt;
use std::sync::Arc;

use bucket::{Operation, RetryPolicy};
use bytes::Bytes;
use cloud_http::{CloudHttp, TransportError, key_service_answer};
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Service, Wrapped};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::gcp::GcpCredentialProvider;
use orthanc_ffi::InitializeError;
use storage_plugin::{ProviderContext, Section, warn_if_exposed};
use zeroize::Zeroizing;

use crate::credentials::{Credentials, ServiceAccountFile};
use crate::endpoint;
pub(crate) use crate::key_service::error::explain;
use crate::key_service::message::{ADDITIONAL_DATA, Answer, CIPHERTEXT, PLAINTEXT, Unusable, request};

/// Ties the ciphertexts to this use of the key.
const CONTEXT: (&str, &[u8]) = (ADDITIONAL_DATA, b"orthanc-object-storage A2");
/// The service refuses requests of gcloud's users without it.
const QUOTA_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// The length of a file key in bytes.
const FILE_KEY: usize = 32;

/// A client of one key in Google Cloud KMS.
struct GoogleKms {
    /// The name of the key, without version.
    key: String,
    /// The address without a slash at the end.
    endpoint: String,
    credentials: GcpCredentialProvider,
    quota_project: Option<HeaderValue>,
    http: CloudHttp,
    retry: RetryPolicy,
}

/// Reads the options of a key. Without `ServiceAccountFile`, the credentials are those of the plugin's `own` section.
///
/// # Errors
///
/// Returns an error if an option is not valid, or the credentials cannot be read.
pub(crate) fn open(
    service: &mut Section<'_>,
    own: &mut Section<'_>,
    context: &ProviderContext<'_>,
) -> Result<Arc<dyn KeyService>, InitializeError> {
    let key = name::read(service)?;
    let endpoint = endpoint::read(service, endpoint::KMS)?;
    if warn_if_exposed(&endpoint) {
        let problem = "must begin with https://, since file keys are sent there";
        return Err(service.error(endpoint::ENDPOINT, problem).into());
    }
    let file = match ServiceAccountFile::read(service)? {
        None => ServiceAccountFile::read(own)?,
        file => file,
    };
    let refused = |error: &dyn fmt::Display| InitializeError::new(error.to_string());
    let credentials = Credentials::find(file.as_ref()).map_err(|error| refused(&error))?;
    let quota_project = credentials.quota_project().and_then(|project| HeaderValue::from_str(project).ok());
    // The client has connections of its own: a download that holds one of the bucket's waits for its key.
    let http = context.http()?.for_key_service();
    let (credentials, http) = credentials.provider(file, http).map_err(|error| refused(&error))?;
    let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
    let retry = context.network().retry;
    Ok(Arc::new(GoogleKms { key, endpoint, credentials, quota_project, http, retry }))
}

impl GoogleKms {
    async fn wrap_key(&self, file_key: &FileKey) -> Result<Wrapped, KeyServiceError> {
        let body = request(&[(PLAINTEXT, file_key.expose()), CONTEXT]);
        let wrapped = self.call(Operation::WrapKey, "encrypt", body, |mut answer| {
            answer.expect_version_of(&self.key)?;
            answer.expect_verified(PLAINTEXT)?;
            answer.expect_verified(ADDITIONAL_DATA)?;
            answer.bytes(CIPHERTEXT)
        });
        Ok(Wrapped { key: self.key.clone(), wrapped: wrapped.await?.to_vec() })
    }

    async fn unwrap_key(&self, key: &str, wrapped: &[u8]) -> Result<FileKey, KeyServiceError> {
        if !self.has_key(key) {
            return Err(KeyServiceError::NotConfigured { service: self.service(), key: key.to_owned() });
        }
        let body = request(&[(CIPHERTEXT, wrapped), CONTEXT]);
        let plaintext = self.call(Operation::UnwrapKey, "decrypt", body, |mut answer| {
            let plaintext = answer.bytes(PLAINTEXT)?;
            if plaintext.len() == FILE_KEY { Ok(plaintext) } else { Err(Unusable::Malformed) }
        });
        let plaintext = plaintext.await?;
        let mut bytes = Zeroizing::new([0; FILE_KEY]);
        bytes.copy_from_slice(&plaintext);
        Ok(FileKey::new(&bytes))
    }

    /// Whether the primary version of the key has wrapped a file key. The ciphertext alone does not say so.
    async fn is_of_primary(&self, wrapped: &[u8]) -> Result<bool, KeyServiceError> {
        let body = request(&[(CIPHERTEXT, wrapped), CONTEXT]);
        self.call(Operation::UnwrapKey, "decrypt", body, |mut answer| {
            answer.bytes(PLAINTEXT)?;
            Ok(answer.used_primary())
        })
        .await
    }

    /// Sends a request until the service answers it, and reads the answer.
    async fn call<T>(
        &self,
        operation: Operation,
        method: &str,
        body: Zeroizing<String>,
        read: impl Fn(Answer) -> Result<T, Unusable>,
    ) -> Result<T, KeyServiceError> {
        let url = format!("{}/v1/{}:{method}", self.endpoint, self.key);
        // The last of the attempts wipes it. The HTTP and TLS libraries have both bodies in their buffers, which they do
        // not wipe.
        let body = Bytes::from_owner(body);
        let target = format!("Google Cloud KMS ({})", self.key);
        let attempt = || async {
            let answer = Answer::parse(&self.send(&url, body.clone()).await?);
            answer.and_then(&read).map_err(|unusable| match unusable {
                // As if the connection had broken: the request is repeated.
                Unusable::Corrupted => {
                    let reason = "a checksum of Google Cloud KMS does not match".to_owned();
                    failed(TransportError::Interrupted { reason })
                }
                Unusable::Malformed => failed("the answer is not one of Google Cloud KMS; check Endpoint"),
            })
        };
        let answer = Box::pin(self.retry.request(operation, target, attempt)).await;
        answer.map_err(explain)
    }

    async fn send(&self, url: &str, body: Bytes) -> object_store::Result<Bytes> {
        let length = HeaderValue::from(body.len());
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.parse().map_err(failed::<http::uri::InvalidUri>)?;
        let credential = self.credentials.get_credential().await?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", credential.bearer))
            .map_err(|_| failed("the access token is not valid"))?;
        bearer.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.quota_project.clone().map(|project| (QUOTA_PROJECT, project)));
        let response = self.http.call(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(failed("the service refused"));
        }
        key_service_answer(response).await.map_err(failed)
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(source: E) -> object_store::Error {
    object_store::Error::Generic { store: "Google Cloud KMS", source: source.into() }
}

impl KeyService for GoogleKms {
    fn service(&self) -> Service {
        Service::GoogleKms
    }

    fn has_key(&self, key: &str) -> bool {
        key == self.key
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        self.wrap_key(file_key).boxed()
    }

    fn unwrap<'a>(
        &'a self,
        key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        self.unwrap_key(key, wrapped).boxed()
    }

    fn is_current<'a>(
        &'a self,
        _key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, KeyServiceError>> {
        self.is_of_primary(wrapped).boxed()
    }
}

impl fmt::Debug for GoogleKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleKms")
            .field("key", &self.key)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
