//! Requests to a vault, with the retries of requests to the bucket.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bucket::{Cause, Operation, RetryPolicy, StorageError};
use bytes::Bytes;
use cloud_http::{CloudHttp, key_service_answer};
use crypto_envelope::{FileKey, KeyServiceError};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use object_store::azure::{AzureCredential, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse, HttpService};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::key_id::KeyId;
use crate::container::failed;

/// The only algorithm for new keys, and the one of the earlier plugin.
const ALGORITHM: &str = "RSA-OAEP-256";
const PERMISSIONS: &str = "access denied: the identity needs the role Key Vault Crypto Service Encryption User, or the \
    permissions get, wrapKey and unwrapKey; the key must be enabled, and the vault's firewall must let this machine in";
const NO_TOKEN: &str = "the vault does not accept the token: check the tenant and the client";
const NO_KEY: &str = "the vault has no such key, or not this version of it: check kid";
const NO_VAULT: &str =
    "the answer does not come from a vault: check kid, and what is between it and this machine";
const UNUSABLE: &str = "the vault's answer is not valid: check kid";
const OTHER_KEY: &str = "the vault cannot use it: the file key was wrapped with another key, or is damaged";

/// The way to a vault.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) http: CloudHttp,
    pub(crate) credentials: AzureCredentialProvider,
    pub(crate) retry: RetryPolicy,
}

/// What the vault answers to a request about a key.
pub(crate) struct Answer {
    /// The identifier of the key's version.
    pub(crate) key: String,
    /// The result in base64, which may be a key.
    pub(crate) value: Zeroizing<String>,
}

impl Vault {
    /// Asks for the newest version of a key.
    pub(crate) async fn newest(&self, key: &KeyId) -> Result<Answer, KeyServiceError> {
        self.send(Operation::Read, key, None, &[]).await
    }

    /// Wraps or unwraps `input` with a version of a key.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        key: &KeyId,
        path: Option<&str>,
        input: &[u8],
    ) -> Result<Answer, KeyServiceError> {
        let url = key.url(path);
        let attempt = || Box::pin(self.attempt(path.is_some(), &url, input));
        let answer = self.retry.request(operation, key.to_string(), attempt).await;
        let answer = answer.map_err(|error| explain(&error))?;
        parse(&answer).ok_or_else(|| {
            let error = StorageError::new(operation, key.to_string(), Cause::Other(UNUSABLE.to_owned()));
            KeyServiceError::Refused(message(&error))
        })
    }

    async fn attempt(&self, is_operation: bool, url: &Url, input: &[u8]) -> object_store::Result<Bytes> {
        let mut request = get(url)?;
        if is_operation {
            *request.method_mut() = Method::POST;
            *request.body_mut() = body(input);
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let credential = self.credentials.get_credential().await?;
        let AzureCredential::BearerToken(token) = &*credential else {
            return Err(failed("the identity has no token".into()));
        };
        let mut value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {token}")))
            .map_err(|error| failed(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        let (head, body) = self.http.call(request).await.map_err(|error| failed(error.into()))?.into_parts();
        let status = head.status;
        let answer = HttpResponse::new(body);
        let answer = key_service_answer(answer).await.map_err(|error| failed(error.into()))?;
        if status.is_success() {
            return Ok(answer);
        }
        if quotes(&answer, input) {
            // Takes the place of the answer in messages.
            let _ = self.http.as_refusal(head, status, Bytes::new());
        }
        Err(failed("the vault refused".into()))
    }
}

/// Returns a request without a token.
pub(crate) fn get(url: &Url) -> object_store::Result<HttpRequest> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.as_str().parse().map_err(|error| failed(Box::new(error)))?;
    Ok(request)
}

/// Returns a request's body, which is wiped after it was sent. The libraries for HTTP and TLS copy it to buffers of their
/// own, and do not wipe those.
fn body(input: &[u8]) -> HttpRequestBody {
    let start = format!("{{\"alg\":\"{ALGORITHM}\",\"value\":\"");
    // A longer text would be moved to another place, and leave a copy.
    let mut text = Zeroizing::new(String::with_capacity(start.len() + input.len().div_ceil(3) * 4 + 2));
    text.push_str(&start);
    BASE64.encode_string(input, &mut text);
    text.push_str("\"}");
    Bytes::from_owner(text).into()
}

/// Whether an answer contains a part of the key that was sent, which no message may show.
fn quotes(answer: &[u8], input: &[u8]) -> bool {
    const PART: usize = 8;
    let text = Zeroizing::new(BASE64.encode(input));
    text.as_bytes().windows(PART).any(|part| answer.windows(PART).any(|other| other == part))
}

/// Reads `{"kid": …, "value": …}`, or `{"key": {"kid": …}}`. The text of the value is moved, not copied, and wiped; the
/// bytes of the answer are in buffers of the libraries for HTTP and TLS, which are not.
fn parse(answer: &[u8]) -> Option<Answer> {
    let mut answer: Value = serde_json::from_slice(answer).ok()?;
    let value = match answer.get_mut("value").map(Value::take) {
        Some(Value::String(value)) => value,
        _ => String::new(),
    };
    let value = Zeroizing::new(value);
    let key = answer.get("kid").or_else(|| answer.pointer("/key/kid"))?.as_str()?.to_owned();
    Some(Answer { key, value })
}

/// Decodes a ciphertext.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim_end_matches('=')).ok()
}

/// Decodes a file key.
pub(crate) fn decode_key(text: &str) -> Option<FileKey> {
    // The decoder asks for more room than the key needs.
    let mut bytes = Zeroizing::new([0; 48]);
    let length = BASE64.decode_slice(text.trim_end_matches('='), &mut *bytes).ok()?;
    bytes[..length].try_into().ok().map(FileKey::new)
}

/// Converts the error of a request, with what to do.
pub(crate) fn explain(error: &StorageError) -> KeyServiceError {
    let reason = match (&error.cause, error.status()) {
        (Cause::Denied, Some(401)) => NO_TOKEN.to_owned(),
        (Cause::Denied, _) => PERMISSIONS.to_owned(),
        (Cause::NotFound, _) => NO_KEY.to_owned(),
        (Cause::Refused, Some(400)) if error.operation == Operation::UnwrapKey => OTHER_KEY.to_owned(),
        (Cause::Refused, _) => "the vault refused the request".to_owned(),
        (Cause::Foreign, _) => NO_VAULT.to_owned(),
        (Cause::Busy, _) => "the vault is temporarily unavailable".to_owned(),
        (cause, _) => cause.to_string(),
    };
    let text = message(&StorageError { cause: Cause::Other(reason), ..error.clone() });
    if error.transient { KeyServiceError::Unavailable(text) } else { KeyServiceError::Refused(text) }
}

fn message(error: &StorageError) -> String {
    format!("Azure Key Vault: {error}")
}
