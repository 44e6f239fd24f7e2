//! A snapshot of the messages about AWS KMS.

use std::fmt::Write as _;

use serde_json::json;
use storage_plugin::Section;

use super::documents::Unusable;
use super::{Action, Key, Options, advice};

#[test]
fn messages_match_the_snapshot() {
    let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let mut snapshot = String::new();
    for service in [
        json!({}),
        json!({"KeyID": arn}),
        json!({"KeyId": "https://hunter2"}),
        json!({"KeyId": arn, "Region": "us-east-1"}),
        json!({"KeyId": "alias/images", "Region": "eu-central-1a"}),
        json!({"KeyId": arn, "Endpoint": "http://kms.example.org"}),
        json!({"KeyId": arn, "Endpoint": "https://kms.example.org/path"}),
        json!({"KeyId": arn, "AccessKey": "hunter2"}),
        json!({"KeyId": arn, "SessionToken": "hunter2"}),
    ] {
        let configuration = json!({"AwsKms": service, "AwsS3Storage": {"Region": "eu-central-1"}});
        let section = |name| Section::find(configuration.as_object().unwrap(), name).unwrap().unwrap();
        let error = Options::read(&mut section("AwsKms"), &mut section("AwsS3Storage")).unwrap_err();
        let message = error.to_string();
        assert!(!message.contains("hunter2"), "{message}");
        writeln!(snapshot, "{service}\n    {message}").unwrap();
    }
    let key = |name| Key::parse(name).unwrap();
    for code in [
        "AccessDeniedException",
        "NotFoundException",
        "DisabledException",
        "KMSInvalidStateException",
        "InvalidKeyUsageException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "ValidationException",
    ] {
        writeln!(snapshot, "{code}\n    {}", advice(Some(code), Action::Decrypt, &key(arn))).unwrap();
    }
    let code = "InvalidCiphertextException";
    let of_alias = advice(Some(code), Action::Decrypt, &key("alias/images"));
    writeln!(snapshot, "{code}, with an alias\n    {of_alias}").unwrap();
    writeln!(snapshot, "no code\n    {}", advice(None, Action::Encrypt, &key(arn))).unwrap();
    for unusable in [Unusable::NoCiphertext, Unusable::NoFileKey, Unusable::OtherAccount] {
        writeln!(snapshot, "{unusable:?}\n    {unusable}").unwrap();
    }
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("aws-kms", snapshot) });
}
