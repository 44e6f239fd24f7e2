//! `CloudHttp`, the client, and its options.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::{ClientOptions, RetryConfig};
use tokio::sync::Semaphore;

use crate::archive::ArchiveState;
use crate::background;
use crate::checksum::{self, Checksum, has_other_e_tag, md5_of_answer};
use crate::clock::{self, Clock};
use crate::download::DownloadBody;
use crate::error::{HttpConfigError, TransportError, innermost};
use crate::error_body::{self, set_region, with_advice};
use crate::exchange::{Exchange, note};
use crate::foreign;
use crate::lifetime::TokenHttp;
use crate::mend::Asked;
use crate::proxy::{self, proxies};
use crate::redact::Secrets;
use crate::redirect::{self, MAX_REDIRECTS, redirect_target};
use crate::renewal::{Renewable, Renewal};
use crate::retry_after::retry_after;
use crate::scheme;
use crate::server::LastServer;
use crate::stall::{Limits, Progress};
use crate::tls;
use crate::upload::{Lease, UploadBody, is_lent};

/// Maximum number of bytes to read of an error body.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Maximum time until a key service answers. It has little to do, so that another attempt is better than a longer wait.
const KEY_SERVICE_ANSWER: Duration = Duration::from_secs(10);
/// How long a connection without requests is kept, unless the server closes it before. Longer than most servers keep one, so
/// that it is still there for the next request, and shorter than load balancers that forget connections in silence (four
/// minutes on Azure). The probes of TCP (`reqwest` sends one after 15 s) find connections that are broken.
const IDLE: Duration = Duration::from_secs(200);
const USER_AGENT: &str = concat!("orthanc-object-storage/", env!("CARGO_PKG_VERSION"));

/// Options of a [`CloudHttp`].
#[derive(Clone)]
pub struct HttpOptions {
    /// Maximum time to open a connection, to hear from the peer that sent data has arrived (Linux), and without any data
    /// in a download.
    pub connect_timeout: Duration,
    /// Maximum time without any data sent, and to the answer to a read.
    pub stall_limit: Duration,
    /// Maximum time between the last byte of a body and the first byte of the answer.
    pub answer_limit: Duration,
    /// Maximum number of connections in use, at least 1. Further requests wait.
    pub max_connections: usize,
    /// `[protocol://][user:password@]host[:port]`, or an empty string for none. If `None`, the environment
    /// (`HTTPS_PROXY` and similar) decides. `NO_PROXY` applies to both. This machine and metadata services are
    /// never asked through a proxy.
    pub proxy: Option<String>,
    /// PEM certificates to trust in addition to the system's: of authorities or of servers.
    pub root_certificates: Option<Vec<u8>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            stall_limit: Duration::from_secs(30),
            answer_limit: Duration::from_secs(1200),
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
            .field("answer_limit", &self.answer_limit)
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
    limits: Limits,
    /// Maximum number of redirects of one request.
    redirects: usize,
    /// The last progress of any exchange.
    progress: Progress,
    crc32c_of_uploads: bool,
    secrets: Secrets,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) clock: Option<Arc<Clock>>,
    /// Whether a server has answered, so that the addresses are right.
    has_answered: Arc<AtomicBool>,
    proxies: Arc<proxy::Rules>,
    server: Arc<LastServer>,
}

