//! Authorization: access key, session token and the region in the credential scope.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use crate::dialect::Refusal;

/// The only user of a server. `s3s` checks signatures with the secret key.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) access_key: String,
    pub(crate) secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for User {
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

/// Refuses unsigned requests, and requests without the right session token.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    pub(crate) session_token: Option<String>,
    /// Whether everyone can list and read objects.
    pub(crate) is_public: bool,
}

#[async_trait::async_trait]
impl S3Access for TokenCheck {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_none() && self.is_public && request.method() == Method::GET {
            return Ok(());
        }
        if request.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if header(request.headers(), "x-amz-security-token") != self.session_token.as_deref() {
            return Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."));
        }
        Ok(())
    }
}

/// Refuses a request that was signed for another region, which `s3s` would accept.
pub(crate) fn check_region(head: &Parts, region: &str) -> Result<(), Refusal> {
    let scope = || {
        let (_, scope) = header(&head.headers, "authorization")?.split_once("Credential=")?;
        scope.split([',', ' ']).next()
    };
    // The scope is key/date/region/service/aws4_request, and the key may contain slashes.
    match scope().and_then(|scope| scope.rsplit('/').nth(2)) {
        Some(signed_for) if signed_for != region => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "AuthorizationHeaderMalformed",
            &format!(
                "The authorization header is malformed; \
                 the region '{signed_for}' is wrong; expecting '{region}'"
            ),
        )),
        _ => Ok(()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
