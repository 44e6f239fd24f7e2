//! What an administrator can do about an error of Google Cloud KMS.

use bucket::{Cause, Operation, StorageError};
use crypto_envelope::KeyServiceError;

const ROLE: &str = "roles/cloudkms.cryptoKeyEncrypterDecrypter";

/// Returns the error of a request that has failed for good.
pub(crate) fn explain(error: StorageError) -> KeyServiceError {
    let cause = advice(&error).map_or_else(|| error.cause.clone(), Cause::Other);
    let is_transient = error.transient;
    let text = StorageError { cause, ..error }.to_string();
    if is_transient { KeyServiceError::Unavailable(text) } else { KeyServiceError::Refused(text) }
}

/// Returns the cause and the remedy, where that of a bucket does not fit.
fn advice(error: &StorageError) -> Option<String> {
    let answer = error.answer.as_deref();
    let code = answer.and_then(|answer| answer.code.as_deref()).unwrap_or_default();
    let message = answer.and_then(|answer| answer.message.as_deref()).unwrap_or_default();
    let advice = match (&error.cause, code) {
        (Cause::Foreign, _) => {
            "the answer does not come from Google Cloud KMS, but from a proxy or another server: check Endpoint"
        }
        (Cause::Denied, _) if error.status() == Some(401) => {
            "the credentials are not valid: check ServiceAccountFile"
        }
        // Only tokens of virtual machines have scopes that can be too narrow.
        (Cause::Denied, _) if message.contains("scope") => {
            "access denied: allow this machine the access scope cloud-platform"
        }
        (Cause::Denied, _) => {
            return Some(format!("access denied: grant the account the role {ROLE} on the key"));
        }
        (Cause::NotFound, _) => "no such key: check Key",
        // Answers have one code or the other, depending on the version of their format.
        (Cause::Refused, "FAILED_PRECONDITION" | "failedPrecondition") => {
            "the version of the key cannot be used: enable it if it is disabled, or restore it if it is to be destroyed"
        }
        (Cause::Refused, "INVALID_ARGUMENT" | "badRequest") if error.operation == Operation::UnwrapKey => {
            "the file key was not wrapped with this key, or the object was altered"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}
