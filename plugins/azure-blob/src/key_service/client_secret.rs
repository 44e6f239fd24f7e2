//! Tokens of a client with a secret, in the tenant that the vault names.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloud_http::{CloudHttp, CredentialError};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use object_store::azure::{AzureCredential, AzureCredentialProvider};
use object_store::client::HttpService;
use object_store::{CredentialProvider, Result};
use storage_plugin::Secret;
use tokio::sync::OnceCell;

use super::challenge::{Tenant, audience};
use super::key_id::KeyId;
use super::requests::get;
use crate::container::failed;
use crate::credentials::Principal;

const ADVICE: &str = "check clientId, clientSecret and tenantId";

/// A client of Entra ID.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    /// `None` if the vault is to be asked.
    pub(crate) tenant: Option<String>,
}

/// Gets tokens, and before the first one the tenant.
pub(crate) struct ClientTokens {
    client: Client,
    key: KeyId,
    http: CloudHttp,
    tokens: OnceCell<AzureCredentialProvider>,
}

impl ClientTokens {
    pub(crate) fn new(client: Client, key: KeyId, http: CloudHttp) -> Self {
        Self { client, key, http, tokens: OnceCell::new() }
    }

    async fn provider(&self) -> Result<AzureCredentialProvider> {
        let audience = audience(self.key.vault());
        let Tenant { authority, id } = match &self.client.tenant {
            Some(id) => Tenant { authority: audience.authority(), id: id.clone() },
            None => self.ask_for_tenant(&audience.authority()).await?,
        };
        let Client { id: client, secret, .. } = &self.client;
        let principal = Principal { authority: &authority, tenant: &id, client, secret: secret.expose() };
        principal.tokens(&self.http, &audience, ADVICE)
    }

    /// Sends a request without token, which the vault refuses with its tenant.
    async fn ask_for_tenant(&self, own_authority: &str) -> Result<Tenant> {
        let answer = self.http.call(get(&self.key.url(None))?).await.map_err(|error| failed(error.into()))?;
        if !matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::OK) {
            return Err(failed("the vault did not name its tenant".into()));
        }
        let mut challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let tenant = challenges.find_map(|challenge| {
            Tenant::of_challenge(challenge.to_str().ok()?, self.key.host(), own_authority)
        });
        tenant.ok_or_else(|| {
            let reason =
                "the vault does not name a tenant of Entra ID that tokens for its domain come from; set \
                          tenantId, and check kid"
                    .to_owned();
            failed(Box::new(CredentialError { reason, transient: false }))
        })
    }
}

#[async_trait]
impl CredentialProvider for ClientTokens {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> Result<Arc<AzureCredential>> {
        self.tokens.get_or_try_init(|| self.provider()).await?.get_credential().await
    }
}

impl fmt::Debug for ClientTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTokens").field("client", &self.client).finish_non_exhaustive()
    }
}
