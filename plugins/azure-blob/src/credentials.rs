//! Credentials: the key of an account, a shared access signature, or the identity of this machine or program.
//!
//! With an `AccountName` alone, the plugin uses the same identity as Azure's own tools: a service principal or a workload
//! identity in the environment, else the machine's managed identity, else the user of the Azure CLI.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cloud_http::{CloudHttp, CredentialError, Renewable, no_retries};
use object_store::azure::{AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::{CredentialProvider, Result, StaticCredentialProvider};
use parking_lot::Mutex;
use storage_plugin::{CloudMachine, NamedCredentials, Reloading, TokenService};

use crate::azure_cli::AzureCli;
use crate::shared_key::{AccountKey, AzureHttp, Signer};
use crate::token_requests::TokenRequests;

/// The environment variable with the identity service of App Service and Container Apps, which is not that of virtual
/// machines.
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

/// The environment variable with the URL of Entra ID, for other clouds than the public one.
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";

const CLIENT_SECRET: TokenService = TokenService {
    name: "Entra ID",
    advice: "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    limit: Duration::from_secs(30),
    may_exist: || true,
};
const WORKLOAD_IDENTITY: TokenService = TokenService {
    advice: "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the file that AZURE_FEDERATED_TOKEN_FILE names",
    ..CLIENT_SECRET
};
/// The service answers from the same machine or not at all.
const MANAGED_IDENTITY: TokenService = TokenService {
    name: "the managed identity service",
    advice: "set ConnectionString or AccountKey, or give this machine an identity that may use the container",
    // This limit and the next together are below the limit of the check at start.
    limit: Duration::from_secs(4),
    may_exist: || variable(IDENTITY_ENDPOINT).is_some() || CloudMachine::Azure.is_this() != Some(false),
};
const COMMAND_LINE: TokenService = TokenService {
    name: "the Azure CLI",
    advice: "run az login as the user that Orthanc runs as",
    // The program `az` itself calls Entra ID, so allow as long.
    limit: Duration::from_secs(30),
    may_exist: || false,
};
/// All of these services.
#[cfg(test)]
pub(crate) const SERVICES: [TokenService; 4] =
    [CLIENT_SECRET, WORKLOAD_IDENTITY, MANAGED_IDENTITY, COMMAND_LINE];

/// The code with which the emulator refuses tokens that are not valid any more. Azure does so with status 401.
const REFUSALS: &[&str] = &["AuthenticationFailed"];

/// The service that tokens are for.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    /// Its name in requests for tokens.
    pub(crate) resource: String,
    /// The host of Entra ID, unless the environment has another.
    pub(crate) authority: &'static str,
    /// The remedy if this machine has no identity.
    pub(crate) advice: &'static str,
}

impl Audience {
    fn storage() -> Self {
        Self {
            resource: "https://storage.azure.com".to_owned(),
            authority: "https://login.microsoftonline.com",
            advice: MANAGED_IDENTITY.advice,
        }
    }

    /// Returns the URL of Entra ID, without a slash at the end.
    pub(crate) fn authority(&self) -> String {
        let authority = variable(AUTHORITY_HOST);
        authority.as_deref().unwrap_or(self.authority).trim_end_matches('/').to_owned()
    }

    /// Returns a client of Entra ID at `authority`.
    fn builder(&self, http: &CloudHttp, authority: &str) -> MicrosoftAzureBuilder {
        MicrosoftAzureBuilder::new()
            // The builder requires both; tokens do not depend on them.
            .with_account("account")
            .with_container_name("container")
            .with_authority_host(authority)
            .with_retry(no_retries())
            .with_http_connector(TokenRequests::new(http.for_tokens(), self.resource.clone()))
    }
}

/// A client of Entra ID with a secret, in a tenant.
pub(crate) struct Principal<'a> {
    /// The URL of Entra ID.
    pub(crate) authority: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) client: &'a str,
    pub(crate) secret: &'a str,
}

impl Principal<'_> {
    /// Returns its tokens for a service. Errors have `advice`.
    pub(crate) fn tokens(
        &self,
        http: &CloudHttp,
        audience: &Audience,
        advice: &'static str,
    ) -> Result<AzureCredentialProvider> {
        let builder = audience.builder(http, self.authority).with_tenant_id(self.tenant);
        let builder = builder.with_client_id(self.client).with_client_secret(self.secret);
        Ok(named(&of_type("client_secret", builder)?, TokenService { advice, ..CLIENT_SECRET }))
    }
}

/// What opens an account.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// The account's key.
    Key(AccountKey),
    /// A shared access signature of the account or the container: the parameters of its query.
    Signature(Vec<(String, String)>),
    /// The identity of this machine or program.
    Identity,
}

impl Credentials {
    /// Returns where the credentials come from.
    pub(crate) fn source(&self) -> &'static str {
        match self {
            Self::Key(_) => "the account's key in the section",
            Self::Signature(_) => "the shared access signature in the section",
            Self::Identity
                if variable("AZURE_TENANT_ID").is_none() || variable("AZURE_CLIENT_ID").is_none() =>
            {
                "managed identity, or else the Azure CLI"
            }
            Self::Identity if variable("AZURE_CLIENT_SECRET").is_some() => {
                "AZURE_CLIENT_SECRET in the environment"
            }
            Self::Identity if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() => {
                "the workload identity in AZURE_FEDERATED_TOKEN_FILE"
            }
            Self::Identity => "managed identity, or else the Azure CLI",
        }
    }

    /// Returns a provider of these credentials, and a client of `account` that renews them.
    pub(crate) fn provider(
        &self,
        account: &str,
        http: CloudHttp,
    ) -> Result<(AzureCredentialProvider, AzureHttp)> {
        let fixed = |credential| Arc::new(StaticCredentialProvider::new(credential));
        Ok(match self {
            Self::Key(key) => {
                let signer = Signer::new(account, key.clone());
                let http = http.with_clock(Arc::clone(&signer.clock));
                (fixed(AzureCredential::AccessKey(key.key.clone())), AzureHttp { http, signer: Some(signer) })
            }
            Self::Signature(pairs) => {
                (fixed(AzureCredential::SASToken(pairs.clone())), AzureHttp { http, signer: None })
            }
            Self::Identity => {
                let (provider, renewable) = identity(&http, &Audience::storage())?;
                (provider, AzureHttp { http: http.with_renewal(renewable, REFUSALS), signer: None })
            }
        })
    }
}

