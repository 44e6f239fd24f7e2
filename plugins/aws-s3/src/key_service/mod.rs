//! AWS KMS as the service that wraps file keys, with two requests: `Encrypt` and `Decrypt`.
//!
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>

mod advice;
mod documents;
mod key;
#[cfg(test)]
mod messages;
mod options;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bucket::{Cause, Operation, RetryPolicy, StorageError};
use bytes::Bytes;
use cloud_http::{Clock, CloudHttp, clock_correction, key_service_answer};
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Service, Wrapped};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse, HttpService as _};
use orthanc_ffi::InitializeError;
use storage_plugin::{ProviderContext, Section};
use zeroize::Zeroizing;

use self::advice::advice;
use self::documents::Unusable;
use self::key::Key;
use self::options::Options;
use crate::request::hexadecimal;
use crate::signing::Signer;

/// The option in `MasterKey`.
pub(crate) const SECTION: &str = "AwsKms";
/// The codes with which AWS KMS refuses credentials that are not valid any more.
const REFUSALS: &[&str] =
    &["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"];
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// A request to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Encrypt,
    Decrypt,
}

impl Action {
    fn operation(self) -> Operation {
        match self {
            Self::Encrypt => Operation::WrapKey,
            Self::Decrypt => Operation::UnwrapKey,
        }
    }

    fn target(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Encrypt => "TrentService.Encrypt",
            Self::Decrypt => "TrentService.Decrypt",
        })
    }

    /// The permission that the request needs.
    fn permission(self) -> &'static str {
        match self {
            Self::Encrypt => "kms:Encrypt",
            Self::Decrypt => "kms:Decrypt",
        }
    }
}

/// A key in AWS KMS.
pub(crate) struct AwsKms {
    key: Key,
    url: Uri,
    http: CloudHttp,
    signer: Signer,
    clock: Clock,
    retry: RetryPolicy,
}

/// Reads the options of `AwsKms`, and returns a client with the credentials there, or else those of the plugin's own
/// section. Does not send a request.
pub(crate) fn open(
    service: &mut Section<'_>,
    own: &mut Section<'_>,
    context: &ProviderContext<'_>,
) -> Result<Arc<dyn KeyService>, InitializeError> {
    let Options { key, region, credentials, url } = Options::read(service, own)?;
    let (http, credentials) = credentials.apply(&region, context.http()?.for_key_service(), REFUSALS);
    let signer = Signer::new(credentials, &region, "kms");
    let retry = context.network().retry;
    Ok(Arc::new(AwsKms { key, url, http, signer, clock: Clock::default(), retry }))
}

impl AwsKms {
    /// Makes a request until it succeeds or the policy ends the attempts, and reads its answer.
    async fn request<T>(
        &self,
        action: Action,
        body: Zeroizing<Vec<u8>>,
        read: impl Fn(&[u8]) -> Result<T, Unusable>,
    ) -> Result<T, KeyServiceError> {
        // Wiped when the last attempt has ended. The HTTP client and the TLS library copy the body to buffers of their own,
        // which they do not wipe; nor do they wipe those with the answer.
        let body = Bytes::from_owner(body);
        let attempt = || async {
            let response = self.send(action, &body).await?;
            if !response.status().is_success() {
                return Err(failed("the service refused"));
            }
            let answer = key_service_answer(response).await.map_err(failed)?;
            read(&answer).map_err(failed)
        };
        let name =
            format!("AWS KMS key {} at {}", self.key, self.url.authority().map_or("", |host| host.as_str()));
        let answer = self.retry.request(action.operation(), name, attempt).await;
        answer.map_err(|error| self.explain(action, error))
    }

    /// Sends a request, and once more with the service's time if that is why it was refused.
    async fn send(&self, action: Action, body: &Bytes) -> object_store::Result<HttpResponse> {
        let offset = self.clock.offset();
        let response = self.send_once(action, body).await?;
        // Wrong times are refused with status 400, which CloudHttp takes for other mistakes.
        let is_refusal = matches!(
            response.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        match clock_correction(response.headers(), offset) {
            Some(correct) if is_refusal => {
                self.clock.correct(correct);
                self.send_once(action, body).await
            }
            _ => Ok(response),
        }
    }

    async fn send_once(&self, action: Action, body: &Bytes) -> object_store::Result<HttpResponse> {
        let payload = hexadecimal(digest(&SHA256, body).as_ref());
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        request.headers_mut().insert(TARGET, action.target());
        self.signer.sign(&mut request, Some(payload), self.clock.now()).await.map_err(failed)?;
        self.http.call(request).await.map_err(failed)
    }

    /// Adds what an administrator can do.
    fn explain(&self, action: Action, error: StorageError) -> KeyServiceError {
        if error.transient {
            return KeyServiceError::Unavailable(error.to_string());
        }
        // The texts of these causes are about buckets.
        let is_refusal =
            matches!(error.cause, Cause::Denied | Cause::Refused | Cause::NotFound | Cause::TooLarge);
        let cause = match &error.answer {
            Some(answer) if is_refusal => Cause::Other(advice(answer.code.as_deref(), action, &self.key)),
            _ => error.cause,
        };
        KeyServiceError::Refused(StorageError { cause, ..error }.to_string())
    }
}

impl KeyService for AwsKms {
    fn service(&self) -> Service {
        Service::AwsKms
    }

    /// Ciphertexts of AWS contain the name of their key, so that envelopes do not: see [`Key::for_decrypt`].
    fn has_key(&self, key: &str) -> bool {
        key.is_empty()
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Wrapped> {
        Box::pin(async move {
            let body = documents::encrypt(&self.key, file_key)?;
            let wrapped = self.request(Action::Encrypt, body, documents::encrypted).await?;
            Ok(Wrapped { key: String::new(), wrapped })
        })
    }

    fn unwrap<'a>(&'a self, _key: &'a str, wrapped: &'a [u8]) -> BoxFuture<'a, FileKey> {
        Box::pin(async move {
            let body = documents::decrypt(&self.key, wrapped)?;
            self.request(Action::Decrypt, body, |answer| documents::decrypted(&self.key, answer)).await
        })
    }

    /// The service says only whether this key unwraps a file key. Versions are parts of one key.
    fn is_current<'a>(&'a self, key: &'a str, wrapped: &'a [u8]) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            match self.unwrap(key, wrapped).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_transient() => Err(error),
                Err(_) => Ok(false),
            }
        })
    }
}

/// The future of a request, in the form of [`KeyService`].
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, KeyServiceError>> + Send + 'a>>;

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("key", &self.key).field("url", &self.url).finish_non_exhaustive()
    }
}

fn failed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "AWS KMS", source: source.into() }
}
