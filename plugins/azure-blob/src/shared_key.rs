//! Signatures with the key of an account, at the server's time. `object_store` signs too, but only with this machine's
//! clock, so its signatures are replaced if that clock is wrong.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cloud_http::{Clock, CloudHttp};
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue};
use object_store::ClientOptions;
use object_store::azure::AzureAccessKey;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use url::Url;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const X_MS_DATE: HeaderName = HeaderName::from_static("x-ms-date");
/// The headers that are signed by their values, in order.
const SIGNED: [HeaderName; 11] = [
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_MD5,
    CONTENT_TYPE,
    DATE,
    IF_MODIFIED_SINCE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// The key of a storage account.
#[derive(Clone)]
pub(crate) struct AccountKey {
    /// For `object_store`.
    pub(crate) key: AzureAccessKey,
    hmac: Arc<hmac::Key>,
}

impl AccountKey {
    /// Parses a key in base64.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(text).ok()?);
        Some(Self { key: AzureAccessKey::try_new(text).ok()?, hmac: Arc::new(hmac) })
    }
}

/// Signs the requests of an account.
#[derive(Clone)]
pub(crate) struct Signer {
    account: String,
    key: AccountKey,
    pub(crate) clock: Arc<Clock>,
}

impl Signer {
    pub(crate) fn new(account: &str, key: AccountKey) -> Self {
        Self { account: account.to_owned(), key, clock: Arc::default() }
    }

    /// Replaces the signature of `object_store`, unless this machine's clock is right.
    pub(crate) fn correct(&self, request: &mut HttpRequest) {
        if self.clock.offset() == 0 {
            return;
        }
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(self.clock.now())) {
            request.headers_mut().insert(X_MS_DATE, date);
        }
        self.sign(request);
    }

    fn sign(&self, request: &mut HttpRequest) {
        let Ok(url) = request.uri().to_string().parse::<Url>() else { return };
        let method = request.method().to_string();
        let headers = request.headers_mut();
        let text = string_to_sign(&method, headers, &url, &self.account);
        let signature = BASE64.encode(hmac::sign(&self.key.hmac, text.as_bytes()));
        if let Ok(mut value) = HeaderValue::from_str(&format!("SharedKey {}:{signature}", self.account)) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("account", &self.account).finish_non_exhaustive()
    }
}

fn string_to_sign(method: &str, headers: &HeaderMap, url: &Url, account: &str) -> String {
    let value =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut text = format!("{method}\n");
    for name in SIGNED {
        match value(&name) {
            "0" if name == CONTENT_LENGTH => {}
            value => text.push_str(value),
        }
        text.push('\n');
    }
    let mut own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("x-ms-")).collect();
    own.sort_by_key(|name| name.as_str());
    for name in own {
        text.extend([name.as_str(), ":", value(name), "\n"]);
    }
    text.extend(["/", account, url.path()]);
    // No request has a parameter twice.
    let mut parameters: Vec<_> = url.query_pairs().collect();
    parameters.sort();
    for (name, value) in parameters {
        text.extend(["\n", &name.to_lowercase(), ":", &value]);
    }
    text
}

/// The HTTP client of an account: corrects signatures if there is a key.
#[derive(Debug, Clone)]
pub(crate) struct AzureHttp {
    pub(crate) http: CloudHttp,
    pub(crate) signer: Option<Signer>,
}

impl AzureHttp {
    /// Replaces the signature of `object_store`, if the server's time is needed.
    pub(crate) fn correct(&self, request: &mut HttpRequest) {
        if let Some(signer) = &self.signer {
            signer.correct(request);
        }
    }
}

#[async_trait]
impl HttpService for AzureHttp {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.correct(&mut request);
        self.http.call(request).await
    }
}

impl HttpConnector for AzureHttp {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use object_store::azure::{AzureAuthorizer, AzureCredential};
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn signatures_are_those_of_object_store() {
        let key = AccountKey::parse("aHVudGVyMg==").unwrap();
        let credential = AzureCredential::AccessKey(key.key.clone());
        let signer = Signer::new("hospital", key);
        for (method, path, headers) in [
            (Method::GET, "/orthanc/a%20b?comp=list&restype=container&Prefix=a%2Fb%C3%A4", vec![]),
            (Method::GET, "/orthanc/a", vec![(RANGE, "bytes=0-9"), (IF_MATCH, "\"e\"")]),
            (Method::PUT, "/orthanc/a?comp=block&blockid=YQ%3D%3D", vec![(CONTENT_LENGTH, "17")]),
            (
                Method::PUT,
                "/hospital/orthanc/a",
                vec![
                    (CONTENT_LENGTH, "0"),
                    (CONTENT_TYPE, "application/xml"),
                    (IF_NONE_MATCH, "*"),
                    (HeaderName::from_static("x-ms-blob-type"), "BlockBlob"),
                    (HeaderName::from_static("x-ms-access-tier"), "Cool"),
                    (CONTENT_MD5, "aHVudGVyMg=="),
                ],
            ),
        ] {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method;
            *request.uri_mut() = format!("https://hospital.blob.core.windows.net{path}").parse().unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            AzureAuthorizer::new(&credential, "hospital").try_authorize(&mut request).unwrap();
            let expected = request.headers_mut().remove(AUTHORIZATION).unwrap();
            signer.sign(&mut request);
            assert_eq!(request.headers()[AUTHORIZATION], expected, "{path}");
            signer.correct(&mut request);
            assert_eq!(request.headers()[AUTHORIZATION], expected, "the clock is right");
        }
    }
}