impl fmt::Debug for Credentials {
    /// Shows only the kind, since keys and signatures are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Signature(_) => "Signature(…)",
            Self::Identity => "Identity",
        })
    }
}

/// Returns the tokens of the identity of this machine or program for a service.
pub(crate) fn identity(
    http: &CloudHttp,
    audience: &Audience,
) -> Result<(AzureCredentialProvider, Arc<dyn Renewable>)> {
    let tenant = variable("AZURE_TENANT_ID");
    let client = variable("AZURE_CLIENT_ID");
    let builder = audience.builder(http, &audience.authority());
    if let (Some(tenant), Some(client)) = (tenant, &client) {
        let principal = builder.clone().with_tenant_id(tenant).with_client_id(client);
        if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
            let tokens = of_type("client_secret", principal.with_client_secret(secret))?;
            return Ok((named(&tokens, CLIENT_SECRET), tokens));
        }
        if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
            let tokens = of_type("workload_identity", principal.with_federated_token_file(file))?;
            return Ok((named(&tokens, WORKLOAD_IDENTITY), tokens));
        }
    }
    let mut managed = builder;
    if let Some(client) = client {
        managed = managed.with_client_id(client);
    }
    // `object_store` knows that of virtual machines.
    if let Some(endpoint) = variable(IDENTITY_ENDPOINT) {
        managed = managed.with_msi_endpoint(endpoint);
    }
    let machine = of_type("managed_identity", managed)?;
    let resource = audience.resource.clone();
    let user = move || Arc::new(AzureCli::new(resource.clone())) as AzureCredentialProvider;
    let user = Arc::new(Reloading::new(user(), move || Ok(user())));
    let managed_identity = TokenService { advice: audience.advice, ..MANAGED_IDENTITY };
    let either = Arc::new(MachineOrUser {
        machine: NamedCredentials::new(Arc::<Tokens>::clone(&machine), managed_identity),
        user: NamedCredentials::new(Arc::<Tokens>::clone(&user), COMMAND_LINE),
        renewable: (machine, user),
        chosen: Mutex::new(None),
    });
    Ok((Arc::<MachineOrUser>::clone(&either), either))
}

/// Tokens of Entra ID.
type Tokens = Reloading<AzureCredential>;

fn named(tokens: &Arc<Tokens>, service: TokenService) -> AzureCredentialProvider {
    Arc::new(NamedCredentials::new(Arc::<Tokens>::clone(tokens), service))
}

/// Returns an environment variable without white space around it, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns `object_store`'s provider for a type of credentials.
fn of_type(credential_type: &str, builder: MicrosoftAzureBuilder) -> Result<Arc<Tokens>> {
    let builder = builder.with_credential_type(credential_type);
    let provider = move || Ok(Arc::clone(builder.clone().build()?.credentials()));
    let first: AzureCredentialProvider = provider()?;
    let unusable = |_: object_store::Error| "the settings in the environment are not valid".to_owned();
    Ok(Arc::new(Reloading::new(first, move || provider().map_err(unusable))))
}

/// The identity of the machine, or else that of the user of the Azure CLI. The first that works is kept.
#[derive(Debug)]
struct MachineOrUser {
    machine: NamedCredentials<AzureCredential>,
    user: NamedCredentials<AzureCredential>,
    /// The tokens of both.
    renewable: (Arc<Tokens>, Arc<Tokens>),
    chosen: Mutex<Option<Identity>>,
}

impl Renewable for MachineOrUser {
    fn refused(&self, used: Instant) -> bool {
        let (machine, user) = &self.renewable;
        match *self.chosen.lock() {
            Some(Identity::Machine) => machine.refused(used),
            Some(Identity::User) => user.refused(used),
            None => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Identity {
    Machine,
    User,
}

#[async_trait]
impl CredentialProvider for MachineOrUser {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> Result<Arc<AzureCredential>> {
        let chosen = *self.chosen.lock();
        match chosen {
            Some(Identity::Machine) => return self.machine.get_credential().await,
            Some(Identity::User) => return self.user.get_credential().await,
            None => {}
        }
        let machine_error = match self.machine.get_credential().await {
            Ok(credential) => {
                *self.chosen.lock() = Some(Identity::Machine);
                return Ok(credential);
            }
            Err(error) => error,
        };
        match self.user.get_credential().await {
            Ok(credential) => {
                *self.chosen.lock() = Some(Identity::User);
                Ok(credential)
            }
            Err(user_error) => Err(join(&machine_error, &user_error)),
        }
    }
}

/// Joins the errors of both identities.
fn join(machine: &object_store::Error, user: &object_store::Error) -> object_store::Error {
    let errors = [machine, user].into_iter().filter_map(|error| CredentialError::find(error));
    let (reasons, transient): (Vec<_>, Vec<_>) =
        errors.map(|error| (error.reason.as_str(), error.transient)).unzip();
    let error = CredentialError { reason: reasons.join("; "), transient: transient.contains(&true) };
    object_store::Error::Generic { store: "credentials", source: Box::new(error) }
}
