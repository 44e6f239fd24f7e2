//! Every fault, as a client sees it.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{builder, bytes, client, path, patient_client, server, text};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation};
use object_store::{ClientOptions, Error, ObjectStoreExt, Result};

const LARGE: usize = 8_000_000;

async fn read(client: &impl ObjectStoreExt, key: &str) -> Result<Bytes> {
    client.get(&path(key)).await?.bytes().await
}

/// A client that gives up soon.
fn hasty(server: &BucketServer) -> object_store::aws::AmazonS3 {
    let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_millis(300));
    builder(server).with_client_options(options).build().unwrap()
}

#[tokio::test]
async fn a_status_is_seen_by_the_client_and_stores_nothing() {
    let server = server();
    let slow_down = Fault::Status { code: 503, s3_code: "SlowDown".to_owned(), retry_after_seconds: Some(7) };
    let rule = server.faults().push(FaultRule::new(slow_down).on(Operation::PutObject));
    let error = client(&server).put(&path("k"), bytes(LARGE).into()).await.unwrap_err();
    assert!(text(&error).contains("503") && text(&error).contains("SlowDown"), "{error:?}");
    assert!(server.keys("bucket").is_empty());
    client(&server).put(&path("k"), bytes(LARGE).into()).await.unwrap();
    assert_eq!(rule.fired(), 1);
}

#[tokio::test]
async fn a_client_that_tries_again_gets_through_when_the_rule_is_spent() {
    let server = server();
    server.insert("bucket", "k", "x");
    let rule = server.faults().push(FaultRule::new(Fault::slow_down()).times(3));
    assert_eq!(read(&patient_client(&server, 5), "k").await.unwrap(), "x");
    assert_eq!((rule.fired(), server.requests().get_object()), (3, 4));
    let statuses: Vec<_> = server.last_requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(503), Some(200)]);
}

#[tokio::test]
async fn retry_after_is_a_header() {
    let server = server();
    let fault = Fault::Status { code: 429, s3_code: "SlowDown".to_owned(), retry_after_seconds: Some(7) };
    server.faults().push(FaultRule::new(fault));
    let answer = reqwest::get(format!("{}/bucket/k", server.endpoint())).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    assert!(answer.text().await.unwrap().contains("<Code>SlowDown</Code>"));
}

#[tokio::test]
async fn a_request_without_an_answer_was_carried_out() {
    let server = server();
    server.faults().push(FaultRule::new(Fault::CloseBeforeResponse));
    assert!(client(&server).put(&path("k"), bytes(10).into()).await.is_err());
    assert_eq!(server.object("bucket", "k").unwrap().bytes, bytes(10));
    assert_eq!(server.last_requests()[0].status, None);
}

#[tokio::test]
async fn an_upload_that_is_cut_stores_nothing() {
    let server = server();
    for cut_after in [0, 1_000_000] {
        let rule = FaultRule::new(Fault::CloseAfterRequestBytes(cut_after)).on(Operation::PutObject);
        let rule = server.faults().push(rule);
        assert!(client(&server).put(&path("k"), bytes(LARGE).into()).await.is_err());
        assert_eq!(rule.fired(), 1);
        assert!(server.keys("bucket").is_empty());
        assert!(server.requests().body_bytes_received < LARGE as u64);
    }
    patient_client(&server, 1).put(&path("k"), bytes(LARGE).into()).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_stalls_runs_into_the_clients_timeout() {
    let server = server();
    server.faults().push(FaultRule::new(Fault::StallRequestAfter(100_000)));
    let start = Instant::now();
    assert!(hasty(&server).put(&path("k"), bytes(LARGE).into()).await.is_err());
    assert!(start.elapsed() >= Duration::from_millis(290));
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn a_download_breaks_off_where_it_should() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    for (fault, reset) in [
        (Fault::ResetAfterResponseBytes(3_000_000), true),
        (Fault::CloseAfterResponseBytes(3_000_000), false),
    ] {
        server.reset_counts();
        let rule = server.faults().push(FaultRule::new(fault));
        let error = read(&client(&server), "k").await.unwrap_err();
        assert!(matches!(error, Error::Generic { .. }), "{error:?}");
        assert_eq!(text(&error).contains("reset"), reset, "{error:?}");
        assert_eq!((rule.fired(), server.requests().body_bytes_sent), (1, 3_000_000));
    }
}

#[tokio::test]
async fn all_bytes_before_an_orderly_close_arrive_and_no_more() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(3_000_001)));
    let mut stream = client(&server).get(&path("k")).await.unwrap().into_stream();
    let mut seen = Vec::new();
    let error = loop {
        match futures_util::StreamExt::next(&mut stream).await.unwrap() {
            Ok(chunk) => seen.extend_from_slice(&chunk),
            Err(error) => break error,
        }
    };
    assert!(text(&error).contains("body"), "{error:?}");
    assert_eq!(seen, bytes(LARGE)[..3_000_001]);
}

#[tokio::test]
async fn a_client_resumes_a_broken_download_unless_the_etag_is_missing() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(3_000_000)));
    assert_eq!(read(&patient_client(&server, 3), "k").await.unwrap(), bytes(LARGE));
    assert_eq!((server.requests().get_object(), server.requests().get_object_range()), (1, 1));
    assert_eq!(server.last_requests()[1].range.as_deref(), Some("bytes=3000000-7999999"));

    server.faults().push(FaultRule::new(Fault::DropEtag));
    let got = client(&server).get(&path("k")).await.unwrap();
    assert_eq!(got.meta.e_tag, None);
}

#[tokio::test]
async fn an_object_that_changes_in_the_middle_of_a_download_has_another_etag() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(3_000_000)));
    let other = Fault::ReplaceObject(Bytes::from(vec![7; LARGE]));
    server.faults().push(FaultRule::new(other).on(Operation::GetObjectRange));
    // object_store compares the ETags itself, and does not send `If-Match`.
    assert!(read(&patient_client(&server, 3), "k").await.is_err());
    assert_eq!(server.requests().get_object_range(), 1);
    assert_ne!(server.object("bucket", "k").unwrap().bytes, bytes(LARGE));
}

#[tokio::test]
async fn a_download_that_stalls_runs_into_the_clients_timeout() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    server.faults().push(FaultRule::new(Fault::StallResponseAfter(1_000_000)));
    let start = Instant::now();
    assert!(read(&hasty(&server), "k").await.is_err());
    assert!(start.elapsed() >= Duration::from_millis(290));
    assert_eq!(server.requests().body_bytes_sent, 1_000_000);
}

#[tokio::test]
async fn a_delay_comes_before_the_answer() {
    let server = server();
    server.faults().push(FaultRule::new(Fault::Delay(Duration::from_millis(200))).skip(1));
    let client = client(&server);
    client.put(&path("k"), "x".into()).await.unwrap();
    let start = Instant::now();
    client.put(&path("k"), "y".into()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn one_corrupt_byte_is_one_byte_off() {
    let server = server();
    server.insert("bucket", "k", bytes(LARGE));
    server.faults().push(FaultRule::new(Fault::CorruptResponseByte(5_000_000)).on(Operation::GetObject));
    let got = read(&client(&server), "k").await.unwrap();
    let wrong: Vec<_> =
        got.iter().zip(&bytes(LARGE)).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
    assert_eq!(wrong, [5_000_000]);
    assert_eq!(read(&client(&server), "k").await.unwrap(), bytes(LARGE));
}