impl CloudHttp {
    /// Creates a client. TLS certificates are always verified.
    ///
    /// # Errors
    ///
    /// [`HttpConfigError`] if the certificates or the proxy are invalid.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpConfigError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(options.root_certificates.as_deref())?)
            .user_agent(USER_AGENT)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.max_connections)
            .pool_idle_timeout(IDLE)
            // `reqwest` would not exclude metadata services from the proxies of the environment.
            .no_proxy();
        // Ends the wait for an answer if the peer has disappeared, or does not read what the system holds.
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(options.connect_timeout);
        }
        let rules = proxy::Rules::new(options.proxy.as_deref(), |name| std::env::var(name).ok());
        for proxy in proxies(&rules, options.proxy.as_deref())? {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| HttpConfigError::Client(innermost(&error)))?;
        Ok(Self {
            client,
            connections: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            limits: Limits {
                stall: options.stall_limit,
                answer: options.answer_limit,
                download: options.connect_timeout,
            },
            redirects: MAX_REDIRECTS,
            progress: Progress::start(),
            crc32c_of_uploads: false,
            secrets: Secrets::default(),
            renewal: None,
            clock: None,
            has_answered: Arc::default(),
            proxies: Arc::new(rules),
            server: Arc::default(),
        })
    }

    /// Adds the CRC-32C of uploaded objects in `x-goog-hash`, which Google verifies before storing them.
    /// `object_store` sends checksums only to S3.
    #[must_use]
    pub fn with_crc32c_of_uploads(self) -> Self {
        Self { crc32c_of_uploads: true, ..self }
    }

    /// Removes `secrets` from the messages of servers. What looks like a credential is removed in any case.
    #[must_use]
    pub fn with_secrets(self, secrets: impl IntoIterator<Item = String>) -> Self {
        Self { secrets: Secrets::new(secrets), ..self }
    }

    /// Loads the credentials of requests again when the server refuses them with status 401 or one of `codes`: see
    /// [`Exchange::renewed`].
    #[must_use]
    pub fn with_renewal(self, credentials: Arc<dyn Renewable>, codes: &'static [&'static str]) -> Self {
        Self { renewal: Some(Renewal { credentials, codes }), ..self }
    }

    /// Corrects `clock` when the server refuses a request and tells another time: see [`Exchange::renewed`].
    #[must_use]
    pub fn with_clock(self, clock: Arc<Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Returns the `reqwest` client, without limits and observation, for requests of other libraries
    /// (credentials).
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns this client for requests to token services.
    pub fn for_tokens(&self) -> TokenHttp {
        TokenHttp::new(Self { has_answered: Arc::default(), ..self.clone() })
    }

    /// Returns this client for requests to a key service: it follows no redirect, since a file key must not reach another
    /// server than the one in the configuration, and does not wait long for an answer.
    #[must_use]
    pub fn for_key_service(self) -> Self {
        let [stall, answer] =
            [self.limits.stall, self.limits.answer].map(|limit| limit.min(KEY_SERVICE_ANSWER));
        let limits = Limits { stall, answer, ..self.limits };
        Self { limits, redirects: 0, ..self }
    }

    /// Sends a request, and sends it again where the server redirects it to.
    async fn follow(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // These signatures contain the host.
        let is_of_aws = |value: &HeaderValue| value.as_bytes().starts_with(b"AWS4-");
        let is_bound = request.headers().get(AUTHORIZATION).is_some_and(is_of_aws);
        for _ in 0..if is_bound { 0 } else { self.redirects } {
            let response = self.exchange(request.clone()).await?;
            let Some(target) = redirect_target(request.uri(), &response) else { return Ok(response) };
            *request.uri_mut() = target;
        }
        self.exchange(request).await
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let progress = Progress::of_exchange(&self.progress);
        let permit = progress.queue(background::connection(&self.connections)).await;
        let permit = permit.ok_or_else(|| protocol("no connection"))?;
        note(|exchange| *exchange = Exchange { requests: exchange.requests + 1, ..Exchange::default() });

        let asked = Asked::of(&request);
        let uri = request.uri().clone();
        let (request, lease) = self.prepare(request, &progress).await?;
        let response = tokio::select! {
            biased;
            response = self.client.execute(request) => {
                match response {
                    Ok(response) => response,
                    Err(error) => return Err(self.explain(&uri, &error).await.into_http()),
                }
            }
            limit = progress.stalled(self.limits) => {
                return Err(TransportError::Stalled { limit }.into_http());
            }
        };
        drop(lease);
        progress.mark();

        let (mut head, incoming) = http::Response::from(response).into_parts();
        self.has_answered.store(true, Ordering::Relaxed);
        note_answer(head.status, &head.headers);
        if !has_plausible_sizes(&head.headers) {
            return Err(protocol("the size in the server's answer is not plausible"));
        }
        let download = DownloadBody::new(incoming, self.limits.download, self.progress.clone(), permit);
        let body = if head.status.is_success() {
            asked.mend(&mut head, download)
        } else {
            let body = self.read_refusal(&uri, &head, download).await;
            if scheme::demands_tls(&uri, head.status, &body) {
                return Err(TransportError::OnlyTls.into_http());
            }
            foreign::note_refusal(&asked.method, &head, &body);
            body.into()
        };
        Ok(HttpResponse::from_parts(head, body))
    }

    async fn explain(&self, uri: &Uri, error: &reqwest::Error) -> TransportError {
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        let secure_proxy = || {
            let proxy = proxy::used(&self.proxies, &uri.to_string());
            proxy.filter(|proxy| proxy.starts_with("https://"))
        };
        match TransportError::from_reqwest(error) {
            // A load balancer or a firewall answers in its place for a while.
            TransportError::NoTls if has_answered => TransportError::connect(error, innermost(error)),
            TransportError::NoTls => secure_proxy().map_or(TransportError::NoTls, |proxy| {
                let reason = format!(
                    "the proxy {proxy}, or the server behind it, does not speak TLS: use http:// for the one that does not"
                );
                TransportError::connect(error, reason)
            }),
            error if has_answered => error,
            error => Box::pin(scheme::explain(&self.client, uri, error)).await,
        }
    }

    /// Converts a request for `reqwest`. Dropping the lease releases the payload.
    async fn prepare(
        &self,
        request: HttpRequest,
        progress: &Progress,
    ) -> Result<(reqwest::Request, Lease), HttpError> {
        let (head, payload) = request.into_parts();
        let url = self.server.url(&head.uri).ok_or_else(|| protocol("the URL is not valid"))?;
        let mut prepared = reqwest::Request::new(head.method, url);
        *prepared.headers_mut() = head.headers;
        let (body, lease) = UploadBody::new(payload, is_lent(), progress.clone()).await?;
        progress.begin();
        // Part uploads, whose URLs have a query, are excluded: Google does not document the header for them.
        if self.crc32c_of_uploads && *prepared.method() == Method::PUT && prepared.url().query().is_none() {
            prepared.headers_mut().extend(body.google_hash().map(|hash| (checksum::GOOGLE, hash)));
        }
        let is_read = matches!(*prepared.method(), Method::GET | Method::HEAD);
        if http_body::Body::is_end_stream(&body) {
            if !is_read {
                progress.all_taken();
            }
        } else {
            *prepared.body_mut() = Some(reqwest::Body::wrap(body));
        }
        Ok((prepared, lease))
    }

    /// Whether the request is worth repeating with another signature or other credentials than those used at `used`.
    fn renews(&self, response: &HttpResponse, code: Option<&str>, used: Instant) -> bool {
        let status = response.status();
        self.clock.as_ref().is_some_and(|clock| clock.refused(status, response.headers(), used))
            || self.renewal.as_ref().is_some_and(|renewal| renewal.renews(status, code, used))
    }

    /// Reads the server's explanation and adds it to the observed exchange. An unreadable body is ignored,
    /// since the status is known.
    async fn read_refusal(&self, uri: &Uri, head: &Parts, download: DownloadBody) -> Bytes {
        let body = beginning(download).await;
        let advice = elsewhere(uri, head).or_else(|| clock::advice(head.status, &head.headers));
        self.note_refusal(&body, advice);
        body
    }

    /// Returns a response whose body turns out to be an error as a refusal with `status`. Its own status says
    /// otherwise.
    pub fn as_refusal(&self, head: Parts, status: StatusCode, body: Bytes) -> HttpResponse {
        note(|exchange| exchange.status = Some(status.as_u16()));
        self.note_refusal(&body, None);
        let mut response = HttpResponse::from_parts(head, body.into());
        *response.status_mut() = status;
        response
    }

    /// As [`one_line`](crate::one_line), and without the [secrets](Self::with_secrets).
    pub fn one_line(&self, text: &str) -> String {
        self.secrets.one_line(text)
    }

    fn note_refusal(&self, body: &[u8], advice: Option<String>) {
        let refusal = error_body::parse(body, &self.secrets);
        note(|exchange| {
            exchange.code = refusal.code;
            exchange.message = with_advice(refusal.message, advice);
            exchange.request_id = exchange.request_id.take().or(refusal.request_id);
        });
    }
}

