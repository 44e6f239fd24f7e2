//! Who may ask: access key, session token and the region in the credential scope.

use http::HeaderMap;
use http::request::Parts;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::{S3Host, VirtualHost};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::s3::target::bucket_of_host;

/// The one user of a server. `s3s` checks the signature with its secret key.
#[derive(Debug)]
pub(crate) struct OneUser {
    pub(crate) access_key: String,
    pub(crate) secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneUser {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(self.secret_key.clone());
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

/// Refuses unsigned requests, and requests without the session token where there is one.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    pub(crate) session_token: Option<String>,
}

#[async_trait::async_trait]
impl S3Access for TokenCheck {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let in_query = request.uri().query().and_then(|query| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == "X-Amz-Security-Token")
                .map(|(_, value)| value.into_owned())
        });
        let in_header = header(request.headers(), "x-amz-security-token").map(str::to_owned);
        if in_header.or(in_query) != self.session_token {
            return Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."));
        }
        Ok(())
    }
}

/// Finds buckets in host names below one domain. Any other host name is taken as the server's own.
#[derive(Debug)]
pub(crate) struct BucketHost {
    pub(crate) domain: String,
}

impl S3Host for BucketHost {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match bucket_of_host(host, Some(&self.domain)) {
            Some(bucket) => VirtualHost::new(self.domain.as_str()).with_bucket(bucket),
            None => VirtualHost::new(host),
        })
    }
}

/// Refuses a request that was signed for another region. `s3s` takes any region for granted.
pub(crate) fn check_region(head: &Parts, region: &str) -> Result<(), S3Error> {
    let in_query = || {
        let query = head.uri.query()?;
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == "X-Amz-Credential").map(|(_, value)| value.into_owned())
    };
    let in_header = || {
        let (_, scope) = header(&head.headers, "authorization")?.split_once("Credential=")?;
        Some(scope.split([',', ' ']).next()?.to_owned())
    };
    // The scope is key/date/region/service/aws4_request; the key may hold slashes.
    let Some(scope) = in_header().or_else(in_query) else { return Ok(()) };
    match scope.rsplit('/').nth(2) {
        Some(signed_for) if signed_for != region => Err(S3Error::with_message(
            S3ErrorCode::AuthorizationHeaderMalformed,
            format!(
                "The authorization header is malformed; the region '{signed_for}' is wrong; expecting '{region}'"
            ),
        )),
        _ => Ok(()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
