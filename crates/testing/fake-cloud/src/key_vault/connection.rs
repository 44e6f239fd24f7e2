//! Connections: `CONNECT` to any host, then TLS and HTTP as this host.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::State;
use super::answer::answer;
use crate::tls::Certificates;

/// Maximum length of the request to the proxy.
const LONGEST_HEAD: usize = 8 * 1024;

#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) fn new(certificates: &Certificates) -> io::Result<Self> {
        let key = PrivateKeyDer::try_from(certificates.key.serialize_der()).map_err(io::Error::other)?;
        let chain = vec![certificates.server.der().clone()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        Ok(Self(TlsAcceptor::from(Arc::new(config.map_err(io::Error::other)?))))
    }
}

/// Serves connections until the runtime ends.
pub(super) async fn accept(listener: TcpListener, acceptor: Acceptor, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Errors mean that the client closed the connection.
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&state)));
    }
}

async fn serve(mut stream: TcpStream, acceptor: Acceptor, state: Arc<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let head = read_head(&mut stream).await?;
    let Some(host) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next()) else {
        return stream.write_all(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n").await;
    };
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    let stream = acceptor.0.accept(stream).await?;
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, host, request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}
