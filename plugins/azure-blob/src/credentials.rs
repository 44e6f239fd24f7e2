//! What requests are signed with.
//!
//! With an `AccountName` alone, the identity is looked for where Azure's own tools look: a service principal or a
//! workload identity in the environment, else the machine's managed identity, else the user of the Azure CLI.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloud_http::{CloudHttp, CredentialError, no_retries};
use object_store::azure::{AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::{CredentialProvider, Result, StaticCredentialProvider};
use parking_lot::Mutex;
use storage_plugin::NamedCredentials;
use tokio::runtime::Handle;

use crate::account::Credentials;

/// The longest time for a token of Entra ID, in the whole.
const ENTRA: Duration = Duration::from_secs(30);
/// The service answers from the same machine or not at all. Less than the check at start takes, with the next.
const MANAGED_IDENTITY: Duration = Duration::from_secs(4);
/// It is a program that asks Entra ID.
const COMMAND_LINE: Duration = Duration::from_secs(30);

/// A provider of `credentials`.
pub(crate) fn provider(credentials: &Credentials, http: &CloudHttp) -> Result<AzureCredentialProvider> {
    let fixed =
        |credential| Ok(Arc::new(StaticCredentialProvider::new(credential)) as AzureCredentialProvider);
    match credentials.clone() {
        Credentials::Key(key) => fixed(AzureCredential::AccessKey(key)),
        Credentials::Signature(pairs) => fixed(AzureCredential::SASToken(pairs)),
        Credentials::Identity => identity(http),
    }
}

fn identity(http: &CloudHttp) -> Result<AzureCredentialProvider> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut builder = MicrosoftAzureBuilder::new()
        // Both are asked for, and of no importance to tokens.
        .with_account("account")
        .with_container_name("container")
        .with_retry(no_retries())
        .with_http_connector(http.clone());
    if let Some(host) = variable("AZURE_AUTHORITY_HOST") {
        builder = builder.with_authority_host(host.trim_end_matches('/'));
    }
    let (tenant, client) = (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"));
    if let (Some(tenant), Some(client)) = (tenant, client.clone()) {
        let builder = builder.clone().with_tenant_id(tenant).with_client_id(client);
        if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
            let advice = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
            let provider = of_type("client_secret", builder.with_client_secret(secret))?;
            return Ok(Arc::new(NamedCredentials::new(provider, "Entra ID", advice, ENTRA)));
        }
        if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
            let advice =
                "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the file that AZURE_FEDERATED_TOKEN_FILE names";
            let provider = of_type("workload_identity", builder.with_federated_token_file(file))?;
            return Ok(Arc::new(NamedCredentials::new(provider, "Entra ID", advice, ENTRA)));
        }
    }
    let mut managed = builder.clone();
    if let Some(client) = client {
        managed = managed.with_client_id(client);
    }
    // App Service and Container Apps have their own; virtual machines have the one that `object_store` knows.
    if let Some(endpoint) = variable("IDENTITY_ENDPOINT") {
        managed = managed.with_msi_endpoint(endpoint);
    }
    Ok(Arc::new(MachineOrUser {
        machine: NamedCredentials::new(
            of_type("managed_identity", managed)?,
            "the managed identity service",
            "give this machine an identity that may use the container",
            MANAGED_IDENTITY,
        ),
        user: NamedCredentials::new(
            Arc::new(OnThreadOfItsOwn(of_type("azure_cli", builder)?)),
            "the Azure CLI",
            "run az login as the user that Orthanc runs as",
            COMMAND_LINE,
        ),
        chosen: Mutex::new(None),
    }))
}

/// The provider that `object_store` has for a type of credentials.
fn of_type(credential_type: &str, builder: MicrosoftAzureBuilder) -> Result<AzureCredentialProvider> {
    Ok(Arc::clone(builder.with_credential_type(credential_type).build()?.credentials()))
}

/// The identity of the machine, or else that of the user of the Azure CLI: whichever gave credentials first.
#[derive(Debug)]
struct MachineOrUser {
    machine: NamedCredentials<AzureCredential>,
    user: NamedCredentials<AzureCredential>,
    chosen: Mutex<Option<Identity>>,
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
        let of_machine = match self.machine.get_credential().await {
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
            Err(of_user) => Err(neither(&of_machine, &of_user)),
        }
    }
}

fn neither(of_machine: &object_store::Error, of_user: &object_store::Error) -> object_store::Error {
    let errors = [of_machine, of_user].into_iter().filter_map(|error| CredentialError::find(error));
    let (reasons, transient): (Vec<_>, Vec<_>) =
        errors.map(|error| (error.reason.as_str(), error.transient)).unzip();
    let error = CredentialError { reason: reasons.join("; "), transient: transient.contains(&true) };
    object_store::Error::Generic { store: "credentials", source: Box::new(error) }
}

/// `object_store` waits for the program `az` where it is called: not on a thread that other requests need.
struct OnThreadOfItsOwn(AzureCredentialProvider);

#[async_trait]
impl CredentialProvider for OnThreadOfItsOwn {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> Result<Arc<AzureCredential>> {
        let (provider, handle) = (Arc::clone(&self.0), Handle::current());
        let fetch = move || handle.block_on(provider.get_credential());
        tokio::task::spawn_blocking(fetch)
            .await
            .map_err(|source| object_store::Error::JoinError { source })?
    }
}

impl fmt::Debug for OnThreadOfItsOwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnThreadOfItsOwn")
    }
}
