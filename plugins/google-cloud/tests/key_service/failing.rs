//! A service that is busy, silent, unreachable or answers nonsense.

use std::time::{Duration, Instant};

use conformance::{Answer, SmallServer};
use crypto_envelope::KeyServiceError;
use fake_cloud::{Fault, Odd};
use serde_json::{Value, json};

use crate::{KEY, Kms, expect_refused, expect_unavailable};

fn busy(seconds: u64) -> Fault {
    let s3_code = "RESOURCE_EXHAUSTED".to_owned();
    Fault::Status { code: 429, s3_code, retry_after_seconds: Some(seconds) }
}

#[test]
fn transient_failures_are_retried() {
    let kms = Kms::with(&json!({}));
    let (file_key, wrapped) = kms.wrap().unwrap();
    kms.requests();
    for fault in [
        Fault::status(429, "RESOURCE_EXHAUSTED"),
        Fault::status(500, "INTERNAL"),
        Fault::status(502, "UNKNOWN"),
        Fault::status(503, "UNAVAILABLE"),
        Fault::status(504, "DEADLINE_EXCEEDED"),
        Fault::CloseBeforeResponse,
        Fault::CloseAfterRequestBytes(0),
        Fault::CloseAfterResponseBytes(20),
        Fault::ResetAfterResponseBytes(20),
        Fault::Odd(Odd::WebPage(200)),
        Fault::Odd(Odd::WebPage(503)),
    ] {
        let rule = kms.fault(fault.clone(), 2);
        assert_eq!(kms.unwrap(&wrapped).unwrap().expose(), file_key.expose());
        assert_eq!((rule.fired(), kms.requests()), (2, (0, 3)), "{fault:?}");
        kms.fault(fault.clone(), 1);
        kms.wrap().unwrap();
        assert_eq!(kms.requests(), (2, 0), "{fault:?}");
    }
}

#[test]
fn retry_after_is_respected() {
    let kms = Kms::with(&json!({}));
    kms.fault(busy(1), 1);
    let start = Instant::now();
    kms.wrap().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(kms.requests(), (2, 0));
    // Longer than the patience.
    kms.fault(busy(60), 1);
    expect_unavailable(kms.wrap(), &["temporarily unavailable (HTTP 429 RESOURCE_EXHAUSTED"]);
    assert_eq!(kms.requests(), (1, 0));
}

#[test]
fn outage_ends_with_the_patience() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    let rule = kms.fault(Fault::status(503, "UNAVAILABLE"), usize::MAX);
    expect_unavailable(kms.wrap(), &["temporarily unavailable (HTTP 503 UNAVAILABLE", "attempts"]);
    let fired = rule.fired();
    assert!((2..=11).contains(&fired), "{fired}");
    kms.server.faults().clear();
    kms.fault(Fault::Delay(Duration::from_secs(60)), usize::MAX);
    expect_unavailable(kms.wrap(), &["no answer for 2 s (OutageTimeout)"]);
    kms.server.faults().clear();
    kms.fault(Fault::StallResponseAfter(10), usize::MAX);
    expect_unavailable(kms.unwrap(&wrapped), &["2 s (OutageTimeout)"]);
    kms.server.faults().clear();
    kms.server.stop();
    expect_unavailable(kms.unwrap(&wrapped), &["cannot connect to 127.0.0.1"]);
    kms.server.start_again().unwrap();
    kms.unwrap(&wrapped).unwrap();
}

/// Answers of a busy service are signs of it, but a store does not wait any longer for them.
#[test]
fn slow_refusals_end_with_the_patience() {
    let kms = Kms::start();
    kms.server.latency(Duration::from_millis(1500));
    let rule = kms.fault(Fault::status(503, "UNAVAILABLE"), usize::MAX);
    expect_unavailable(kms.wrap(), &["no answer for 2 s (OutageTimeout)"]);
    assert!(rule.fired() <= 2, "{}", rule.fired());
}

/// A connection whose other end has disappeared costs ten seconds, not the whole patience.
#[test]
fn silent_connection_is_replaced() {
    let kms = Kms::with(&json!({}));
    kms.fault(Fault::Delay(Duration::from_secs(300)), 1);
    kms.wrap().unwrap();
    assert_eq!(kms.requests(), (2, 0));
}

/// With `MaxRetries` alone there is no limit for an outage, but each attempt ends.
#[test]
fn number_of_retries_is_respected() {
    let kms = Kms::with(&json!({"MaxRetries": 1}));
    let rule = kms.fault(Fault::status(503, "UNAVAILABLE"), usize::MAX);
    expect_unavailable(kms.wrap(), &["after 2 attempts"]);
    assert_eq!(rule.fired(), 2);
}

