//! What a cloud's plugin asks its server for the audit.

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cloud_http::{CloudHttp, CredentialError, Exchange, TransportError, observe, small_body};
use http::HeaderMap;
use object_store::client::{HttpRequest, HttpResponse, HttpService as _};
use security_audit::{Anonymous, Answer, PublicAccess, Versions};

/// Error codes of servers that do not have a feature, besides the statuses 405 and 501.
const UNSUPPORTED: [&str; 3] = ["NotImplemented", "MethodNotAllowed", "UnsupportedOperation"];

/// Error codes with which servers refuse a request since it has no credentials. Another refusal may be one of a proxy, or
/// have another reason.
const REFUSALS: [&str; 8] = [
    // S3, Google, and other S3 servers.
    "AccessDenied",
    "AllAccessDisabled",
    "UnauthorizedAccess",
    // Google.
    "AuthenticationRequired",
    // Azure.
    "NoAuthenticationInformation",
    "InvalidAuthenticationInfo",
    "AuthenticationFailed",
    "AuthorizationFailure",
];
/// Error codes for an object in an archive, which servers send to those who may read it.
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"];

/// Questions about a bucket. Each takes one request or two, and is not repeated.
#[async_trait]
pub trait BucketAudit: Send + Sync {
    /// Asks for a list of objects without credentials.
    async fn anonymous_list(&self) -> Answer<Anonymous>;

    /// Asks for the object `name`, which exists, without credentials.
    async fn anonymous_read(&self, name: &str) -> Answer<Anonymous>;

    /// Whether the bucket can be made public.
    async fn public_access(&self) -> Answer<PublicAccess>;

    /// What remains of deleted objects below `root`.
    async fn versions(&self, root: &str) -> Answer<Versions>;

    /// Days until the parts of an unfinished upload below `root` are deleted.
    async fn unfinished_uploads(&self, root: &str) -> Answer<Option<u64>>;
}

impl fmt::Debug for dyn BucketAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketAudit")
    }
}

/// The server's reply to a question.
#[derive(Debug)]
pub enum Reply {
    /// It has answered.
    Answered(Box<HeaderMap>, Bytes),
    /// It has refused: the status, and the error code if there is one.
    Refused(u16, Option<String>),
    /// There is no answer, or none of a storage server.
    Failed(String),
}

impl Reply {
    /// Sends a request, and reads the answer.
    pub async fn of<E: StdError + 'static>(request: impl Future<Output = Result<HttpResponse, E>>) -> Self {
        let (answer, exchange) = observe(request).await;
        let response = match without_body(answer, exchange) {
            Ok(response) => response,
            Err(reply) => return reply,
        };
        let headers = Box::new(response.headers().clone());
        match small_body(response).await {
            Ok(body) => Self::Answered(headers, body),
            Err(error) => Self::Failed(reason(&error)),
        }
    }

    /// Why there is no answer, which requires `permission`.
    pub fn unanswered<T>(self, permission: &'static str) -> Answer<T> {
        match self {
            Self::Refused(401 | 403, _) => Answer::Denied(permission),
            Self::Refused(405 | 501, _) => Answer::NotSupported,
            Self::Refused(_, Some(code)) if UNSUPPORTED.contains(&code.as_str()) => Answer::NotSupported,
            Self::Refused(status, code) => Answer::Unknown(shown(status, code.as_deref())),
            Self::Failed(reason) => Answer::Unknown(reason),
            Self::Answered(..) => Answer::Unknown("the server's answer is not understood".to_owned()),
        }
    }
}

/// Sends a request that has no credentials. `refusals` are the codes of refusals with other statuses than 401
/// and 403.
pub async fn anonymous(http: &CloudHttp, request: HttpRequest, refusals: &[&str]) -> Answer<Anonymous> {
    let http = http.anonymous();
    let (answer, exchange) = observe(http.call(request)).await;
    match without_body(answer, exchange) {
        Ok(_) => Answer::Known(Anonymous::Allowed),
        Err(Reply::Refused(status, code)) => without_credentials(status, code.as_deref(), refusals),
        Err(reply) => reply.unanswered(""),
    }
}

