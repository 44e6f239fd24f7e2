//! Google's own host names on this machine: a proxy for `CONNECT` that answers as they would, with a certificate of a
//! test authority.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// The hosts that are answered for. Others are refused, so that no test reaches the network.
const HOSTS: [&str; 4] =
    ["accounts.google.com", "oauth2.googleapis.com", "storage.googleapis.com", "www.googleapis.com"];

/// An HTTP proxy that leads clients of Google to a server of this machine. It ends when dropped.
#[derive(Debug)]
pub struct Interceptor {
    address: SocketAddr,
    authority: String,
    runtime: Option<Runtime>,
}

impl Interceptor {
    /// Leads `https://accounts.google.com` and the like to a port of 127.0.0.1, as plain HTTP.
    ///
    /// # Errors
    ///
    /// When no certificate can be made, or no port or thread is to be had.
    pub fn start(port: u16) -> io::Result<Self> {
        let (authority, config) = certificates().map_err(io::Error::other)?;
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
                // A client that does not trust the certificate hangs up.
                tokio::spawn(serve(stream, acceptor.clone(), port));
            }
        });
        Ok(Self { address, authority, runtime: Some(runtime) })
    }

    /// The proxy's address, for `HTTPS_PROXY` or a client's settings.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The certificate of the authority that clients must trust, in PEM format.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the thread would panic inside of another runtime.
            runtime.shutdown_background();
        }
    }
}

/// The authority's certificate, and a server's with its name on it.
fn certificates() -> Result<(String, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Not Google");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(HOSTS.map(str::to_owned))?.signed_by(&key, &issuer)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    Ok((issuer.pem(), config))
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, port: u16) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut header = String::from("-");
    // An empty line ends the headers, as does the end of the stream.
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
