//! Certificates are always verified, also against the authorities in `HttpsCACertificates`.

use std::io::Write;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use fake_cloud::BucketServer;
use fake_orthanc::LogLevel;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use storage_plugin::Provider;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Cloud;
use crate::fixture::{DICOM, KEY, UUID, configuration, content, done, load, own_lines, refusal, with};

tests! {
    EveryCloud:
        configured_authority_is_trusted,
        wrong_scheme_prevents_the_start,
        untrusted_certificate_prevents_the_start;
    OneCloud:
        configured_certificate_of_the_server_is_trusted,
}

/// A private certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The authority's certificate in PEM format.
    pub(crate) file: NamedTempFile,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut file = NamedTempFile::new()?;
        file.write_all(issuer.pem().as_bytes())?;
        Ok(Self { issuer, file })
    }

    /// Returns a server with a certificate for these names that expires in the year `until`.
    pub(crate) fn server(&self, names: &[&str], until: i32) -> Result<ServerConfig> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let chain = vec![params.signed_by(&key, &self.issuer)?.der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into())?)
    }
}

/// TLS in front of a server.
pub(crate) struct TlsFront {
    pub(crate) port: u16,
    accepted: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl TlsFront {
    /// Passes what clients send to the port `behind`.
    pub(crate) fn start(config: ServerConfig, behind: u16) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepted = Arc::<AtomicU64>::default();
        let count = Arc::clone(&accepted);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                // A client that does not trust the certificate closes its connection.
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, behind)).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut server).await
                });
            }
        });
        Ok(Self { port, accepted, _runtime: runtime })
    }

    /// Returns the number of connections accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A bucket server behind TLS.
struct Secured<C> {
    server: BucketServer,
    front: TlsFront,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Secured<C> {
    fn start(config: ServerConfig) -> Result<Self> {
        let server = C::server()?;
        let front = TlsFront::start(config, server.port())?;
        Ok(Self { server, front, cloud: PhantomData })
    }

    /// Returns a configuration for this server.
    fn configuration(&self, root: &Value) -> Value {
        let section = C::section(&format!("https://127.0.0.1:{}", self.front.port));
        with(configuration::<C>(section), root)
    }
}

fn configured_authority_is_trusted<C: Cloud>() -> Result<()> {
    let authority = Authority::new("Hospital")?;
    let other = Authority::new("Elsewhere")?;
    let secured = Secured::<C>::start(authority.server(&["127.0.0.1"], 2099)?)?;
    let mut bundle = NamedTempFile::new()?;
    write!(bundle, "# comment\n{}{}", other.issuer.pem(), authority.issuer.pem())?;
    let configuration = secured.configuration(&json!({"HttpsCACertificates": bundle.path()}));
    let orthanc = load::<C>(configuration)??;
    let bytes = content(3_000_000);
    done(orthanc.create(UUID, DICOM, &bytes))?;
    assert!(done(orthanc.read_whole(UUID, DICOM))? == bytes);
    assert!(done(orthanc.read_range(UUID, DICOM, 9, 1_000_000))? == bytes[9..1_000_009]);
    assert_eq!(secured.server.keys(C::BUCKET), [KEY]);
    let warnings = own_lines::<C>(&orthanc.logs(), LogLevel::Warning);
    assert_eq!(warnings.len(), 1, "only the one about missing encryption: {warnings:#?}");
    assert_eq!(orthanc.violations(), [""; 0]);
    Ok(())
}

/// Returns a server with a self-signed certificate that could also issue others, as `openssl req -x509` makes it, and the
/// certificate in PEM format.
pub(crate) fn self_signed() -> Result<(ServerConfig, String)> {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let chain = vec![certificate.der().clone()];
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, der.into())?;
    Ok((config, certificate.pem()))
}

fn configured_certificate_of_the_server_is_trusted<C: Cloud>() -> Result<()> {
    let (config, certificate) = self_signed()?;
    let secured = Secured::<C>::start(config)?;
    let mut file = NamedTempFile::new()?;
    file.write_all(certificate.as_bytes())?;
    let orthanc = load::<C>(secured.configuration(&json!({"HttpsCACertificates": file.path()})))??;
    done(orthanc.create(UUID, DICOM, b"x"))?;
    assert_eq!(secured.server.keys(C::BUCKET), [KEY]);
    Ok(())
}

fn wrong_scheme_prevents_the_start<C: Cloud>() -> Result<()> {
    let secured = Secured::<C>::start(Authority::new("Hospital")?.server(&["127.0.0.1"], 2099)?)?;
    let plain = secured.server.port();
    for (endpoint, reason) in [
        (format!("https://127.0.0.1:{plain}"), "does not speak TLS"),
        (format!("http://127.0.0.1:{}", secured.front.port), "speaks only TLS"),
    ] {
        let line = refusal::<C, _>(load::<C>(configuration::<C>(C::section(&endpoint)))?)?;
        for fragment in [C::URL, reason, C::Provider::ENDPOINT_OPTION] {
            assert!(line.contains(fragment), "no {fragment}: {line}");
        }
        assert_eq!(secured.server.requests().total, 0);
    }
    Ok(())
}

fn untrusted_certificate_prevents_the_start<C: Cloud>() -> Result<()> {
    let authority = Authority::new("Hospital")?;
    let other = Authority::new("Elsewhere")?;
    let trusted = json!({"HttpsCACertificates": authority.file.path()});
    for (config, root, reason) in [
        (authority.server(&["127.0.0.1"], 2099)?, json!({}), "UnknownIssuer"),
        (other.server(&["127.0.0.1"], 2099)?, trusted.clone(), "UnknownIssuer"),
        (authority.server(&["elsewhere.test"], 2099)?, trusted.clone(), "not valid for name"),
        (authority.server(&["127.0.0.1"], 2020)?, trusted, "expired"),
    ] {
        let secured = Secured::<C>::start(config)?;
        let line = refusal::<C, _>(load::<C>(secured.configuration(&root))?)?;
        for fragment in [C::URL, reason] {
            assert!(line.contains(fragment), "no {fragment}: {line}");
        }
        // An authority would not mend the others.
        assert_eq!(line.contains("HttpsCACertificates"), reason == "UnknownIssuer", "{line}");
        assert_eq!(secured.server.requests().total, 0);
    }
    Ok(())
}
