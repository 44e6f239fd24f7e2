//! The HTTP client of the plugin, for the AWS SDK: so that tokens and roles are fetched through the same proxy, with the
//! same certificates, and without a second TLS stack.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

/// Makes connectors on one `reqwest` client.
#[derive(Debug, Clone)]
pub(crate) struct ReqwestClient(reqwest::Client);

impl ReqwestClient {
    pub(crate) fn new(client: reqwest::Client) -> Self {
        Self(client)
    }
}

impl HttpClient for ReqwestClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Only the sum matters here: how long a metadata service that does not exist on this machine is waited for.
        let timeout = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => None,
            (connect, read) => Some(connect.unwrap_or_default() + read.unwrap_or_default()),
        };
        SharedHttpConnector::new(Connector { client: self.0.clone(), timeout })
    }
}

#[derive(Debug)]
struct Connector {
    client: reqwest::Client,
    timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, timeout) = (self.client.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let mut request = convert(request)?;
            *request.timeout_mut() = timeout;
            let response = client.execute(request).await.map_err(failed)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut answer = http::Response::new(SdkBody::from(response.bytes().await.map_err(failed)?));
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn convert(request: HttpRequest) -> Result<reqwest::Request, ConnectorError> {
    let unusable = |reason: &'static str| ConnectorError::user(reason.into());
    let request = request.try_into_http1x().map_err(|_| unusable("the request is not valid"))?;
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse().map_err(|_| unusable("the URL is not valid"))?;
    let mut converted = reqwest::Request::new(parts.method, url);
    *converted.headers_mut() = parts.headers;
    let body = body.bytes().ok_or_else(|| unusable("the body is a stream"))?.to_vec();
    if !body.is_empty() {
        *converted.body_mut() = Some(body.into());
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
