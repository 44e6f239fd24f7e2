//! Azure Key Vault and Entra ID, under their own names.
//!
//! The vault is a proxy for HTTPS: a client that is configured with [`KeyVault::proxy`] and trusts
//! [`KeyVault::authority`] reaches all hosts of Azure here, such as `hospital.vault.azure.net`. Every other host refuses all
//! requests, and [`KeyVault::requests`] shows which ones a client has sent there.
//!
//! File keys are really encrypted with RSA-OAEP-256. What differs from Azure: a token is a random text, a key has no
//! policies and no dates, and there are no operations but `wrapkey`, `unwrapkey`, and reading a key.

mod answer;
mod connection;
mod entra;
mod keys;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use self::connection::{Acceptor, accept};
use self::entra::EntraId;
use self::keys::Keys;
use crate::tls::Certificates;

/// The hosts of this server. Those of an attacker have valid certificates, too.
const HOSTS: [&str; 13] = [
    "*.vault.azure.net",
    "*.managedhsm.azure.net",
    "*.vault.azure.cn",
    "*.vault.usgovcloudapi.net",
    "login.microsoftonline.com",
    "login.windows.net",
    "login.chinacloudapi.cn",
    "login.microsoftonline.us",
    "attacker.example",
    "*.attacker.example",
    "*.net.attacker.example",
    "*.vault.azure.net.attacker.example",
    "login.microsoftonline.com.attacker.example",
];

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultOperation {
    /// A request without a valid token, which the vault answers with its tenant.
    Challenge,
    /// A token of Entra ID.
    Token,
    /// A key's public part, with its newest version.
    GetKey,
    /// Wrapping a file key.
    WrapKey,
    /// Unwrapping a file key.
    UnwrapKey,
    /// Anything else, or anything at another host.
    Other,
}

/// How a request fails.
#[derive(Debug, Clone)]
pub enum VaultFault {
    /// A refusal with this status, and with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// A refusal that quotes the request.
    Echo,
    /// No answer at all.
    Silence,
    /// The status 200 with this body.
    Body(String),
    /// A redirect (307) to this URL.
    Redirect(String),
}

/// The client that may use the vault.
#[derive(Debug, Clone)]
pub struct VaultClient {
    /// The tenant.
    pub tenant: String,
    /// The client's id.
    pub id: String,
    /// The client's secret.
    pub secret: String,
}

impl Default for VaultClient {
    fn default() -> Self {
        Self {
            tenant: "72f988bf-0000-4000-8000-2d7cd011db47".to_owned(),
            id: "0c8b6a34-0000-4000-8000-orthanc".to_owned(),
            secret: "client-secret-of-the-vault".to_owned(),
        }
    }
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRequest {
    /// The host.
    pub host: String,
    /// What was asked for.
    pub operation: VaultOperation,
    /// Path and query.
    pub target: String,
    /// The status of the answer; `None` for silence.
    pub status: Option<u16>,
}

/// A vault on a port of 127.0.0.1, with its own thread. Dropping it stops it.
#[derive(Debug)]
pub struct KeyVault {
    state: Arc<State>,
    address: SocketAddr,
    authority: String,
    /// `None` only during drop.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct State {
    keys: Keys,
    entra: EntraId,
    /// The challenge in place of the true one.
    challenge: Mutex<Option<String>>,
    permitted: Mutex<Vec<VaultOperation>>,
    faults: Mutex<Vec<(VaultOperation, VaultFault)>>,
    requests: Mutex<Vec<VaultRequest>>,
}

impl KeyVault {
    /// Starts a vault without keys.
    ///
    /// # Errors
    ///
    /// Fails if the port or the thread cannot be opened.
    pub fn start(client: VaultClient) -> io::Result<Self> {
        let certificates = Certificates::issue("Not Azure", &HOSTS).map_err(io::Error::other)?;
        let acceptor = Acceptor::new(&certificates)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            keys: Keys::default(),
            entra: EntraId::new(client),
            challenge: Mutex::default(),
            permitted: Mutex::new(vec![
                VaultOperation::GetKey,
                VaultOperation::WrapKey,
                VaultOperation::UnwrapKey,
            ]),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, acceptor, Arc::clone(&state)));
        Ok(Self { state, address, authority: certificates.authority, runtime: Some(runtime) })
    }

    /// Returns `http://127.0.0.1:PORT`, the proxy through which clients reach the vault.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the certificate of the authority that clients must trust, in PEM format.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Creates a key, or the next version of it, in all vaults. Returns the version.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be generated.
    pub fn create_key(&self, name: &str) -> io::Result<String> {
        self.state.keys.create(name)
    }

    /// Disables a version of a key, or enables it again.
    pub fn enable(&self, version: &str, is_enabled: bool) {
        self.state.keys.enable(version, is_enabled);
    }

    /// Lets the client do only these operations.
    pub fn permit(&self, operations: &[VaultOperation]) {
        *self.state.permitted.lock() = operations.to_vec();
    }

    /// Lets the next `times` requests for `operation` fail.
    pub fn fault(&self, operation: VaultOperation, fault: &VaultFault, times: usize) {
        let faults = std::iter::repeat_with(|| (operation, fault.clone())).take(times);
        self.state.faults.lock().extend(faults);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.state.faults.lock().clear();
    }

    /// Answers requests without token with another challenge.
    pub fn set_challenge(&self, challenge: &str) {
        *self.state.challenge.lock() = Some(challenge.to_owned());
    }

    /// Makes all tokens invalid that were issued so far.
    pub fn revoke_tokens(&self) {
        self.state.entra.revoke();
    }

    /// Makes a token that is valid for a resource, as a managed identity gets it.
    #[must_use]
    pub fn token(&self, resource: &str) -> String {
        self.state.entra.issue(resource)
    }

    /// Returns the file keys that were to be wrapped, for searches in logs.
    #[must_use]
    pub fn plaintexts(&self) -> Vec<Vec<u8>> {
        self.state.keys.plaintexts()
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<VaultRequest> {
        self.state.requests.lock().clone()
    }

    /// Returns the operations of all requests since the last call.
    #[must_use]
    pub fn take_operations(&self) -> Vec<VaultOperation> {
        let requests = std::mem::take(&mut *self.state.requests.lock());
        requests.into_iter().map(|request| request.operation).collect()
    }
}

impl Drop for KeyVault {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
