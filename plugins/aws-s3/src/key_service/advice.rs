//! What an administrator can do when AWS KMS refuses a request.
//!
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html#API_Decrypt_Errors>

use super::Action;
use super::key::Key;

/// Returns the cause of a refusal with this code, and what to do.
pub(super) fn advice(code: Option<&str>, action: Action, key: &Key) -> String {
    let Some(code) = code else {
        return "the answer does not come from AWS KMS; check Endpoint in AwsKms".to_owned();
    };
    let text = match code {
        "AccessDeniedException" => {
            let permission = action.permission();
            return format!("access denied: the credentials need the permission {permission} on the key");
        }
        "NotFoundException" | "InvalidArnException" => {
            "there is no such key; check KeyId and Region in AwsKms"
        }
        "DisabledException" => "the key is disabled; enable it",
        "KMSInvalidStateException" | "InvalidStateException" => {
            "the key cannot be used in its present state; if it is to be deleted, cancel that"
        }
        "InvalidKeyUsageException" => {
            "the key must be a symmetric one that encrypts and decrypts (SYMMETRIC_DEFAULT)"
        }
        "IncorrectKeyException" => {
            "the file key is wrapped with another key; name that one in MasterKey or PreviousMasterKeys"
        }
        "InvalidCiphertextException" if key.for_decrypt().is_none() => {
            "the wrapped file key is damaged, or of a key in another account or region"
        }
        "InvalidCiphertextException" => "the wrapped file key is damaged, or of another key",
        "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => {
            "the service does not know the credentials; check AccessKey and SessionToken"
        }
        "ExpiredTokenException" | "ExpiredToken" => "the credentials have expired; renew them",
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException" => {
            "the service refused the signature; check SecretKey and Region"
        }
        _ => "the service refused the request",
    };
    text.to_owned()
}
