//! What an error of `object_store` means for the engine.

use std::error::Error as StdError;

use cloud_http::{CredentialError, Exchange, TransportError};

use crate::error::{Answer, Cause, Operation, StorageError};

/// Error codes that say that the bucket is missing, not the object: S3 and Google, Azure.
const BUCKET_MISSING: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];
/// Error codes with a status below 500 that heal by themselves: the body came too slowly or damaged.
const TRANSIENT_REFUSALS: [&str; 5] =
    ["RequestTimeout", "OperationTimedOut", "BadDigest", "XAmzContentChecksumMismatch", "Md5Mismatch"];
/// Error codes of S3 with status 400 that are about the credentials.
const CREDENTIAL_REFUSALS: [&str; 3] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"];

/// Turns a failed attempt into an error of the engine.
pub(crate) fn storage_error(
    operation: Operation,
    object: &str,
    error: &object_store::Error,
    exchange: Exchange,
) -> StorageError {
    let refusal = exchange.status.filter(|status| !(200..300).contains(status));
    let code = exchange.code.as_deref().unwrap_or_default();
    let (cause, transient) = if let Some(transport) = TransportError::find(error) {
        from_transport(transport)
    } else if let Some(credentials) = CredentialError::find(error) {
        (Cause::NoCredentials(credentials.reason.clone()), credentials.transient)
    } else if let Some(status) = refusal {
        from_refusal(status, code)
    } else {
        (from_store(error), false)
    };
    let answer = refusal.map(|status| {
        let Exchange { code, message, request_id, .. } = exchange;
        Box::new(Answer { status, code, message, request_id })
    });
    StorageError { operation, object: object.to_owned(), cause, transient, answer, attempts: 1 }
}

fn from_transport(error: &TransportError) -> (Cause, bool) {
    let cause = match error {
        TransportError::Certificate { .. } => Cause::Certificate(error.to_string()),
        _ => Cause::Network(error.to_string()),
    };
    (cause, error.is_transient())
}

fn from_refusal(status: u16, code: &str) -> (Cause, bool) {
    match status {
        _ if BUCKET_MISSING.contains(&code) => (Cause::BucketMissing, false),
        _ if TRANSIENT_REFUSALS.contains(&code) => (Cause::Busy, true),
        _ if CREDENTIAL_REFUSALS.contains(&code) => (Cause::Denied, false),
        404 => (Cause::NotFound, false),
        416 => (Cause::OutOfRange, false),
        401 | 403 => (Cause::Denied, false),
        408 | 429 | 500 | 502 | 503 | 504 => (Cause::Busy, true),
        _ => (Cause::Refused, false),
    }
}

/// Errors without an answer of a server: local storages, answers that could not be understood.
fn from_store(error: &object_store::Error) -> Cause {
    match error {
        object_store::Error::NotFound { .. } => Cause::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Cause::Denied
        }
        other => Cause::Other(innermost(other)),
    }
}

/// The text of the last source. The errors around it may quote whole answers of the server.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| (*error).source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> StorageError {
        let exchange = Exchange {
            status: Some(status),
            code: Some(code.to_owned()),
            requests: 1,
            ..Exchange::default()
        };
        let error =
            object_store::Error::NotImplemented { operation: String::new(), implementer: String::new() };
        storage_error(Operation::Read, "s3://bucket/name", &error, exchange)
    }

    #[test]
    fn a_missing_bucket_is_told_from_a_missing_object() {
        assert_eq!(refused(404, "NoSuchKey").cause, Cause::NotFound);
        assert_eq!(refused(404, "NoSuchBucket").cause, Cause::BucketMissing);
        assert_eq!(refused(404, "ContainerNotFound").cause, Cause::BucketMissing);
    }

    #[test]
    fn what_may_heal_is_transient_and_nothing_else() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(refused(status, "").transient, "{status}");
        }
        assert!(refused(400, "RequestTimeout").transient);
        for status in [400, 401, 403, 404, 405, 409, 412, 416, 501] {
            assert!(!refused(status, "").transient, "{status}");
        }
    }

    #[test]
    fn the_line_for_the_log_has_all_that_a_support_call_needs() {
        let mut error = refused(403, "AccessDenied");
        error.answer = Some(Box::new(Answer {
            message: Some("Access Denied".to_owned()),
            request_id: Some("4442587FB7D0A2F9".to_owned()),
            ..*error.answer.unwrap()
        }));
        error.attempts = 3;
        assert_eq!(
            error.to_string(),
            "cannot read s3://bucket/name: access denied: check the credentials and their permissions on the bucket \
             (HTTP 403 AccessDenied: Access Denied, request 4442587FB7D0A2F9), after 3 attempts"
        );
    }
}