/// Returns what to do if the bucket is in another region or at another address.
fn elsewhere(uri: &Uri, head: &Parts) -> Option<String> {
    if !head.status.is_redirection() {
        return None;
    }
    let region =
        head.headers.get("x-amz-bucket-region").and_then(|value| error_body::name(value.to_str().ok()?));
    let redirected = || Some(format!("redirected to {}", redirect::server(uri, &head.headers)?));
    region.map(|region| set_region(&region)).or_else(redirected)
}

/// Returns what can be read of an error body, up to [`MAX_ERROR_BODY`].
async fn beginning(download: DownloadBody) -> Bytes {
    let mut download = std::pin::pin!(download);
    let mut body = BytesMut::new();
    while let Some(Ok(frame)) = download.frame().await {
        let Ok(data) = frame.into_data() else { break };
        body.extend_from_slice(&data[..data.len().min(MAX_ERROR_BODY - body.len())]);
        if body.len() == MAX_ERROR_BODY {
            break;
        }
    }
    body.freeze()
}

fn note_answer(status: StatusCode, headers: &HeaderMap) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    note(|exchange| {
        exchange.status = Some(status.as_u16());
        exchange.request_id = text("x-amz-request-id")
            // Services other than S3.
            .or_else(|| text("x-amzn-requestid"))
            .or_else(|| text("x-ms-request-id"))
            .or_else(|| text("x-guploader-uploadid"));
        exchange.retry_after =
            headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
        exchange.checksum = Checksum::of_answer(headers);
        exchange.md5 = md5_of_answer(headers);
        exchange.has_other_e_tag = has_other_e_tag(headers);
        exchange.archive = ArchiveState::of_answer(headers);
        exchange.foreign = status.is_success() && foreign::is_web_page(status, headers);
    });
}

