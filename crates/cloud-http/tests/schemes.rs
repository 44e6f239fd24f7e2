//! Servers that are addressed as `http://` and speak TLS, or the reverse.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloud_http::{CloudHttp, HttpOptions, TransportError};
use http::Request;
use object_store::client::{HttpRequestBody, HttpService};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A server, and the connections that it has accepted.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers a TLS handshake if `tls` is set, and sends `plain` to clients that do not begin one.
    async fn start(tls: bool, plain: &'static [u8]) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, tls.then(|| acceptor.clone()), plain));
            }
        });
        Self { address, connections }
    }

    /// Returns how a request fails with a new client.
    async fn error(&self, scheme: &str) -> String {
        let client = CloudHttp::new(&HttpOptions::default()).unwrap();
        let error = self.request(&client, scheme).await.unwrap();
        error.split([' ', '{']).next().unwrap_or_default().to_owned()
    }

    async fn request(&self, client: &CloudHttp, scheme: &str) -> Option<String> {
        let url = format!("{scheme}://{}/bucket/object", self.address);
        let answer = client.call(Request::get(url).body(HttpRequestBody::empty()).unwrap()).await;
        answer.err().map(|error| format!("{:?}", TransportError::find(&error).unwrap()))
    }
}

async fn serve(mut stream: TcpStream, tls: Option<TlsAcceptor>, plain: &[u8]) {
    let mut first = [0];
    stream.peek(&mut first).await.unwrap_or_default();
    if let Some(acceptor) = tls.filter(|_| first[0] == HANDSHAKE) {
        // The client does not trust the certificate.
        let _ = acceptor.accept(stream).await;
        return;
    }
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(plain).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn server_that_speaks_only_tls_is_recognized() {
    for plain in [
        // An alert, as servers with rustls and OpenSSL send it; nothing, as Python's; pages, as nginx and Go send them.
        &b"\x15\x03\x01\x00\x02\x02\x16"[..],
        b"",
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>The plain HTTP request was sent to \
          HTTPS port</html>",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ] {
        let server = Server::start(true, plain).await;
        assert_eq!(server.error("http").await, "OnlyTls", "{}", String::from_utf8_lossy(plain));
    }
}

#[tokio::test]
async fn server_without_tls_is_recognized() {
    for plain in [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", &b"<html>Bad Request</html>"[..]]
    {
        let server = Server::start(false, plain).await;
        assert_eq!(server.error("https").await, "NoTls", "{}", String::from_utf8_lossy(plain));
    }
}

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn proxy_without_tls_is_not_taken_for_the_server() {
    let proxy = Server::start(false, PLAIN).await;
    for scheme in ["http", "https"] {
        let address = Some(format!("https://orthanc:hunter2@{}", proxy.address));
        let client = CloudHttp::new(&HttpOptions { proxy: address, ..HttpOptions::default() }).unwrap();
        let url = format!("{scheme}://storage.test/bucket/object");
        let answer = client.call(Request::get(url).body(HttpRequestBody::empty()).unwrap()).await;
        let error = answer.err().unwrap();
        let found = TransportError::find(&error).unwrap();
        assert!(found.is_transient(), "{found:?}");
        let text = found.to_string();
        assert!(text.contains(&format!("the proxy https://{}, or", proxy.address)), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn missing_tls_of_a_server_that_has_answered_passes() {
    let plain = Server::start(false, PLAIN).await;
    let healthy = Server::start(false, OK).await;
    let client = CloudHttp::new(&HttpOptions::default()).unwrap();
    assert_eq!(healthy.request(&client, "http").await, None);
    let error = plain.request(&client, "https").await.unwrap();
    assert!(error.starts_with("Connect {"), "{error}");
}

#[tokio::test]
async fn other_failures_keep_their_cause() {
    for (plain, expected) in [(&b""[..], "Interrupted"), (b"SSH-2.0-OpenSSH_9.2\r\n", "Protocol")] {
        assert_eq!(Server::start(false, plain).await.error("http").await, expected);
    }
}

#[tokio::test]
async fn server_that_has_answered_is_not_asked_for_tls() {
    let good = Server::start(false, OK).await;
    let failing = Server::start(false, b"").await;
    let client = CloudHttp::new(&HttpOptions::default()).unwrap();
    assert!(failing.request(&client, "http").await.is_some());
    assert_eq!(failing.connections.load(Ordering::SeqCst), 2, "the request, and a handshake");
    assert_eq!(good.request(&client, "http").await, None);
    assert!(failing.request(&client, "http").await.is_some());
    assert_eq!(failing.connections.load(Ordering::SeqCst), 3);
}
