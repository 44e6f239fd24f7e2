//! Turns errors of `object_store` into [`StorageError`]s.

use std::error::Error as StdError;

use cloud_http::{CredentialError, Exchange, TransportError};

use crate::error::{Answer, Cause, Operation, StorageError};

/// Error codes for a missing bucket, as opposed to a missing object: S3 and Google, Azure.
const BUCKET_MISSING: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];
/// Azure's error code for a container whose deletion is not complete.
const BEING_DELETED: &str = "ContainerBeingDeleted";
/// Error codes for reads of objects in an archive tier: S3 (with status 403), Azure (with 409).
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"];
/// Error codes of transient failures with a status below 500: the body arrived too slowly or corrupted, or AWS KMS
/// (with status 400) gets too many requests.
const TRANSIENT_REFUSALS: [&str; 6] = [
    "RequestTimeout",
    "OperationTimedOut",
    "BadDigest",
    "XAmzContentChecksumMismatch",
    "Md5Mismatch",
    "ThrottlingException",
];
/// S3's error codes with status 400 that concern the credentials.
const CREDENTIAL_REFUSALS: [&str; 3] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"];
/// Azure's error code for a request over `http://`, with status 400.
const NEEDS_HTTPS: &str = "AccountRequiresHttps";
/// S3's error code with status 503 for the fastest tier of a restore, which is short of capacity, mostly for long.
const NO_EXPEDITED: &str = "GlacierExpeditedRetrievalNotAvailable";
/// S3's error code with status 400 for an object that is too large for one request.
const TOO_LARGE: &str = "EntityTooLarge";

/// The error of a failed attempt.
pub(crate) fn storage_error(
    operation: Operation,
    object: &str,
    error: &object_store::Error,
    exchange: Exchange,
) -> StorageError {
    let refusal = exchange.status.filter(|status| !(200..300).contains(status));
    let code = exchange.code.as_deref().unwrap_or_default();
    let foreign = exchange.foreign;
    let mut classified = if let Some(transport) = TransportError::find(error) {
        from_transport(transport)
    } else if let Some(credentials) = CredentialError::find(error) {
        Classified {
            cause: Cause::NoCredentials(credentials.reason.clone()),
            transient: credentials.transient,
        }
    } else if foreign {
        Classified::transient(Cause::Foreign)
    } else if let Some(status) = refusal {
        from_refusal(status, code)
    } else if exchange.no_length {
        Classified::permanent(Cause::NoLength)
    } else {
        Classified::permanent(from_store(error))
    };
    // An upload does not need an object. Orthanc must not report its failure as a missing attachment.
    if operation == Operation::Create && classified.cause == Cause::NotFound {
        classified.cause = Cause::Refused;
    }
    // The advice to restore the object would not help.
    if operation == Operation::Restore && classified.cause == Cause::Archived {
        classified.cause = Cause::Refused;
    }
    let answer = refusal.or(exchange.status.filter(|_| foreign)).map(|status| {
        let Exchange { code, message, request_id, .. } = exchange;
        Box::new(Answer { status, code, message, request_id })
    });
    StorageError {
        transient: classified.transient,
        answer,
        ..StorageError::new(operation, object, classified.cause)
    }
}

/// The error of an attempt that succeeded according to its status, with an answer that is a web page.
pub(crate) fn web_page() -> object_store::Error {
    object_store::Error::Generic { store: "web page", source: "the answer is a web page".into() }
}

/// Whether the server may have carried out a request that failed with `error`: it was sent, and the answer is
/// missing, cannot be used, or comes from a proxy or a part of the server that knows no better.
pub(crate) fn may_be_done(error: &object_store::Error, exchange: &Exchange) -> bool {
    match TransportError::find(error) {
        Some(
            TransportError::Connect { .. }
            | TransportError::Certificate { .. }
            | TransportError::NoTls
            | TransportError::OnlyTls,
        ) => false,
        Some(_) => true,
        None if CredentialError::find(error).is_some() => false,
        None => exchange.status.is_some_and(|status| matches!(status, 200..300 | 408 | 500 | 502..600)),
    }
}

/// The error of an object that the server refused to delete in its answer to a request for several.
pub(crate) fn refusal(object: String, answer: Answer) -> StorageError {
    let code = answer.code.as_deref().unwrap_or_default();
    let Classified { cause, transient } = from_refusal(answer.status, code);
    let answer = Some(Box::new(answer));
    StorageError { transient, answer, ..StorageError::new(Operation::Remove, object, cause) }
}

struct Classified {
    cause: Cause,
    transient: bool,
}

impl Classified {
    fn permanent(cause: Cause) -> Self {
        Self { cause, transient: false }
    }

    fn transient(cause: Cause) -> Self {
        Self { cause, transient: true }
    }
}

fn from_transport(error: &TransportError) -> Classified {
    let cause = match error {
        TransportError::Certificate { .. } => Cause::Certificate(error.to_string()),
        TransportError::NoTls | TransportError::OnlyTls => Cause::WrongScheme(error.to_string()),
        _ => Cause::Network(error.to_string()),
    };
    Classified { cause, transient: error.is_transient() }
}

