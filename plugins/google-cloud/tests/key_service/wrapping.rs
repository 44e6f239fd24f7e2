//! Wrapping and unwrapping.

use crypto_envelope::{KeyServiceError, Service};
use serde_json::json;

use crate::{KEY, Kms};

#[test]
fn wrapped_key_can_be_unwrapped() {
    let kms = Kms::start();
    let (file_key, wrapped) = kms.wrap().unwrap();
    assert_eq!(wrapped.key, KEY);
    assert!(!wrapped.wrapped.windows(32).any(|bytes| bytes == file_key.expose()));
    assert_eq!(kms.options.keys.plaintexts(), [file_key.expose()]);
    // Another process.
    let other = kms.open(&json!({}), &json!({}));
    assert_eq!(kms.unwrap_with(&other, &wrapped).unwrap().expose(), file_key.expose());
    assert_eq!(kms.requests(), (1, 1));
}

#[test]
fn older_versions_unwrap() {
    let kms = Kms::start();
    let keys: Vec<_> = (1..=3)
        .map(|number| {
            let (file_key, wrapped) = kms.wrap().unwrap();
            // The local service begins a ciphertext with the version.
            assert_eq!(wrapped.wrapped[..4], [0, 0, 0, number]);
            kms.options.keys.rotate(KEY);
            (file_key, wrapped)
        })
        .collect();
    for (file_key, wrapped) in &keys {
        assert_eq!(kms.unwrap(wrapped).unwrap().expose(), file_key.expose());
    }
    assert_eq!(kms.requests(), (3, 3));
}

/// The ciphertext is bound to this use of the key by the additional data that the specification names.
#[test]
fn ciphertext_of_another_use_is_refused() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    let bodies = kms.server.last_requests();
    assert_eq!(bodies[0].path, format!("/v1/{KEY}:encrypt"));
    let foreign = kms.options.keys.encrypt(KEY, &[7; 32], b"another use").unwrap();
    let ours = kms.options.keys.encrypt(KEY, &[7; 32], b"orthanc-object-storage A2").unwrap();
    let of = |bytes: Vec<u8>| crypto_envelope::Wrapped { wrapped: bytes, ..wrapped.clone() };
    assert_eq!(kms.unwrap(&of(ours)).unwrap().expose(), &[7; 32]);
    crate::expect_refused(kms.unwrap(&of(foreign)), &["the file key was not wrapped with this key"]);
}

#[test]
fn only_the_configured_key_is_used() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    assert!(kms.service.has_key(KEY));
    for name in [
        "",
        "https://attacker.example/key",
        &format!("{KEY}/cryptoKeyVersions/1"),
        &format!("{KEY}2"),
        &KEY[1..],
        &KEY.to_uppercase(),
        &format!("{KEY}/../other"),
    ] {
        assert!(!kms.service.has_key(name), "{name}");
        let named = crypto_envelope::Wrapped { key: name.to_owned(), ..wrapped.clone() };
        let error = kms.unwrap(&named).unwrap_err();
        let expected = KeyServiceError::NotConfigured { service: Service::GoogleKms, key: name.to_owned() };
        assert_eq!(error, expected);
    }
    assert_eq!(kms.requests(), (1, 0));
}

#[test]
fn credentials_of_the_section_are_the_default() {
    let kms = Kms::start();
    let good = crate::section::<crate::Google>(&kms.server, &json!({}))["ServiceAccountFile"].clone();
    let unknown = tempfile::NamedTempFile::new().unwrap();
    let account = fake_cloud::ServiceAccount::generate().unwrap();
    std::fs::write(unknown.path(), account.json("https://oauth2.googleapis.com").to_string()).unwrap();
    let own = kms.open(&json!({"ServiceAccountFile": unknown.path()}), &json!({"ServiceAccountFile": good}));
    kms.wrap_with(&own).unwrap();
    assert_eq!(kms.requests(), (1, 0));
    let refused = kms.open(&json!({"ServiceAccountFile": unknown.path()}), &json!({}));
    crate::expect_refused(
        kms.wrap_with(&refused),
        &["the credentials are not valid: check ServiceAccountFile (HTTP 401 UNAUTHENTICATED"],
    );
    // The credentials were loaded again once.
    assert_eq!(kms.requests(), (2, 0));
}

#[test]
fn debug_output_contains_no_secret() {
    let kms = Kms::start();
    kms.wrap().unwrap();
    let text = format!("{:?}", kms.service);
    assert_eq!(text, format!("GoogleKms {{ key: {KEY:?}, endpoint: {:?}, .. }}", kms.server.endpoint()));
}
