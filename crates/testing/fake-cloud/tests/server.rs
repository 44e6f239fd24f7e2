//! The server itself: stopping, counting, holding, slowing down.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{bytes, client, path, server};
use fake_cloud::{BucketServer, Operation, Options};
use object_store::ObjectStoreExt;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_stopped_server_is_away_and_comes_back_with_its_objects() {
    let server = server();
    let client = client(&server);
    let runtime = runtime();
    runtime.block_on(client.put(&path("k"), "x".into())).unwrap();
    assert_eq!(server.connections_open(), 1);
    server.stop();
    assert_eq!(server.connections_open(), 0);
    assert!(runtime.block_on(client.get(&path("k"))).is_err());
    assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err());
    server.start_again().unwrap();
    server.start_again().unwrap();
    assert_eq!(runtime.block_on(async { client.get(&path("k")).await?.bytes().await }).unwrap(), "x");
}

#[test]
fn stopping_cuts_requests_under_way() {
    let server = server();
    let client = client(&server);
    let hold = server.hold(Operation::GetObject);
    std::thread::scope(|scope| {
        let get = scope.spawn(|| runtime().block_on(client.get(&path("k"))).map(|_| ()));
        assert!(hold.wait_until(1, Duration::from_secs(10)));
        server.stop();
        assert!(get.join().unwrap().is_err());
    });
    assert_eq!(hold.waiting(), 0);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let server = server();
    assert!(BucketServer::start(Options { port: Some(server.port()), ..Options::default() }).is_err());
}

#[test]
fn dropping_a_server_closes_its_port() {
    let server = server();
    let port = server.port();
    drop(server);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn held_requests_wait_until_released_and_others_pass() {
    let server = server();
    let client = client(&server);
    let hold = server.hold_key(Operation::PutObject, "held");
    std::thread::scope(|scope| {
        for i in 0..3 {
            let (client, path) = (&client, path(&format!("held-{i}")));
            scope.spawn(move || runtime().block_on(client.put(&path, "x".into())).unwrap());
        }
        assert!(hold.wait_until(3, Duration::from_secs(10)));
        runtime().block_on(client.put(&path("free"), "x".into())).unwrap();
        assert_eq!(server.keys("bucket"), ["free"]);
        assert!(!hold.wait_until(4, Duration::from_millis(50)));
        hold.release();
    });
    assert_eq!(server.keys("bucket").len(), 4);
}

#[tokio::test]
async fn counts_go_back_to_zero_and_requests_are_recorded() {
    let server = server();
    let client = client(&server);
    client.put(&path("a b"), "xyz".into()).await.unwrap();
    let _ = client.get_range(&path("a b"), 1..2).await.unwrap();
    let records = server.last_requests();
    assert_eq!((records[0].method.as_str(), records[0].path.as_str()), ("PUT", "/bucket/a%20b"));
    assert_eq!((records[1].range.as_deref(), records[1].status), (Some("bytes=1-1"), Some(206)));
    assert_eq!((server.connections_accepted(), server.requests().of(Operation::PutObject)), (1, 1));
    server.reset_counts();
    assert_eq!(server.requests(), fake_cloud::RequestCounts::default());
    assert!(server.last_requests().is_empty());
    assert_eq!((server.connections_accepted(), server.connections_open()), (0, 1));
    server.clear();
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn latency_delays_every_request() {
    let server = server();
    server.latency(Duration::from_millis(50));
    let client = client(&server);
    let start = Instant::now();
    for _ in 0..3 {
        client.put(&path("k"), "x".into()).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn bandwidth_is_that_of_each_connection_in_either_direction() {
    let server = server();
    let client = client(&server);
    let content = bytes(4_000_000);
    server.bandwidth_per_connection(Some(10_000_000));
    let start = Instant::now();
    client.put(&path("k"), content.clone().into()).await.unwrap();
    let put = start.elapsed();
    let start = Instant::now();
    assert_eq!(client.get(&path("k")).await.unwrap().bytes().await.unwrap(), content);
    let get = start.elapsed();
    let start = Instant::now();
    let half = async |range| client.get_range(&path("k"), range).await.unwrap();
    futures_util::join!(half(0..2_000_000), half(2_000_000..4_000_000));
    let halves = start.elapsed();
    for (time, least) in [(put, 340), (get, 340), (halves, 140)] {
        assert!(time >= Duration::from_millis(least), "{put:?} {get:?} {halves:?}");
    }
    assert!(halves < get, "{halves:?} {get:?}");
    server.bandwidth_per_connection(None);
}
