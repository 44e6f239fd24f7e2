//! The layer between `object_store` and the HTTP client: adapts requests to the server's dialect, signs them, and repeats
//! those that the server refuses because of the dialect.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cloud_http::{
    CloudHttp, Exchange, MAX_REDIRECTS, clock_correction, observe_nested, redirect_target, server_time,
    small_body,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use md5::{Digest as _, Md5};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpService,
};
use serde::Deserialize;

use crate::deletion::status_of;
use crate::dialect::{Protection, Reply, ServerDialect, Terms};
use crate::signing::Signer;

const ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const CRC64NVME: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const SHA256_SUM: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
pub(crate) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// Maximum number of repetitions of one request: one for each property of the dialect.
const REPETITIONS: usize = 4;

/// What a request is for, as far as dialects differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `PUT` of an object or a part.
    Upload {
        upload_id: Option<String>,
    },
    /// The begin of an upload in parts.
    Begin,
    /// The completion of an upload in parts.
    Completion {
        upload_id: String,
    },
    /// `GET` or `HEAD` of an object.
    Read {
        head: bool,
    },
    Other,
}

impl Kind {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let value = |name| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        match (request.method(), value("uploadId")) {
            (&Method::PUT, upload_id) => Self::Upload { upload_id },
            (&Method::POST, Some(upload_id)) => Self::Completion { upload_id },
            (&Method::POST, None) if value("uploads").is_some() => Self::Begin,
            (method @ (&Method::GET | &Method::HEAD), _) if query.is_empty() => {
                Self::Read { head: method == Method::HEAD }
            }
            _ => Self::Other,
        }
    }

    pub(crate) fn upload_id(&self) -> Option<&str> {
        match self {
            Self::Upload { upload_id } => upload_id.as_deref(),
            Self::Completion { upload_id } => Some(upload_id),
            _ => None,
        }
    }
}

/// The HTTP client of one bucket. It sends requests that are neither signed nor adapted.
#[derive(Debug, Clone)]
pub(crate) struct S3Http {
    pub(crate) http: CloudHttp,
    pub(crate) signer: Signer,
    pub(crate) dialect: Arc<ServerDialect>,
    /// Whether the content is part of the signature.
    pub(crate) sign_payload: bool,
}

impl HttpConnector for S3Http {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for S3Http {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let kind = Kind::of(&request);
        let mut terms = self.dialect.terms(&kind);
        let mut tried: Vec<(Terms, Reply)> = Vec::new();
        let mut redirects = 0;
        loop {
            let adapted = self.adapt(request.clone(), &kind, terms).await?;
            let (answer, exchange) = observe_nested(self.http.call(adapted)).await;
            let answer = answer?;
            if let Some(target) =
                redirect_target(request.uri(), &answer).filter(|_| redirects < MAX_REDIRECTS)
            {
                if answer.status() == StatusCode::PERMANENT_REDIRECT {
                    self.dialect.moved(&target);
                }
                *request.uri_mut() = target;
                redirects += 1;
                continue;
            }
            let reply = reply(&answer, exchange, terms);
            let others = self.dialect.judge(&kind, terms, &reply);
            let is_new = |others: &Terms| tried.iter().all(|(terms, _)| terms != others);
            match others.filter(is_new).filter(|_| tried.len() < REPETITIONS) {
                Some(others) => {
                    terms = others;
                    tried.push((others, reply));
                }
                None => {
                    self.dialect.conclude(&tried, &reply);
                    return self.finish(&kind, terms, answer).await;
                }
            }
        }
    }
}

