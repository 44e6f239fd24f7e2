//! Exchanges with servers that are slow, silent or verbose.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cloud_http::{CloudHttp, Exchange, HttpOptions, TransportError, observe};
use http::Method;
use object_store::client::{HttpError, HttpRequest, HttpResponse, HttpService};
use parking_lot::Mutex;

const STALL: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(20);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Starts a server and returns its URL.
fn server(serve: impl Fn(&mut BufReader<TcpStream>, usize) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/bucket/object", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut length = 0;
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                serve(&mut reader, length);
            });
        }
    });
    url
}

fn read_body(reader: &mut BufReader<TcpStream>, length: usize) {
    reader.read_exact(&mut vec![0; length]).unwrap();
}

async fn send(url: &str, method: Method, body: Bytes) -> (Result<HttpResponse, HttpError>, Exchange) {
    let options = HttpOptions {
        connect_timeout: STALL,
        stall_limit: STALL,
        answer_limit: ANSWER,
        ..HttpOptions::default()
    };
    let client = CloudHttp::new(&options).unwrap().with_secrets(["minioadmin".to_owned()]);
    let mut request = HttpRequest::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().unwrap();
    observe(client.call(request)).await
}

#[tokio::test]
async fn answer_to_a_change_may_take_longer_than_the_stall_limit() {
    let url = server(|reader, length| {
        read_body(reader, length);
        thread::sleep(STALL * 4);
        reader.get_mut().write_all(OK).unwrap();
    });
    for (method, bytes) in [(Method::PUT, 100_000), (Method::POST, 0), (Method::DELETE, 0)] {
        let (result, _) = send(&url, method, Bytes::from(vec![7; bytes])).await;
        assert!(result.unwrap().status().is_success());
    }
    let (result, _) = send(&url, Method::GET, Bytes::new()).await;
    let error = result.unwrap_err();
    assert!(
        matches!(TransportError::find(&error), Some(TransportError::Stalled { limit: STALL })),
        "{error}"
    );
}

#[tokio::test]
async fn upload_that_stops_in_the_middle_is_a_stall() {
    let url = server(|reader, _| {
        read_body(reader, 100_000);
        thread::sleep(ANSWER);
    });
    let (result, _) = send(&url, Method::PUT, Bytes::from(vec![7; 64_000_000])).await;
    let error = result.unwrap_err();
    let found = TransportError::find(&error).unwrap();
    let is_stall = matches!(found, TransportError::Stalled { limit: STALL });
    assert!(is_stall || matches!(found, TransportError::Interrupted { .. }), "{found:?}");
}

/// The system has taken the whole body from the client, but the server does not take it from the system.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn unread_upload_in_the_buffers_of_the_system_is_a_stall() {
    let url = server(|_, _| thread::sleep(ANSWER * 2));
    let sent = send(&url, Method::PUT, Bytes::from(vec![7; 1_000_000]));
    let (result, _) = tokio::time::timeout(ANSWER / 2, sent).await.unwrap();
    let error = result.unwrap_err();
    assert!(TransportError::find(&error).unwrap().is_transient(), "{error:?}");
}

#[tokio::test]
async fn refusal_shows_the_words_of_the_server() {
    let page = format!("<html><head><title>404 Not Found</title></head>{}</html>", "x".repeat(200_000));
    for (body, message) in [
        (page, "404 Not Found"),
        ("no user minioadmin\nhere".to_owned(), "no user …"),
        ("{\"message\": \"no minioadmin\"}".to_owned(), "no …"),
    ] {
        let answer = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // The client reads the beginning of a long page and closes the connection.
        let url = server(move |reader, _| drop(reader.get_mut().write_all(answer.as_bytes())));
        let (result, exchange) = send(&url, Method::GET, Bytes::new()).await;
        assert_eq!(result.unwrap().status(), 404);
        assert_eq!((exchange.code, exchange.message.as_deref()), (None, Some(message)));
    }
}

/// Returns the answer of a server that redirects to `url`.
fn redirect(status: u16, url: &str) -> String {
    format!("HTTP/1.1 {status} R\r\nLocation: {url}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn redirected_upload_keeps_method_and_body() {
    let stored = Arc::<Mutex<Vec<u8>>>::default();
    let body = Arc::clone(&stored);
    let target = server(move |reader, length| {
        let mut received = vec![0; length];
        reader.read_exact(&mut received).unwrap();
        *body.lock() = received;
        reader.get_mut().write_all(OK).unwrap();
    });
    let answer = redirect(307, &target);
    let url = server(move |reader, length| {
        read_body(reader, length);
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    });
    let (result, exchange) = send(&url, Method::PUT, Bytes::from(vec![7; 100_000])).await;
    assert!(result.unwrap().status().is_success());
    assert_eq!(exchange.requests, 2);
    assert!(*stored.lock() == [7; 100_000]);
}

#[tokio::test]
async fn redirect_to_another_site_is_reported() {
    for (status, answer_url, message) in [
        (307, "http://elsewhere.test:81/a?sig=secret", "redirected to http://elsewhere.test:81"),
        (301, "/login", "redirected to http://127.0.0.1:PORT"),
        (308, "https://elsewhere.test/b", "redirected to https://elsewhere.test"),
    ] {
        let answer = redirect(status, answer_url);
        let url = server(move |reader, _| reader.get_mut().write_all(answer.as_bytes()).unwrap());
        let port = url.split([':', '/']).nth(4).unwrap();
        let (result, exchange) = send(&url, Method::GET, Bytes::new()).await;
        assert_eq!(result.unwrap().status(), status);
        assert_eq!((exchange.requests, exchange.message), (1, Some(message.replace("PORT", port))));
    }
    let answer = "HTTP/1.1 301 R\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n";
    let url = server(move |reader, _| reader.get_mut().write_all(answer.as_bytes()).unwrap());
    let (_, exchange) = send(&url, Method::HEAD, Bytes::new()).await;
    assert_eq!(exchange.message.as_deref(), Some("set Region to \"eu-west-1\""));
}

#[tokio::test]
async fn endless_redirects_end() {
    let requests = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&requests);
    let url = server(move |reader, _| {
        count.fetch_add(1, Ordering::SeqCst);
        reader.get_mut().write_all(redirect(307, "/again").as_bytes()).unwrap();
    });
    let (result, _) = send(&url, Method::GET, Bytes::new()).await;
    assert_eq!(result.unwrap().status(), 307);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn hanging_handshake_and_unknown_host_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    for url in [silent.as_str(), "http://no-such-host.invalid/"] {
        let sent = send(url, Method::PUT, Bytes::from_static(b"body"));
        let (result, _) = tokio::time::timeout(STALL * 20, sent).await.unwrap();
        let error = result.unwrap_err();
        let found = TransportError::find(&error).unwrap();
        assert!(
            matches!(found, TransportError::Connect { .. } | TransportError::Stalled { limit: STALL }),
            "{found:?}"
        );
    }
}