/// What an error means for a request without credentials. Only codes that are known to be a refusal count.
fn without_credentials(status: u16, code: Option<&str>, refusals: &[&str]) -> Answer<Anonymous> {
    let text = code.unwrap_or_default();
    match status {
        // The object may be read, but has no byte.
        416 => Answer::Known(Anonymous::Allowed),
        _ if ARCHIVED.contains(&text) => Answer::Known(Anonymous::Allowed),
        401 | 403 if REFUSALS.contains(&text) => Answer::Known(Anonymous::Refused(shown(status, code))),
        _ if refusals.contains(&text) => Answer::Known(Anonymous::Refused(shown(status, code))),
        _ => Answer::Unknown(shown(status, code)),
    }
}

/// The answer to a request, unless it is a refusal or not one of a storage server.
fn without_body<E: StdError + 'static>(
    answer: Result<HttpResponse, E>,
    exchange: Exchange,
) -> Result<HttpResponse, Reply> {
    let foreign = || Reply::Failed("the answer is not one of a storage server".to_owned());
    match (answer, exchange.status) {
        // Only for objects, other codes than those of a missing one are suspicious.
        _ if exchange.foreign && exchange.code.is_none() => Err(foreign()),
        (Ok(response), _) if response.status().is_success() => Ok(response),
        (_, Some(status)) if !(200..300).contains(&status) => Err(Reply::Refused(status, exchange.code)),
        (Err(error), _) => Err(Reply::Failed(reason(&error))),
        (Ok(_), _) => Err(foreign()),
    }
}

/// Only these errors have messages that are known to have no secrets.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let transport = TransportError::find(error).map(ToString::to_string);
    let credentials = || CredentialError::find(error).map(ToString::to_string);
    transport.or_else(credentials).unwrap_or_else(|| "the request failed".to_owned())
}

fn shown(status: u16, code: Option<&str>) -> String {
    code.map_or_else(|| format!("HTTP {status}"), |code| format!("HTTP {status} {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: Option<&str>) -> Answer<()> {
        Reply::Refused(status, code.map(str::to_owned)).unanswered("the permission")
    }

    #[test]
    fn refusals_have_different_meanings() {
        assert_eq!(answer(403, Some("AccessDenied")), Answer::Denied("the permission"));
        assert_eq!(answer(401, None), Answer::Denied("the permission"));
        assert_eq!(answer(501, Some("NotImplemented")), Answer::NotSupported);
        assert_eq!(answer(405, None), Answer::NotSupported);
        assert_eq!(answer(400, Some("NotImplemented")), Answer::NotSupported);
        assert_eq!(
            answer(400, Some("InvalidRequest")),
            Answer::Unknown("HTTP 400 InvalidRequest".to_owned())
        );
        assert_eq!(answer(503, None), Answer::Unknown("HTTP 503".to_owned()));
    }

    #[test]
    fn only_known_refusals_protect() {
        let allowed = Answer::Known(Anonymous::Allowed);
        for (status, code, expected) in [
            (403, Some("InvalidObjectState"), allowed.clone()),
            (409, Some("BlobArchived"), allowed.clone()),
            (416, Some("InvalidRange"), allowed),
            (
                403,
                Some("AccessDenied"),
                Answer::Known(Anonymous::Refused("HTTP 403 AccessDenied".to_owned())),
            ),
            (
                404,
                Some("ResourceNotFound"),
                Answer::Known(Anonymous::Refused("HTTP 404 ResourceNotFound".to_owned())),
            ),
            // A page of a proxy.
            (403, None, Answer::Unknown("HTTP 403".to_owned())),
            (401, None, Answer::Unknown("HTTP 401".to_owned())),
            (403, Some("RequestTimeTooSkewed"), Answer::Unknown("HTTP 403 RequestTimeTooSkewed".to_owned())),
            (404, Some("NoSuchKey"), Answer::Unknown("HTTP 404 NoSuchKey".to_owned())),
            (503, Some("AccessDenied"), Answer::Unknown("HTTP 503 AccessDenied".to_owned())),
        ] {
            assert_eq!(
                without_credentials(status, code, &["ResourceNotFound"]),
                expected,
                "{status} {code:?}"
            );
        }
    }
}
