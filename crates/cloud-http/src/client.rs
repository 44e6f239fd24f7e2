//! `CloudHttp`, the client, and its options.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use tokio::sync::Semaphore;

use crate::background;
use crate::checksum::{self, Checksum};
use crate::download::DownloadBody;
use crate::error::{HttpConfigError, TransportError};
use crate::error_body;
use crate::exchange::{Exchange, note};
use crate::lifetime::TokenHttp;
use crate::proxy::proxies;
use crate::stall::Progress;
use crate::upload::{Lease, UploadBody, is_lent};

/// Maximum number of bytes to read of an error body.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The longest pause that a server may ask for (`Retry-After`).
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Maximum number of bytes to read of a document, such as the answer to the deletion of 1,000 objects.
const MAX_DOCUMENT: usize = 8 * 1024 * 1024;
const USER_AGENT: &str = concat!("orthanc-object-storage/", env!("CARGO_PKG_VERSION"));

/// Options of a [`CloudHttp`].
#[derive(Clone)]
pub struct HttpOptions {
    /// Maximum time to open a connection.
    pub connect_timeout: Duration,
    /// Maximum time without any data sent or received in an exchange.
    pub stall_limit: Duration,
    /// Maximum number of connections in use, at least 1. Further requests wait.
    pub max_connections: usize,
    /// `[protocol://][user:password@]host[:port]`. If `None`, the environment (`HTTPS_PROXY` and similar)
    /// decides. `NO_PROXY` applies to both. This machine and metadata services are never asked through a
    /// proxy.
    pub proxy: Option<String>,
    /// PEM certificates of authorities to trust in addition to the system's.
    pub root_certificates: Option<Vec<u8>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            stall_limit: Duration::from_secs(30),
            max_connections: 25,
            proxy: None,
            root_certificates: None,
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("stall_limit", &self.stall_limit)
            .field("max_connections", &self.max_connections)
            // The proxy's address may contain a password.
            .field("proxy", &self.proxy.as_ref().map(|_| "…"))
            .field("root_certificates", &self.root_certificates.as_ref().map(Vec::len))
            .finish()
    }
}

/// An HTTP/1.1 client for `object_store`. Clones are cheap and share connections and limits.
#[derive(Debug, Clone)]
pub struct CloudHttp {
    client: reqwest::Client,
    connections: Arc<Semaphore>,
    stall_limit: Duration,
    crc32c_of_uploads: bool,
}

impl CloudHttp {
    /// Creates a client. TLS certificates are always verified.
    ///
    /// # Errors
    ///
    /// [`HttpConfigError`] if the certificates or the proxy are invalid.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpConfigError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.max_connections)
            // `reqwest` would not exclude metadata services from the proxies of the environment.
            .no_proxy();
        for proxy in proxies(options.proxy.as_deref(), |name| std::env::var(name).ok())? {
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = &options.root_certificates {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|_| HttpConfigError::Certificates)?;
            if certificates.is_empty() {
                return Err(HttpConfigError::Certificates);
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| HttpConfigError::from_reqwest(&error))?;
        Ok(Self {
            client,
            connections: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            stall_limit: options.stall_limit,
            crc32c_of_uploads: false,
        })
    }

    /// Adds the CRC-32C of uploaded objects in `x-goog-hash`, which Google verifies before storing them.
    /// `object_store` sends checksums only to S3.
    #[must_use]
    pub fn with_crc32c_of_uploads(self) -> Self {
        Self { crc32c_of_uploads: true, ..self }
    }

    /// Returns the `reqwest` client, without limits and observation, for requests of other libraries
    /// (credentials).
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns this client for requests to token services.
    pub fn for_tokens(&self) -> TokenHttp {
        TokenHttp::new(self.clone())
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let permit =
            background::connection(&self.connections).await.ok_or_else(|| protocol("no connection"))?;
        note(|exchange| *exchange = Exchange { requests: exchange.requests + 1, ..Exchange::default() });

        let progress = Progress::start();
        let (request, lease) = self.prepare(request, &progress).await?;
        let response = tokio::select! {
            response = self.client.execute(request) => {
                response.map_err(|error| TransportError::from_reqwest(&error).into_http())?
            }
            () = progress.stalled(self.stall_limit) => {
                return Err(TransportError::Stalled { limit: self.stall_limit }.into_http());
            }
        };
        drop(lease);

        let (head, incoming) = http::Response::from(response).into_parts();
        note_answer(head.status, &head.headers);
        if !has_plausible_sizes(&head.headers) {
            return Err(protocol("the size in the server's answer is not plausible"));
        }
        let download = DownloadBody::new(incoming, self.stall_limit, permit);
        let body = if head.status.is_success() {
            HttpResponseBody::new(download)
        } else {
            read_refusal(download).await.into()
        };
        Ok(HttpResponse::from_parts(head, body))
    }

    /// Converts a request for `reqwest`. Dropping the lease releases the payload.
    async fn prepare(
        &self,
        request: HttpRequest,
        progress: &Progress,
    ) -> Result<(reqwest::Request, Lease), HttpError> {
        let (head, payload) = request.into_parts();
        let url = head.uri.to_string().parse().map_err(|_| protocol("the URL is not valid"))?;
        let mut prepared = reqwest::Request::new(head.method, url);
        *prepared.headers_mut() = head.headers;
        let (body, lease) = UploadBody::new(payload, is_lent(), progress.clone()).await?;
        // Part uploads, whose URLs have a query, are excluded: Google does not document the header for them.
        if self.crc32c_of_uploads && *prepared.method() == Method::PUT && prepared.url().query().is_none() {
            prepared.headers_mut().extend(body.google_hash().map(|hash| (checksum::GOOGLE, hash)));
        }
        if !http_body::Body::is_end_stream(&body) {
            *prepared.body_mut() = Some(reqwest::Body::wrap(body));
        }
        Ok((prepared, lease))
    }
}