#[test]
fn refused_token_is_renewed_once() {
    let kms = Kms::start();
    kms.fault(Fault::status(401, "UNAUTHENTICATED"), 1);
    kms.wrap().unwrap();
    assert_eq!(kms.requests(), (2, 0));
    let kms = Kms::start();
    kms.fault(Fault::status(401, "UNAUTHENTICATED"), usize::MAX);
    expect_refused(kms.wrap(), &["the credentials are not valid: check ServiceAccountFile"]);
    assert_eq!(kms.requests(), (2, 0));
}

/// Changes answers that have `field`.
fn set(kms: &Kms, field: &'static str, value: Value) {
    kms.options.keys.alter_answers(move |answer| {
        if answer.get(field).is_some() {
            answer[field] = value.clone();
        }
    });
}

#[test]
fn corrupted_messages_are_repeated() {
    let kms = Kms::with(&json!({"MaxRetries": 2}));
    let (_, wrapped) = kms.wrap().unwrap();
    kms.requests();
    let mismatch = "a checksum of Google Cloud KMS does not match";
    for (field, value) in [
        ("ciphertextCrc32c", json!("1")),
        ("ciphertextCrc32c", json!(null)),
        ("ciphertext", json!("AAAA")),
        ("verifiedPlaintextCrc32c", json!(false)),
        ("verifiedAdditionalAuthenticatedDataCrc32c", json!(false)),
    ] {
        set(&kms, field, value);
        expect_unavailable(kms.wrap(), &[mismatch, "after 3 attempts"]);
        assert_eq!(kms.requests(), (3, 0), "{field}");
    }
    for (field, value) in [("plaintextCrc32c", json!("1")), ("plaintext", json!("AAAA"))] {
        set(&kms, field, value);
        expect_unavailable(kms.unwrap(&wrapped), &[mismatch, "after 3 attempts"]);
        assert_eq!(kms.requests(), (0, 3), "{field}");
    }
    kms.options.keys.stop_altering();
    kms.unwrap(&wrapped).unwrap();
}

#[test]
fn malformed_answers_are_refused() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    kms.requests();
    let malformed = "the answer is not one of Google Cloud KMS; check Endpoint";
    for (field, value) in [
        ("ciphertext", json!("")),
        ("ciphertext", json!(null)),
        ("ciphertext", json!("no base64")),
        ("ciphertext", json!(["AAAA"])),
        ("name", json!(KEY.replace("master", "other"))),
        ("name", json!(format!("{KEY}2/cryptoKeyVersions/1"))),
    ] {
        set(&kms, field, value);
        expect_refused(kms.wrap(), &[malformed]);
        assert_eq!(kms.requests(), (1, 0), "{field}");
    }
    // Keys of 31 and 33 bytes, whose checksums are right.
    for length in [31, 33] {
        let ciphertext =
            kms.options.keys.encrypt(KEY, &vec![7; length], b"orthanc-object-storage A2").unwrap();
        let short = crypto_envelope::Wrapped { wrapped: ciphertext, ..wrapped.clone() };
        expect_refused(kms.unwrap(&short), &[malformed]);
        assert_eq!(kms.requests(), (0, 1));
    }
    kms.options.keys.alter_answers(|answer| *answer = json!(["garbage"]));
    expect_refused(kms.unwrap(&wrapped), &[malformed]);
    kms.options.keys.stop_altering();
    kms.fault(Fault::CorruptResponseByte(0), 1);
    expect_refused(kms.unwrap(&wrapped), &[malformed]);
    assert_eq!(kms.requests(), (0, 2));
}

#[test]
fn huge_answers_are_not_read() {
    let kms = Kms::start();
    let (_, wrapped) = kms.wrap().unwrap();
    kms.requests();
    let size = 100_000_000;
    kms.options.keys.alter_answers(move |answer| answer["padding"] = "x".repeat(size).into());
    expect_refused(kms.unwrap(&wrapped), &["the answer is too large"]);
    let sent = kms.server.requests().body_bytes_sent;
    assert!(sent < size as u64 / 2, "{sent}");
    assert_eq!(kms.requests(), (0, 1));
    // The error of a proxy that repeats the request.
    let echo = SmallServer::start(|request| Answer(400, Vec::new(), request.body.repeat(1000))).unwrap();
    let service = kms.open(&json!({}), &json!({"Endpoint": echo.url("")}));
    let error = kms.wrap_with(&service).unwrap_err();
    let KeyServiceError::Refused(message) = &error else { panic!("{error}") };
    let body = &echo.requests()[0].body;
    let request: Value = serde_json::from_str(body).unwrap();
    assert!(!message.contains(request["plaintext"].as_str().unwrap()), "{message}");
    assert!(message.len() < 1000, "{message}");
}

/// A 404 that is not of the service, as of a wrong address.
#[test]
fn another_server_is_named() {
    let kms = Kms::start();
    kms.fault(Fault::Odd(Odd::WebPage(404)), usize::MAX);
    expect_unavailable(
        kms.wrap(),
        &[
            "the answer does not come from Google Cloud KMS, but from a proxy or another server: check Endpoint",
        ],
    );
}
