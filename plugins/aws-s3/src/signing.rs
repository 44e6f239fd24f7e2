//! Signs requests (AWS Signature Version 4). `object_store` signs too, but only with this machine's clock; `aws-sigv4` derives
//! a key for each request.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::request::hexadecimal;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Last part of the scope of a signature.
const TERMINATION: &str = "aws4_request";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const PAYLOAD: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// Headers that are not signed. Proxies change them: one may send the body in chunks, without its length.
const UNSIGNED_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    USER_AGENT,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    HeaderName::from_static("x-amzn-trace-id"),
];
/// Characters of names and values in a query that are encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const SECONDS_OF_DAY: u64 = 24 * 3600;

type Failed = Box<dyn StdError + Send + Sync>;

/// Signs the requests to one service in one region. Clones share the key of the day.
#[derive(Clone)]
pub(crate) struct Signer {
    credentials: AwsCredentialProvider,
    region: String,
    service: &'static str,
    today: Arc<Mutex<Option<Arc<Today>>>>,
}

/// What the signatures of one day with the same credentials have in common.
struct Today {
    credential: Arc<AwsCredential>,
    /// Days since 1970.
    day: u64,
    /// `20130524`.
    date: String,
    /// `20130524/us-east-1/s3/aws4_request`.
    scope: String,
    key: Key,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with `credentials` for the service that AWS calls `service` in signatures.
    pub(crate) fn new(credentials: AwsCredentialProvider, region: &str, service: &'static str) -> Self {
        Self { credentials, region: region.to_owned(), service, today: Arc::default() }
    }

    pub(crate) fn credentials(&self) -> &AwsCredentialProvider {
        &self.credentials
    }

    /// Signs a request as of `time`. `payload` is the SHA-256 of the body in hexadecimal digits, or `None` if the body is
    /// not to be signed.
    pub(crate) async fn sign(
        &self,
        request: &mut HttpRequest,
        payload: Option<String>,
        time: SystemTime,
    ) -> Result<(), Failed> {
        let credential = self.credentials.get_credential().await?;
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let today = self.today(seconds / SECONDS_OF_DAY, credential)?;
        let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
        let date = format!("{}T{hour:02}{minute:02}{second:02}Z", today.date);

        let uri = request.uri().clone();
        let method = request.method().clone();
        let headers = request.headers_mut();
        headers.insert(DATE, secret(&date)?);
        let payload = payload.map_or(Ok(HeaderValue::from_static(UNSIGNED)), |digest| secret(&digest))?;
        headers.insert(PAYLOAD, payload.clone());
        if let Some(token) = &today.credential.token {
            headers.insert(TOKEN, secret(token)?);
        }
        let signed = SignedHeaders::of(headers, &uri)?;
        let (path, query) = (uri.path(), uri.query().map(canonical_query).unwrap_or_default());
        let names = &signed.names;
        let lines = &signed.lines;
        let method = method.as_str();
        let payload = payload.to_str()?;
        let canonical = [method, "\n", path, "\n", &query, "\n", lines, "\n", names, "\n", payload].concat();
        let digest = hexadecimal(digest(&SHA256, canonical.as_bytes()).as_ref());
        let scope = &today.scope;
        let to_sign = [ALGORITHM, "\n", &date, "\n", scope, "\n", &digest].concat();
        let signature = hexadecimal(sign(&today.key, to_sign.as_bytes()).as_ref());
        let id = &today.credential.key_id;
        let signed_headers = ", SignedHeaders=";
        let parts =
            [ALGORITHM, " Credential=", id, "/", scope, signed_headers, names, ", Signature=", &signature];
        let authorization = parts.concat();
        headers.insert(AUTHORIZATION, secret(&authorization)?);
        Ok(())
    }

    /// Derives the key of a day, unless the last signature was made with it.
    fn today(&self, day: u64, credential: Arc<AwsCredential>) -> Result<Arc<Today>, Failed> {
        let mut latest = self.today.lock();
        if let Some(today) = &*latest
            && today.day == day
            && (Arc::ptr_eq(&today.credential, &credential) || *today.credential == *credential)
        {
            return Ok(Arc::clone(today));
        }
        let midnight = DateTime::from_secs((day * SECONDS_OF_DAY).try_into()?).fmt(Format::DateTime)?;
        let date: String =
            midnight.chars().take_while(|&letter| letter != 'T').filter(|&letter| letter != '-').collect();
        let first = Zeroizing::new(format!("AWS4{}", credential.secret_key));
        let mut key = Key::new(HMAC_SHA256, first.as_bytes());
        for part in [&*date, &*self.region, self.service, TERMINATION] {
            key = Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref());
        }
        let scope = format!("{date}/{}/{}/{TERMINATION}", self.region, self.service);
        let today = Arc::new(Today { credential, day, date, scope, key });
        *latest = Some(Arc::clone(&today));
        Ok(today)
    }
}

/// A header's value that is not shown in debug output.
fn secret(text: &str) -> Result<HeaderValue, Failed> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The headers that are part of a signature.
struct SignedHeaders {
    /// `name;name;name`.
    names: String,
    /// `name:value` for each of them.
    lines: String,
}

impl SignedHeaders {
    fn of(headers: &HeaderMap, uri: &Uri) -> Result<Self, Failed> {
        let authority = uri.authority().ok_or("the URL has no host")?;
        // Clients leave out the port of the scheme.
        let is_default = matches!(
            (uri.scheme_str(), uri.port_u16()),
            (Some("http"), Some(80)) | (Some("https"), Some(443))
        );
        let host = if is_default { authority.host() } else { authority.as_str() };
        let is_signed = |name: &&HeaderName| !UNSIGNED_HEADERS.contains(name) && **name != HOST;
        let mut sorted = Vec::with_capacity(headers.len() + 1);
        sorted.extend(headers.keys().filter(is_signed));
        sorted.push(&HOST);
        sorted.sort_unstable_by_key(|name| name.as_str());
        let mut signed = Self { names: String::with_capacity(128), lines: String::with_capacity(512) };
        for name in sorted {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            let host = (*name == HOST && !headers.contains_key(HOST)).then_some(host);
            signed.add(name, values.chain(host));
        }
        Ok(signed)
    }

