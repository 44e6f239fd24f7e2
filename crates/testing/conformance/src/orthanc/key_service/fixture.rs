//! The key service, and the line to it.

use anyhow::{Context, Result, ensure};
use crypto_envelope::{A2Header, KeyWrap};
use real_orthanc::{Builder, Proxy};
use serde_json::{Value, json};

use crate::fixture::with;
use crate::orthanc::fixture::Fixture;
use crate::{Cloud, KeyServer};

/// A key service that Orthanc reaches over a line that tests cut.
pub(crate) struct KeyService {
    pub(crate) server: Box<dyn KeyServer>,
    pub(crate) line: Proxy,
}

impl KeyService {
    pub(crate) fn start<C: Cloud>() -> Result<Self> {
        let server = C::key_server()?;
        let endpoint = server.endpoint();
        let address = endpoint.strip_prefix("http://").context("not HTTP")?.parse()?;
        Ok(Self { server, line: Proxy::start(address)? })
    }

    /// Returns changes of the plugin's section: `StorageEncryption` with the key of the service and `encryption`, and
    /// `others`.
    pub(crate) fn options(&self, encryption: &Value, others: &Value) -> Value {
        let endpoint = self.line.endpoint();
        let encryption = with(json!({"MasterKey": self.server.master_key(&endpoint)}), encryption);
        let options = with(self.server.section(&endpoint), others);
        with(options, &json!({ "StorageEncryption": encryption }))
    }

    /// Returns the same options, with which Orthanc waits two seconds for a server that does not answer.
    pub(crate) fn impatient(&self, encryption: &Value, others: &Value) -> Value {
        self.options(encryption, &with(json!({"OutageTimeout": 2, "ConnectionTimeout": 1}), others))
    }

    /// Starts Orthanc with changes of the section.
    pub(crate) fn orthanc<C: Cloud>(&self, changes: &Value) -> Result<Fixture<C>> {
        self.configured(changes, |builder| builder)
    }

    /// Starts Orthanc with changes of the section and of Orthanc's own options.
    pub(crate) fn configured<C: Cloud>(
        &self,
        changes: &Value,
        orthanc: impl FnOnce(Builder) -> Builder,
    ) -> Result<Fixture<C>> {
        Fixture::configured(changes, |builder| {
            let authority = self.server.authority().map(|path| path.display().to_string());
            orthanc(match authority {
                Some(authority) => builder.section("HttpsCACertificates", authority),
                None => builder,
            })
        })
    }

    /// Checks how many file keys were wrapped and unwrapped since the last call.
    pub(crate) fn expect_counts(&self, wrapped: usize, unwrapped: usize) -> Result<()> {
        let counts = self.server.take_counts();
        ensure!(counts == (wrapped, unwrapped), "{counts:?} instead of {:?}", (wrapped, unwrapped));
        Ok(())
    }
}

/// Returns the wrapped file key in the header of an object, if it is an envelope of a key service.
pub(crate) fn wrapped_key(object: &[u8]) -> Option<Vec<u8>> {
    let header = A2Header::parse(object).ok()??;
    match header.wrap() {
        KeyWrap::Service(wrap) => Some(wrap.wrapped.to_vec()),
        KeyWrap::MasterKey { .. } => None,
    }
}