fn from_refusal(status: u16, code: &str) -> Classified {
    match status {
        _ if BUCKET_MISSING.contains(&code) => Classified::permanent(Cause::BucketMissing),
        _ if code == BEING_DELETED => Classified::transient(Cause::BucketBeingDeleted),
        _ if ARCHIVED.contains(&code) => Classified::permanent(Cause::Archived),
        _ if TRANSIENT_REFUSALS.contains(&code) => Classified::transient(Cause::Busy),
        _ if code == NEEDS_HTTPS => {
            Classified::permanent(Cause::WrongScheme("the account accepts only https://".to_owned()))
        }
        _ if code == NO_EXPEDITED => Classified::permanent(Cause::Refused),
        _ if code == TOO_LARGE => Classified::permanent(Cause::TooLarge),
        _ if CREDENTIAL_REFUSALS.contains(&code) => Classified::permanent(Cause::Denied),
        404 => Classified::permanent(Cause::NotFound),
        413 => Classified::permanent(Cause::TooLarge),
        416 => Classified::permanent(Cause::OutOfRange),
        401 | 403 => Classified::permanent(Cause::Denied),
        408 | 429 | 500 | 502 | 503 | 504 => Classified::transient(Cause::Busy),
        _ => Classified::permanent(Cause::Refused),
    }
}

/// The cause of an error without an HTTP refusal: local stores, answers that could not be parsed.
fn from_store(error: &object_store::Error) -> Cause {
    match error {
        object_store::Error::NotFound { .. } => Cause::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Cause::Denied
        }
        other => Cause::Other(innermost(other)),
    }
}

/// The text of the last source. The outer errors may quote the server's whole answer.
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
    fn missing_bucket_differs_from_missing_object() {
        assert_eq!(refused(404, "NoSuchKey").cause, Cause::NotFound);
        assert_eq!(refused(404, "NoSuchBucket").cause, Cause::BucketMissing);
        assert_eq!(refused(404, "ContainerNotFound").cause, Cause::BucketMissing);
    }

    #[test]
    fn bucket_being_deleted_is_transient() {
        let error = refused(409, "ContainerBeingDeleted");
        assert_eq!((error.cause, error.transient), (Cause::BucketBeingDeleted, true));
    }

    #[test]
    fn archived_objects_differ_from_denied_ones() {
        for (status, code) in
            [(403, "InvalidObjectState"), (409, "BlobArchived"), (409, "BlobBeingRehydrated")]
        {
            let error = refused(status, code);
            assert_eq!((&error.cause, error.transient), (&Cause::Archived, false), "{code}");
        }
    }

    #[test]
    fn missing_permissions_differ_from_wrong_credentials() {
        for code in ["AccessDenied", "AuthorizationPermissionMismatch", "forbidden"] {
            assert!(refused(403, code).lacks_permission(), "{code}");
        }
        for code in [
            "SignatureDoesNotMatch",
            "InvalidAccessKeyId",
            "AuthenticationFailed",
            "RequestTimeTooSkewed",
            "",
        ] {
            let error = refused(403, code);
            assert_eq!((&error.cause, error.lacks_permission()), (&Cause::Denied, false), "{code}");
        }
        assert!(!refused(401, "AccessDenied").lacks_permission());
        let answer = Answer {
            message: Some("Forbidden: Invalid signature".to_owned()),
            ..*refused(403, "AccessDenied").answer.unwrap()
        };
        let garage = StorageError { answer: Some(Box::new(answer)), ..refused(403, "AccessDenied") };
        assert!(!garage.lacks_permission());
    }

    #[test]
    fn only_unclear_answers_may_hide_a_success() {
        let generic = |source| object_store::Error::Generic { store: "test", source };
        let of_status = |status| {
            let error = generic("refused".into());
            may_be_done(&error, &Exchange { status: Some(status), ..Exchange::default() })
        };
        for unclear in [200, 204, 408, 500, 502, 503, 504] {
            assert!(of_status(unclear), "{unclear}");
        }
        for clear in [301, 400, 401, 403, 404, 409, 412, 429, 501] {
            assert!(!of_status(clear), "{clear}");
        }
        let reason = || "test".to_owned();
        let failed = |source| may_be_done(&generic(source), &Exchange::default());
        assert!(failed(Box::new(TransportError::Interrupted { reason: reason() })));
        assert!(failed(Box::new(TransportError::Stalled { limit: std::time::Duration::ZERO })));
        assert!(!failed(Box::new(TransportError::Connect { server: String::new(), reason: reason() })));
        assert!(!failed(Box::new(CredentialError { reason: reason(), transient: true })));
        assert!(!failed("no answer at all".into()));
    }

    #[test]
    fn only_temporary_failures_are_transient() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(refused(status, "").transient, "{status}");
        }
        assert!(refused(400, "RequestTimeout").transient);
        assert!(refused(400, "ThrottlingException").transient);
        for status in [400, 401, 403, 404, 405, 409, 412, 416, 501] {
            assert!(!refused(status, "").transient, "{status}");
        }
    }
}
