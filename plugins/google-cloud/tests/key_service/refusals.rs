//! Requests that the service refuses: one attempt, and what the administrator can do.

use conformance::{Answer, SmallServer};
use crypto_envelope::Wrapped;
use fake_cloud::Fault;
use serde_json::json;

use crate::{KEY, Kms, expect_refused};

#[test]
fn missing_permission() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    kms.requests();
    kms.options.keys.deny(KEY, true);
    let role =
        "access denied: grant the account the role roles/cloudkms.cryptoKeyEncrypterDecrypter on the key";
    expect_refused(
        kms.wrap(),
        &["cannot wrap a file key with", role, "HTTP 403 PERMISSION_DENIED", "useToEncrypt"],
    );
    expect_refused(kms.unwrap(&wrapped), &["cannot unwrap a file key with", role, "useToDecrypt"]);
    assert_eq!(kms.requests(), (1, 1));
}

#[test]
fn narrow_scope_of_the_machine() {
    let kms = Kms::start();
    let text = "Request had insufficient authentication scopes.";
    let server = SmallServer::start(move |_| {
        let error = json!({"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}});
        (403, error.to_string())
    })
    .unwrap();
    let service = kms.open(&json!({}), &json!({"Endpoint": server.url("")}));
    expect_refused(kms.wrap_with(&service), &["allow this machine the access scope cloud-platform", text]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn disabled_version() {
    let kms = Kms::start();
    let (_, old) = kms.wrap().unwrap();
    kms.options.keys.rotate(KEY);
    let (file_key, new) = kms.wrap().unwrap();
    kms.requests();
    kms.options.keys.enable(KEY, 1, false);
    let remedy = "the version of the key cannot be used: enable it";
    expect_refused(
        kms.unwrap(&old),
        &[remedy, "FAILED_PRECONDITION", "cryptoKeyVersions/1 is not enabled, current state is: DISABLED"],
    );
    assert_eq!(kms.unwrap(&new).unwrap().expose(), file_key.expose());
    kms.wrap().unwrap();
    kms.options.keys.enable(KEY, 2, false);
    expect_refused(kms.wrap(), &[remedy, "cryptoKeyVersions/2"]);
    assert_eq!(kms.requests(), (2, 2));
    kms.options.keys.enable(KEY, 1, true);
    kms.unwrap(&old).unwrap();
}

#[test]
fn unknown_key() {
    let kms = Kms::start();
    let name = KEY.replace("master", "other");
    let service = kms.open(&json!({}), &json!({ "Key": name }));
    let error = kms.wrap_with(&service).unwrap_err();
    let expected = format!(
        "cannot wrap a file key with Google Cloud KMS ({name}): no such key: check Key (HTTP 404 NOT_FOUND: \
         CryptoKey {name} not found.)"
    );
    assert_eq!((error.to_string(), error.is_transient()), (expected, false));
    assert_eq!(kms.requests(), (1, 0));
}

#[test]
fn ciphertext_of_another_key() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    let name = KEY.replace("master", "other");
    kms.options.keys.rotate(&name);
    let other = kms.open(&json!({}), &json!({ "Key": name }));
    let (_, of_other) = kms.wrap_with(&other).unwrap();
    kms.requests();
    let mut damaged = wrapped.clone();
    *damaged.wrapped.last_mut().unwrap() ^= 1;
    let foreign = Wrapped { wrapped: of_other.wrapped, ..wrapped.clone() };
    let truncated = Wrapped { wrapped: wrapped.wrapped[..3].to_vec(), ..wrapped };
    for unusable in [damaged, foreign, truncated] {
        expect_refused(
            kms.unwrap(&unusable),
            &[
                "the file key was not wrapped with this key, or the object was altered",
                "HTTP 400 INVALID_ARGUMENT",
            ],
        );
    }
    assert_eq!(kms.requests(), (0, 3));
}

/// Older formats of answers have other codes.
#[test]
fn codes_of_both_formats_are_known() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    for (code, text) in [("failedPrecondition", "enable it"), ("badRequest", "was not wrapped with this key")]
    {
        kms.fault(Fault::status(400, code), 1);
        expect_refused(kms.unwrap(&wrapped), &[text]);
    }
}

/// A redirect could lead the token and the file key to another server.
#[test]
fn redirects_are_not_followed() {
    let kms = Kms::start();
    let other = SmallServer::start(|_| (200, "{}".to_owned())).unwrap();
    let target = other.url("/v1/elsewhere:encrypt");
    let server = SmallServer::start(move |request| {
        let path = request.target.trim_start_matches("POST ").replace("/v1/", "/v2/");
        let location = if request.target.contains("/v2/") { target.clone() } else { path };
        Answer(307, vec![("Location", location)], String::new())
    })
    .unwrap();
    let service = kms.open(&json!({}), &json!({"Endpoint": server.url("")}));
    expect_refused(kms.wrap_with(&service), &["HTTP 307"]);
    assert_eq!((server.requests().len(), other.requests().len()), (1, 0));
}
