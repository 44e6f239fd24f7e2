//! Certificates of an authority that exists only for a test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The certificate of a server, and of the authority that issued it.
pub(crate) struct Certificates {
    /// The authority, in PEM format.
    pub(crate) authority: String,
    pub(crate) server: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Certificates {
    /// Issues a certificate for these host names or addresses.
    pub(crate) fn issue(authority: &str, hosts: &[&str]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, authority);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let server = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self { authority: issuer.pem(), server, key })
    }
}