impl S3Http {
    /// Adds the headers of the dialect and the signature.
    async fn adapt(
        &self,
        mut request: HttpRequest,
        kind: &Kind,
        terms: Terms,
    ) -> Result<HttpRequest, HttpError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            HttpError::new(HttpErrorKind::Unknown, Unsigned(error))
        };
        let chunks = chunks(request.body()).await?;
        let headers = request.headers_mut();
        match kind {
            Kind::Upload { .. } => protect(headers, terms.protection, &chunks).map_err(failed)?,
            Kind::Begin => announce(headers, terms.protection),
            Kind::Read { .. } if terms.asks_for_checksum => {
                headers.insert(MODE, HeaderValue::from_static("ENABLED"));
            }
            _ => {}
        }
        let payload = self.sign_payload.then(|| hexadecimal(sha256(&chunks).as_ref()));
        self.signer.sign(&mut request, payload, server_time(terms.clock_offset)).await.map_err(failed)?;
        Ok(request)
    }

    /// Reads the answers that the dialect depends on.
    async fn finish(
        &self,
        kind: &Kind,
        terms: Terms,
        mut answer: HttpResponse,
    ) -> Result<HttpResponse, HttpError> {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        match kind {
            // The completion would repeat checksums that were not sent.
            Kind::Upload { .. } => {
                let unsent = |name: &HeaderName| match terms.protection {
                    Protection::Crc64Nvme => *name != CRC64NVME,
                    Protection::Sha256 => *name != SHA256_SUM,
                    Protection::Md5 | Protection::None => true,
                };
                for name in [CRC64NVME, SHA256_SUM].iter().filter(|name| unsent(name)) {
                    answer.headers_mut().remove(name);
                }
                Ok(answer)
            }
            Kind::Begin => {
                let (head, body) = read(answer).await?;
                if let Ok(begun) = quick_xml::de::from_reader::<_, Begun>(&body[..]) {
                    self.dialect.upload_began(begun.upload_id, terms);
                }
                Ok(HttpResponse::from_parts(head, body.into()))
            }
            Kind::Completion { .. } => {
                let (head, body) = read(answer).await?;
                if let Some(status) = error_status(&body) {
                    return Ok(self.http.as_refusal(head, status, body));
                }
                Ok(HttpResponse::from_parts(head, body.into()))
            }
            _ => Ok(answer),
        }
    }
}

/// The request could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign the request")]
struct Unsigned(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The answer to the begin of an upload in parts.
#[derive(Debug, Deserialize)]
struct Begun {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

async fn read(answer: HttpResponse) -> Result<(http::response::Parts, Bytes), HttpError> {
    let (head, body) = answer.into_parts();
    let body = small_body(HttpResponse::new(body)).await?;
    Ok((head, body))
}

/// Returns the status that an answer with status 200 should have had: servers send it before a completion has ended.
fn error_status(body: &[u8]) -> Option<StatusCode> {
    #[derive(Deserialize)]
    enum Document {
        Error(Failure),
    }
    #[derive(Deserialize)]
    struct Failure {
        #[serde(rename = "Code")]
        code: Option<String>,
    }
    let Ok(Document::Error(failure)) = quick_xml::de::from_reader(body) else { return None };
    let status = failure.code.and_then(|code| status_of(&code));
    Some(
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    )
}

fn reply(answer: &HttpResponse, exchange: Exchange, terms: Terms) -> Reply {
    Reply {
        status: answer.status(),
        code: exchange.code.unwrap_or_default(),
        message: exchange.message.unwrap_or_default(),
        clock_offset: clock_correction(answer.headers(), terms.clock_offset),
    }
}

/// Returns the content of a request. A body in memory does not wait.
async fn chunks(body: &HttpRequestBody) -> Result<Vec<Bytes>, HttpError> {
    let mut body = body.clone();
    let mut chunks = Vec::new();
    while let Some(frame) = body.frame().await {
        chunks.extend(frame?.into_data());
    }
    Ok(chunks)
}

/// Sets the checksum of an upload. `object_store` has set that of [`Protection::Crc64Nvme`].
fn protect(
    headers: &mut HeaderMap,
    protection: Protection,
    chunks: &[Bytes],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (name, sum) = match protection {
        Protection::Crc64Nvme => return Ok(()),
        Protection::Sha256 => (SHA256_SUM, BASE64.encode(sha256(chunks))),
        Protection::Md5 => {
            let mut md5 = Md5::new();
            chunks.iter().for_each(|chunk| md5.update(chunk));
            (CONTENT_MD5, BASE64.encode(md5.finalize()))
        }
        Protection::None => {
            headers.remove(CRC64NVME);
            return Ok(());
        }
    };
    headers.remove(CRC64NVME);
    headers.insert(name, HeaderValue::from_str(&sum)?);
    Ok(())
}

/// Announces the checksums of the parts, as [`protect`] sets them.
fn announce(headers: &mut HeaderMap, protection: Protection) {
    match protection {
        Protection::Crc64Nvme => {}
        Protection::Sha256 => drop(headers.insert(ALGORITHM, HeaderValue::from_static("SHA256"))),
        Protection::Md5 | Protection::None => drop(headers.remove(ALGORITHM)),
    }
}

fn sha256(chunks: &[Bytes]) -> aws_lc_rs::digest::Digest {
    let mut context = Context::new(&SHA256);
    chunks.iter().for_each(|chunk| context.update(chunk));
    context.finish()
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(halves.map(|half| DIGITS[usize::from(half)]));
    text
}