/// Whether each number in the headers about sizes is one that callers can calculate with.
fn has_plausible_sizes(headers: &HeaderMap) -> bool {
    let values = [CONTENT_LENGTH, CONTENT_RANGE].map(|name| headers.get(name));
    let texts = values.into_iter().flatten().filter_map(|value| value.to_str().ok());
    let numbers = texts.flat_map(|text| text.split(|letter: char| !letter.is_ascii_digit()));
    numbers.filter(|digits| !digits.is_empty()).all(|digits| digits.parse::<i64>().is_ok())
}

pub(crate) fn protocol(reason: &str) -> HttpError {
    TransportError::Protocol { reason: reason.to_owned() }.into_http()
}

#[async_trait]
impl HttpService for CloudHttp {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        let uri = request.uri().clone();
        let start = Instant::now();
        let answer = self.follow(request).await;
        if let Ok(response) = &answer {
            note(|exchange| exchange.renewed = self.renews(response, exchange.code.as_deref(), start));
        }
        // Evaluated only if somebody sees the line.
        let path = || crate::names::shown_path(uri.path());
        let milliseconds = || start.elapsed().as_millis();
        match &answer {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::debug!(%method, path = path(), status, milliseconds = milliseconds(), "request");
            }
            Err(error) => {
                tracing::debug!(%method, path = path(), %error, milliseconds = milliseconds(), "request failed");
            }
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