    fn add<'a>(&mut self, name: &HeaderName, values: impl Iterator<Item = &'a str>) {
        let mut separator = ':';
        for value in values {
            if separator == ':' {
                self.names.push_str(if self.names.is_empty() { "" } else { ";" });
                self.names.push_str(name.as_str());
                self.lines.push_str(name.as_str());
            }
            self.lines.push(separator);
            self.add_value(value.trim_matches(' '));
            separator = ',';
        }
        if separator == ',' {
            self.lines.push('\n');
        }
    }

    /// Adds a value with single spaces.
    fn add_value(&mut self, value: &str) {
        if !value.contains("  ") {
            return self.lines.push_str(value);
        }
        let words = value.split(' ').filter(|word| !word.is_empty());
        words.enumerate().for_each(|(index, word)| {
            let _ = write!(self.lines, "{}{word}", if index == 0 { "" } else { " " });
        });
    }
}

/// The parameters of a query, encoded and sorted.
fn canonical_query(query: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let parameters = form_urlencoded::parse(query.as_bytes());
    let mut pairs: Vec<_> = parameters.map(|(name, value)| (encode(&name), encode(&value))).collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    };
    use aws_sigv4::sign::v4::SigningParams;
    use http::Request;
    use object_store::StaticCredentialProvider;
    use object_store::client::HttpRequestBody;

    use super::*;

    const DAY: Duration = Duration::from_secs(SECONDS_OF_DAY);

    /// The signature that AWS's own library makes.
    fn expected(
        request: &HttpRequest,
        credential: &AwsCredential,
        payload: Option<&str>,
        time: SystemTime,
    ) -> Vec<(String, String)> {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let AwsCredential { key_id, secret_key, token } = credential;
        let identity = Credentials::new(key_id, secret_key, token.clone(), None, "test").into();
        let parameters = SigningParams::builder().identity(&identity).region("eu-central-1").name("s3");
        let parameters = parameters.time(time).settings(settings).build().unwrap().into();
        let headers = request.headers().iter().filter(|(name, _)| **name != CONTENT_LENGTH);
        let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        let body =
            payload.map_or(SignableBody::UnsignedPayload, |sum| SignableBody::Precomputed(sum.to_owned()));
        let uri = request.uri().to_string();
        let signable = SignableRequest::new(request.method().as_str(), uri, headers, body).unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn credential(secret: &str, token: Option<&str>) -> AwsCredential {
        AwsCredential {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret_key: secret.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    fn signer(secret: &str, token: Option<&str>) -> Signer {
        let provider = StaticCredentialProvider::new(credential(secret, token));
        Signer::new(Arc::new(provider), "eu-central-1", "s3")
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> HttpRequest {
        let begun = Request::builder().method(method).uri(uri);
        let builder = headers.iter().fold(begun, |builder, (name, value)| builder.header(*name, *value));
        builder.body(HttpRequestBody::empty()).unwrap()
    }

    #[tokio::test]
    async fn signatures_are_those_of_the_aws_library() {
        let requests = [
            request("GET", "https://bucket.s3.eu-central-1.amazonaws.com/a/b%20c%2Bd/../%C3%A9", &[]),
            request("GET", "http://127.0.0.1:9000/bucket/a", &[("range", "bytes=0-9"), ("user-agent", "x")]),
            request("GET", "https://example.org:443/bucket", &[("if-match", "\"a\"")]),
            request("GET", "http://example.org:80/bucket?", &[("x-amzn-trace-id", "1")]),
            request(
                "GET",
                "http://example.org:443/bucket?list-type=2&prefix=a%2Fb+c&empty&delimiter=%2F",
                &[],
            ),
            request(
                "PUT",
                "http://[::1]:9000/b/k?uploadId=x%3D~&partNumber=10&partNumber=1",
                &[
                    ("content-length", "7"),
                    ("x-amz-tagging", "a=b&c=d"),
                    ("x-amz-meta-a", "  two   spaces  "),
                    ("x-amz-meta-b", "one"),
                    ("x-amz-meta-b", "two"),
                ],
            ),
        ];
        let start = SystemTime::UNIX_EPOCH + 19_782 * DAY + Duration::from_secs(3723);
        for (secret, token) in [("secret", None), ("other/secret", Some("token"))] {
            let signer = signer(secret, token);
            for (time, payload) in [(start, None), (start + DAY, Some("0123abc")), (start, None)] {
                for request in &requests {
                    let mut signed = request.clone();
                    signer.sign(&mut signed, payload.map(str::to_owned), time).await.unwrap();
                    for (name, value) in expected(request, &credential(secret, token), payload, time) {
                        assert_eq!(signed.headers()[&name], value, "{name} of {}", request.uri());
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn key_follows_day_and_credentials() {
        let signer = signer("secret", None);
        let key = |day, secret| signer.today(day, Arc::new(credential(secret, None))).unwrap();
        let first = key(1, "secret");
        assert_eq!((&*first.date, &*first.scope), ("19700102", "19700102/eu-central-1/s3/aws4_request"));
        assert!(Arc::ptr_eq(&first, &key(1, "secret")));
        assert!(!Arc::ptr_eq(&first, &key(2, "secret")));
        assert!(!Arc::ptr_eq(&key(1, "secret"), &key(1, "other")));
    }
}
