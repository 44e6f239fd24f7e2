//! Adapts the plugin's HTTP client to the AWS SDK, which then requests tokens and roles with the same rules for
//! proxies, the same certificates and without a second TLS stack.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

/// The addresses of EC2's metadata service.
const METADATA: [&str; 2] = ["169.254.169.254", "[fd00:ec2::254]"];

/// Creates connectors that share one `reqwest` client.
#[derive(Debug, Clone)]
pub(crate) struct ReqwestClient {
    client: reqwest::Client,
    metadata: Arc<Mutex<Metadata>>,
}

/// What is known of EC2's metadata service, which is asked when no other source of credentials is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// The last request, if any, was sent to another service.
    #[default]
    NotAsked,
    /// It did not answer.
    Silent,
    /// It answered, or another service at its address.
    Answered,
}

impl ReqwestClient {
    pub(crate) fn new(client: reqwest::Client) -> Self {
        Self { client, metadata: Arc::default() }
    }

    /// Returns how the last request ended, if it was to EC2's metadata service.
    pub(crate) fn metadata(&self) -> Metadata {
        *self.metadata.lock()
    }
}

impl HttpClient for ReqwestClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Only the sum matters: how long to wait for a metadata service that does not exist on this machine.
        let timeout = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => None,
            (connect, read) => Some(connect.unwrap_or_default() + read.unwrap_or_default()),
        };
        SharedHttpConnector::new(Connector { client: self.clone(), timeout })
    }
}

#[derive(Debug)]
struct Connector {
    client: ReqwestClient,
    timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let ReqwestClient { client, metadata } = self.client.clone();
        let timeout = self.timeout;
        HttpConnectorFuture::new(async move {
            let mut converted = convert(request)?;
            *converted.timeout_mut() = timeout;
            let is_metadata = converted.url().host_str().is_some_and(|host| METADATA.contains(&host));
            let note = |answer| *metadata.lock() = if is_metadata { answer } else { Metadata::NotAsked };
            note(Metadata::Silent);
            let mut response = client.execute(converted).await.map_err(failed)?;
            note(Metadata::Answered);
            let mut answer = http::Response::new(SdkBody::empty());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            cap_lifetime(answer.headers_mut());
            *answer.body_mut() = SdkBody::from(response.bytes().await.map_err(failed)?);
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Caps the lifetime of a session with EC2's metadata service at its documented maximum. The SDK adds it to the current
/// time without a check for overflow.
fn cap_lifetime(headers: &mut HeaderMap) {
    const LIFETIME: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
    const LONGEST: u64 = 6 * 3600;
    let seconds = headers.get(&LIFETIME).and_then(|value| value.to_str().ok()?.parse().ok());
    if seconds.is_some_and(|seconds: u64| seconds > LONGEST) {
        headers.insert(LIFETIME, LONGEST.into());
    }
}

fn convert(request: HttpRequest) -> Result<reqwest::Request, ConnectorError> {
    let unusable = |reason: &'static str| ConnectorError::user(reason.into());
    let standard = request.try_into_http1x().map_err(|_| unusable("the request is not valid"))?;
    let (parts, body) = standard.into_parts();
    let url = parts.uri.to_string().parse().map_err(|_| unusable("the URL is not valid"))?;
    let mut converted = reqwest::Request::new(parts.method, url);
    *converted.headers_mut() = parts.headers;
    let bytes = body.bytes().ok_or_else(|| unusable("the body is a stream"))?.to_vec();
    if !bytes.is_empty() {
        *converted.body_mut() = Some(bytes.into());
    }
    Ok(converted)
}

fn failed(error: reqwest::Error) -> ConnectorError {
    if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else if error.is_connect() || error.is_body() {
        ConnectorError::io(error.into())
    } else {
        ConnectorError::other(error.into(), None)
    }
}
