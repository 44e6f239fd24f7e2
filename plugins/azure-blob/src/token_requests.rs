//! Requests of `object_store` for tokens, which ask for tokens for storage and for nothing else.

use std::borrow::Cow;

use async_trait::async_trait;
use cloud_http::TokenHttp;
use http::Uri;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use url::form_urlencoded;

/// Asks for tokens for a service, in place of those for storage.
#[derive(Debug, Clone)]
pub(crate) struct TokenRequests {
    http: TokenHttp,
    /// Such as `https://vault.azure.net`.
    resource: String,
}

impl TokenRequests {
    pub(crate) fn new(http: TokenHttp, resource: String) -> Self {
        Self { http, resource }
    }

    /// Replaces the service in a form. Entra ID calls it `scope`, a managed identity `resource`.
    fn replaced(&self, form: &[u8]) -> String {
        let pairs = form_urlencoded::parse(form).map(|(name, value)| match &*name {
            "scope" => (name, Cow::from(format!("{}/.default", self.resource))),
            "resource" => (name, Cow::from(self.resource.as_str())),
            _ => (name, value),
        });
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    fn with_replaced_query(&self, uri: &Uri) -> Option<Uri> {
        let query = self.replaced(uri.query()?.as_bytes());
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(format!("{}?{query}", uri.path()).parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

#[async_trait]
impl HttpService for TokenRequests {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(uri) = self.with_replaced_query(request.uri()) {
            *request.uri_mut() = uri;
        }
        let form = request.body().as_bytes().filter(|form| !form.is_empty()).map(|form| self.replaced(form));
        if let Some(form) = form {
            *request.body_mut() = form.into();
        }
        self.http.call(request).await
    }
}

impl HttpConnector for TokenRequests {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
