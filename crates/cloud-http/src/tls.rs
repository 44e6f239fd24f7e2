//! Which certificates of servers are trusted.
//!
//! A certificate is trusted if the system trusts its authority, if its authority is among the configured
//! certificates, or if it is one of these certificates itself. Name and dates are checked in each case.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_platform_verifier::Verifier;

use crate::error::HttpConfigError;

/// Returns the TLS configuration of a client that also trusts the certificates in `pem`.
pub(crate) fn client_config(pem: Option<&[u8]>) -> Result<ClientConfig, HttpConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let configured = pem.map(|pem| Configured::read(pem, &provider)).transpose()?;
    let extra = configured.iter().flat_map(|configured| configured.certificates.iter().cloned());
    // Fails if there is neither a configured certificate nor one of the system.
    let system = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).ok();
    let verifier = ServerVerifier { system, configured, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpConfigError::Client(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct ServerVerifier {
    /// `None` if this machine has no certificates of authorities.
    system: Option<Verifier>,
    configured: Option<Configured>,
    provider: Arc<CryptoProvider>,
}

/// The certificates in a file of the administrator.
#[derive(Debug)]
struct Configured {
    certificates: Vec<CertificateDer<'static>>,
    /// Knows no other authorities.
    verifier: Arc<WebPkiServerVerifier>,
}

/// This machine has no certificates of authorities.
#[derive(Debug, thiserror::Error)]
#[error("this machine has no certificates of authorities; install the package ca-certificates")]
struct NoAuthorities;

impl Configured {
    fn read(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, HttpConfigError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| HttpConfigError::Certificates)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| HttpConfigError::Certificates)?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|_| HttpConfigError::Certificates)?;
        Ok(Self { certificates, verifier })
    }

    /// Verifies a certificate that is one of the configured ones.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verifier.verify_server_cert(certificate, &[], name, &[], now) {
            // Both are found after the dates have been checked, and before the name is.
            Err(error) if has_other_issuer(&error) || is_authority(&error) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }
}

fn has_other_issuer(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// Whether the certificate may also issue others, like those that `openssl req -x509` makes.
fn is_authority(error: &Error) -> bool {
    is_of_webpki(error, "CaUsedAsEndEntity")
}

/// Whether this is an error of `webpki` for which `rustls` has no name of its own.
fn is_of_webpki(error: &Error, name: &str) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => format!("{:?}", other.0) == name,
        _ => false,
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own =
            self.configured.as_ref().filter(|own| own.certificates.iter().any(|one| one == certificate));
        match (own, &self.system) {
            (Some(own), _) => own.verify(certificate, name, now),
            (None, Some(system)) => system.verify_server_cert(certificate, intermediates, name, ocsp, now),
            (None, None) => Err(CertificateError::Other(OtherError(Arc::new(NoAuthorities))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns why a server's certificate is not trusted; `None` for errors of another kind.
pub(crate) fn refusal(error: &Error) -> Option<String> {
    let Error::InvalidCertificate(cause) = error else { return None };
    Some(match cause {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it has no subjectAltName; issue one with the host as subjectAltName".to_owned()
        }
        CertificateError::Other(other) if other.0.is::<NoAuthorities>() => other.0.to_string(),
        _ if is_of_webpki(error, "UnsupportedCertVersion") => {
            "it is of version 1; issue one of version 3 with the host as subjectAltName".to_owned()
        }
        _ if is_authority(error) => {
            "it is self-signed; set HttpsCACertificates to the certificate itself".to_owned()
        }
        CertificateError::UnknownIssuer => format!(
            "{error}; if your own authority issued it, set HttpsCACertificates to that authority's file, and if it is \
             self-signed, to the certificate itself"
        ),
        _ => error.to_string(),
    })
}

/// Whether the other side answered a handshake with something that is not TLS.
pub(crate) fn is_not_tls(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(InvalidMessage::InvalidContentType))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_without_authorities_trusts_no_certificate() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = ServerVerifier { system: None, configured: None, provider };
        let name = ServerName::try_from("a.test").unwrap();
        let error = verifier
            .verify_server_cert(&CertificateDer::from(vec![1]), &[], &name, &[], UnixTime::now())
            .unwrap_err();
        let reason = refusal(&error).unwrap();
        assert!(reason.contains("install the package ca-certificates"), "{reason}");
    }
}
