//! Counters, the record of requests, latency and bandwidth, which other tests trust.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{KEY, builder, bytes, client, path, server, text};
use fake_cloud::{Operation, RequestCounts};
use futures_util::{StreamExt, stream};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};

#[tokio::test]
async fn requests_bytes_and_connections_are_counted() {
    let server = server();
    let client = client(&server);
    client.put(&path("a b"), bytes(1000).into()).await.unwrap();
    client.get(&path("a b")).await.unwrap().bytes().await.unwrap();
    client.get_range(&path("a b"), 1..3).await.unwrap();
    client.head(&path("a b")).await.unwrap();
    let mut upload = client.put_multipart(&path("parts")).await.unwrap();
    upload.put_part(bytes(500).into()).await.unwrap();
    assert_eq!(server.unfinished_uploads("bucket"), ["parts"]);
    upload.abort().await.unwrap();
    assert!(server.unfinished_uploads("bucket").is_empty());
    client.delete(&path("a b")).await.unwrap();
    assert!(server.keys("bucket").is_empty());

    let counts = server.requests();
    for operation in [
        Operation::PutObject,
        Operation::GetObject,
        Operation::GetObjectRange,
        Operation::HeadObject,
        Operation::CreateMultipartUpload,
        Operation::UploadPart,
        Operation::AbortMultipartUpload,
        Operation::DeleteObject,
    ] {
        assert_eq!(counts.of(operation), 1, "{operation:?}");
    }
    assert_eq!([counts.total, counts.body_bytes_received], [8, 1500]);
    assert!((1002..2000).contains(&counts.body_bytes_sent), "{counts:?}");
    assert_eq!([server.connections_accepted(), server.connections_open()], [1, 1]);

    let records = server.last_requests();
    assert_eq!([records[0].method.as_str(), records[0].path.as_str()], ["PUT", "/bucket/a%20b"]);
    assert_eq!(records[2].range.as_deref(), Some("bytes=1-2"));
    assert_eq!(records[2].status, Some(206));
    server.reset_counts();
    assert_eq!(server.requests(), RequestCounts::default());
    assert!(server.last_requests().is_empty());
    assert_eq!([server.connections_accepted(), server.connections_open()], [0, 1]);
}

/// `object_store` also sends bulk requests, so that the plugin's client is not the only one that the server answers.
#[tokio::test]
async fn bulk_deletion_answers_for_each_object() {
    let server = server();
    let names = ["a b&c<d>", "Röntgen #1", "kept", "missing"];
    for name in &names[..3] {
        server.insert("bucket", name, "content");
    }
    server.protect("bucket", "kept");
    let client = builder(&server).with_disable_bulk_delete(false).build().unwrap();
    let paths = stream::iter(names.map(|name| Ok(path(name)))).boxed();
    let results: Vec<_> = client.delete_stream(paths).collect().await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
    let error = text(results[2].as_ref().unwrap_err());
    assert!(error.contains("kept") && error.contains("AccessDenied"), "{error}");
    assert_eq!((server.requests().of(Operation::DeleteObjects), server.requests().total), (1, 1));
    assert_eq!(server.keys("bucket"), ["kept"]);
    let error = text(&client.delete(&path("kept")).await.unwrap_err());
    assert!(error.contains("AccessDenied"), "{error}");
}

#[test]
fn server_listens_on_loopback_only() {
    let server = server();
    assert_eq!(server.endpoint(), format!("http://127.0.0.1:{}", server.port()));
    // On Linux, every address of 127.0.0.0/8 is local: a server on 0.0.0.0 would accept this one.
    assert!(std::net::TcpStream::connect(("127.0.0.2", server.port())).is_err());
    assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_ok());
}

#[tokio::test]
async fn latency_delays_every_request() {
    let server = server();
    server.latency(Duration::from_millis(50));
    let client = client(&server);
    let start = Instant::now();
    for _ in 0..3 {
        client.put(&path(KEY), "x".into()).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn bandwidth_limits_each_direction() {
    let server = server();
    let client = client(&server);
    let content = bytes(4_000_000);
    server.bandwidth_per_connection(Some(10_000_000));
    let start = Instant::now();
    client.put(&path(KEY), content.clone().into()).await.unwrap();
    let put = start.elapsed();
    let start = Instant::now();
    assert_eq!(client.get(&path(KEY)).await.unwrap().bytes().await.unwrap(), content);
    let get = start.elapsed();
    let start = Instant::now();
    let half = async |range| client.get_range(&path(KEY), range).await.unwrap();
    futures_util::join!(half(0..2_000_000), half(2_000_000..4_000_000));
    let halves = start.elapsed();
    for (time, least) in [(put, 380), (get, 380), (halves, 180)] {
        assert!(time >= Duration::from_millis(least), "{put:?} {get:?} {halves:?}");
    }
    assert!(halves < get, "{halves:?} {get:?}");
}