/// Reads the server's explanation and adds it to the observed exchange. An unreadable body is ignored, since
/// the status is known.
async fn read_refusal(download: DownloadBody) -> Bytes {
    let collected = Limited::new(download, MAX_ERROR_BODY).collect().await;
    let body = collected.map(|body| body.to_bytes()).unwrap_or_default();
    note_refusal(&body);
    body
}

/// Returns a response whose body turns out to be an error as a refusal with `status`. Its own status says otherwise.
pub fn as_refusal(head: http::response::Parts, status: StatusCode, body: Bytes) -> HttpResponse {
    note(|exchange| exchange.status = Some(status.as_u16()));
    note_refusal(&body);
    let mut response = HttpResponse::from_parts(head, body.into());
    *response.status_mut() = status;
    response
}

fn note_refusal(body: &[u8]) {
    let refusal = error_body::parse(body);
    note(|exchange| {
        exchange.code = refusal.code;
        exchange.message = refusal.message;
        exchange.request_id = exchange.request_id.take().or(refusal.request_id);
    });
}

/// Reads the body of a response that is a document, not an object.
///
/// # Errors
///
/// Fails if the connection breaks, or the body is larger than any document of the clouds.
pub async fn small_body(response: HttpResponse) -> Result<Bytes, HttpError> {
    match Limited::new(response.into_body(), MAX_DOCUMENT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => {
            Err(error.downcast().map_or_else(|_| protocol("the answer is too large"), |error| *error))
        }
    }
}

fn note_answer(status: StatusCode, headers: &HeaderMap) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    note(|exchange| {
        exchange.status = Some(status.as_u16());
        exchange.request_id = text("x-amz-request-id")
            .or_else(|| text("x-ms-request-id"))
            .or_else(|| text("x-guploader-uploadid"));
        exchange.retry_after =
            headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
        exchange.checksum = Checksum::of_answer(headers);
    });
}

/// Parses `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|letter| letter.is_ascii_digit());
    let pause = if is_number {
        value.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

/// Whether each number in the headers about sizes is one that callers can calculate with.
fn has_plausible_sizes(headers: &HeaderMap) -> bool {
    let values = [CONTENT_LENGTH, CONTENT_RANGE].map(|name| headers.get(name));
    let texts = values.into_iter().flatten().filter_map(|value| value.to_str().ok());
    let numbers = texts.flat_map(|text| text.split(|letter: char| !letter.is_ascii_digit()));
    numbers.filter(|digits| !digits.is_empty()).all(|digits| digits.parse::<i64>().is_ok())
}

fn protocol(reason: &str) -> HttpError {
    TransportError::Protocol { reason: reason.to_owned() }.into_http()
}

#[async_trait]
impl HttpService for CloudHttp {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let start = std::time::Instant::now();
        let answer = self.exchange(request).await;
        let milliseconds = start.elapsed().as_millis();
        match &answer {
            Ok(response) => {
                tracing::debug!(%method, path, status = response.status().as_u16(), milliseconds, "request");
            }
            Err(error) => tracing::debug!(%method, path, %error, milliseconds, "request failed"),
        }
        answer
    }
}

/// Returns a configuration that turns off the retries of `object_store`. The crate `bucket` retries instead,
/// with one deadline per operation.
pub fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

impl HttpConnector for CloudHttp {
    /// Returns this client; its [`HttpOptions`] replace the options of `object_store`.
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let later = SystemTime::now() + Duration::from_secs(60);
        let parsed = retry_after(&httpdate::fmt_http_date(later)).unwrap();
        assert!((58..=60).contains(&parsed.as_secs()), "{parsed:?}");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        for other in ["soon", "", "-1", "1.5"] {
            assert_eq!(retry_after(other), None, "{other}");
        }
    }

    #[test]
    fn retry_after_is_capped() {
        for huge in
            ["3601", "9999999999999999999", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(retry_after(huge), Some(LONGEST_RETRY_AFTER), "{huge}");
        }
    }

    #[test]
    fn absurd_sizes_are_noticed() {
        let plausible = |name: http::HeaderName, value: &str| {
            has_plausible_sizes(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
        };
        for good in
            ["bytes 0-5/6", "bytes 0-5/*", "bytes */6", "bytes 0-9223372036854775806/9223372036854775807"]
        {
            assert!(plausible(CONTENT_RANGE, good), "{good}");
        }
        for bad in ["bytes 0-18446744073709551615/6", "bytes 0-5/18446744073709551616"] {
            assert!(!plausible(CONTENT_RANGE, bad), "{bad}");
        }
        assert!(plausible(CONTENT_LENGTH, "6"));
        assert!(!plausible(CONTENT_LENGTH, "9223372036854775808"));
        assert!(has_plausible_sizes(&HeaderMap::new()));
    }

    #[test]
    fn debug_output_hides_the_password_of_the_proxy() {
        let options =
            HttpOptions { proxy: Some("http://user:hunter2@proxy".to_owned()), ..HttpOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
