//! An HTTP proxy that answers for Google's host names, with a certificate of a test authority.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::tls::Certificates;

/// The hosts that the proxy answers for. It refuses others, so that no test reaches the network.
const HOSTS: [&str; 3] = ["accounts.google.com", "storage.googleapis.com", "cloudkms.googleapis.com"];

/// An HTTP proxy that connects clients of Google to a server on this machine. Stops when dropped.
#[derive(Debug)]
pub struct Interceptor {
    address: SocketAddr,
    authority: String,
    runtime: Option<Runtime>,
}

impl Interceptor {
    /// Connects the addresses of Google's token service, Cloud Storage and Cloud KMS to a port of 127.0.0.1, as
    /// plain HTTP.
    ///
    /// # Errors
    ///
    /// Fails if the certificate, the port or the thread cannot be created.
    pub fn start(port: u16) -> io::Result<Self> {
        let certificates = Certificates::issue("Not Google", &HOSTS).map_err(io::Error::other)?;
        let config = tls_config(&certificates).map_err(io::Error::other)?;
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("interceptor").enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust the certificate closes the connection.
                tokio::spawn(serve(stream, acceptor.clone(), port));
            }
        });
        Ok(Self { address, authority: certificates.authority, runtime: Some(runtime) })
    }

    /// Returns the proxy's URL, for `HTTPS_PROXY`.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the certificate of the authority that clients must trust, in PEM format.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the thread would panic inside another runtime.
            runtime.shutdown_background();
        }
    }
}

fn tls_config(certificates: &Certificates) -> Result<ServerConfig, tokio_rustls::rustls::Error> {
    let key = PrivatePkcs8KeyDer::from(certificates.key.serialize_der());
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificates.server.der().clone()], key.into())
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, port: u16) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut header = String::from("-");
    // The headers end with an empty line or the end of the stream.
    while !header.trim_end().is_empty() {
        header.clear();
        stream.read_line(&mut header).await?;
    }
    let host = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next());
    if !host.is_some_and(|host| HOSTS.contains(&host)) {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut stream = acceptor.accept(stream).await?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
