//! Certificates of servers, and which of them are trusted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloud_http::{CloudHttp, HttpOptions, TransportError};
use http::Request;
use object_store::client::{HttpError, HttpRequestBody, HttpService};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const HOST: &str = "127.0.0.1";

/// A certificate and its key, in PEM format.
struct Certificate {
    certificate: String,
    key: String,
}

fn params(name: &str, until: i32) -> CertificateParams {
    let names = if name.is_empty() { vec![] } else { vec![name.to_owned()] };
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "server");
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

fn self_signed(params: &CertificateParams) -> Certificate {
    let key = KeyPair::generate().unwrap();
    Certificate { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn issued(params: &CertificateParams) -> Certificate {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    Certificate { certificate: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() }
}

/// Sends a request to a server with a certificate, and returns the reason if the client does not trust it.
async fn refusal(server: &Certificate, trusted: &str) -> Option<String> {
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The client may refuse.
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    match TransportError::find(&connect(&url, trusted).await?) {
        Some(TransportError::Certificate { reason }) => Some(reason.clone()),
        other => panic!("{other:?}"),
    }
}

/// Sends a request, and returns the error if it fails.
async fn connect(url: &str, trusted: &str) -> Option<HttpError> {
    let root_certificates = (!trusted.is_empty()).then(|| trusted.as_bytes().to_vec());
    let client = CloudHttp::new(&HttpOptions { root_certificates, ..HttpOptions::default() }).unwrap();
    client.call(Request::get(url).body(HttpRequestBody::empty()).unwrap()).await.err()
}

#[tokio::test]
async fn configured_certificate_of_a_server_is_trusted() {
    let mut authority = params(HOST, 2099);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let servers = [self_signed(&params(HOST, 2099)), self_signed(&authority), issued(&params(HOST, 2099))];
    let all: String = servers.iter().map(|server| server.certificate.as_str()).collect();
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(refusal(server, &server.certificate).await, None, "{number}");
        assert_eq!(refusal(server, &all).await, None, "{number}");
        let untrusted = refusal(server, "").await.unwrap();
        assert!(
            untrusted.contains("UnknownIssuer")
                || untrusted == "it is self-signed; set HttpsCACertificates to the certificate itself",
            "{untrusted}"
        );
        // Another certificate with the same names.
        let other = issued(&params(HOST, 2099)).certificate;
        assert!(refusal(server, &other).await.is_some(), "{number}");
    }
}

#[tokio::test]
async fn name_and_dates_of_a_configured_certificate_are_checked() {
    for make in [self_signed, issued, |params: &CertificateParams| {
        let mut authority = params.clone();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self_signed(&authority)
    }] {
        let other_name = make(&params("elsewhere.test", 2099));
        let reason = refusal(&other_name, &other_name.certificate).await.unwrap();
        assert!(reason.contains("not valid for name"), "{reason}");
        let expired = make(&params(HOST, 2020));
        let reason = refusal(&expired, &expired.certificate).await.unwrap();
        assert!(reason.contains("expired"), "{reason}");
    }
}

#[tokio::test]
async fn certificate_without_a_subject_alt_name_is_named() {
    for server in [self_signed(&params("", 2099)), issued(&params("", 2099))] {
        let reason = refusal(&server, &server.certificate).await.unwrap();
        assert!(reason.contains("it has no subjectAltName"), "{reason}");
    }
}

#[tokio::test]
async fn certificate_of_version_1_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |command: &str| {
        let output = Command::new("openssl").args(command.split(' ')).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=127.0.0.1");
    openssl("x509 -req -in request.pem -signkey key.pem -days 100 -out certificate.pem");
    let certificate = std::fs::read_to_string(folder.path().join("certificate.pem")).unwrap();
    // `rustls` refuses to serve such a certificate.
    let port = std::net::TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", "certificate.pem", "-key", "key.pem", "-accept"])
        .arg(format!("{HOST}:{port}"))
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Killed(server.unwrap());
    for trusted in ["", &certificate] {
        let reason = loop {
            let error = connect(&format!("https://{HOST}:{port}/"), trusted).await.unwrap();
            match TransportError::find(&error) {
                Some(TransportError::Certificate { reason }) => break reason.clone(),
                // The server is still starting.
                Some(TransportError::Connect { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        };
        assert!(reason.contains("it is of version 1"), "{reason}");
    }
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
