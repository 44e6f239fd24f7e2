//! The effect of each fault on what the server stores and sends, which clients that recover cannot see.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{KEY, builder, bytes, client, client_options, path, server, text};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation};
use futures_util::StreamExt;
use object_store::{ObjectStoreExt, Result};

const SIZE: usize = 8_000_000;

/// A client that gives up soon.
fn hasty(server: &BucketServer) -> object_store::aws::AmazonS3 {
    builder(server).with_client_options(client_options(Duration::from_millis(300))).build().unwrap()
}

fn server_with_object() -> BucketServer {
    let server = server();
    server.insert("bucket", KEY, bytes(SIZE));
    server
}

async fn read(client: &impl ObjectStoreExt) -> Result<Bytes> {
    client.get(&path(KEY)).await?.bytes().await
}

#[tokio::test]
async fn failed_uploads_store_nothing() {
    let server = server();
    for fault in [
        Fault::slow_down(),
        Fault::CloseAfterRequestBytes(0),
        Fault::CloseAfterRequestBytes(1_000_000),
        Fault::StallRequestAfter(100_000),
    ] {
        let rule = server.faults().push(FaultRule::new(fault.clone()));
        assert!(hasty(&server).put(&path(KEY), bytes(SIZE).into()).await.is_err(), "{fault:?}");
        assert_eq!(rule.fired(), 1, "{fault:?}");
        assert!(server.keys("bucket").is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn upload_without_answer_is_stored() {
    let server = server();
    server.faults().push(FaultRule::new(Fault::CloseBeforeResponse));
    assert!(client(&server).put(&path(KEY), "x".into()).await.is_err());
    assert_eq!(server.object("bucket", KEY).unwrap().bytes, "x");
    assert_eq!(server.last_requests()[0].status, None);
}

#[tokio::test]
async fn retry_after_is_a_header() {
    let server = server();
    let fault = Fault::Status { code: 429, s3_code: "SlowDown".to_owned(), retry_after_seconds: Some(7) };
    server.faults().push(FaultRule::new(fault));
    let answer = reqwest::get(format!("{}/bucket/k", server.endpoint())).await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(answer.text().await.unwrap().contains("<Code>SlowDown</Code>"));
}

#[tokio::test]
async fn close_and_reset_truncate_the_body() {
    let server = server_with_object();
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(3_000_001)));
    let mut stream = client(&server).get(&path(KEY)).await.unwrap().into_stream();
    let mut seen = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        seen.extend_from_slice(&chunk);
    }
    assert!(seen == bytes(SIZE)[..3_000_001]);
    server.reset_counts();
    server.faults().push(FaultRule::new(Fault::ResetAfterResponseBytes(3_000_000)));
    let error = read(&client(&server)).await.unwrap_err();
    assert!(text(&error).contains("reset"), "{error:?}");
    assert_eq!(server.requests().body_bytes_sent, 3_000_000);
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(SIZE as u64)));
    assert!(read(&client(&server)).await.unwrap() == bytes(SIZE), "a body that is not longer is unchanged");
}

#[tokio::test]
async fn stall_ends_the_body_and_delay_the_answer() {
    let server = server_with_object();
    server.faults().push(FaultRule::new(Fault::StallResponseAfter(1_000_000)));
    assert!(read(&hasty(&server)).await.is_err());
    assert_eq!(server.requests().body_bytes_sent, 1_000_000);
    server.faults().push(FaultRule::new(Fault::Delay(Duration::from_millis(200))));
    let start = Instant::now();
    read(&client(&server)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn one_byte_is_inverted() {
    let server = server_with_object();
    server.faults().push(FaultRule::new(Fault::CorruptResponseByte(5_000_000)));
    let got = read(&client(&server)).await.unwrap();
    let expected = bytes(SIZE);
    let wrong: Vec<_> = (0..SIZE).filter(|i| got[*i] != expected[*i]).collect();
    assert_eq!(wrong, [5_000_000]);
}

#[tokio::test]
async fn etag_is_dropped_and_object_replaced() {
    let server = server_with_object();
    server.faults().push(FaultRule::new(Fault::DropEtag));
    assert_eq!(client(&server).get(&path(KEY)).await.unwrap().meta.e_tag, None);
    let replace = FaultRule::new(Fault::ReplaceObject("other".into()));
    server.faults().push(replace.on(Operation::GetObject));
    assert_eq!(read(&client(&server)).await.unwrap(), "other");
}
