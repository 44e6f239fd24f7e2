//! The options of a key in a vault. They have the names that the earlier plugin for Azure Key Vault gave them.

use storage_plugin::{ConfigError, Section};

use super::challenge::is_tenant;
use super::client_secret::Client;
use super::key_id::KeyId;

const KID: &str = "kid";
const BASE_URL: &str = "baseUrl";
const CLIENT: &str = "clientId";
const SECRET: &str = "clientSecret";
const TENANT: &str = "tenantId";

#[derive(Debug)]
pub(crate) struct KeyOptions {
    pub(crate) key: KeyId,
    /// `None` for the identity of this machine or program.
    pub(crate) client: Option<Client>,
}

impl KeyOptions {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self { key: key(section)?, client: client(section)? })
    }
}

fn key(section: &mut Section<'_>) -> Result<KeyId, ConfigError> {
    const URL: &str =
        "https://NAME.vault.azure.net/keys/KEY or https://NAME.vault.azure.net/keys/KEY/VERSION";
    let kid = section.required(KID)?;
    let Some(base) = section.non_empty(BASE_URL)? else {
        let expected =
            format!("must be the URL of a key such as {URL}; for the name of a key, set {BASE_URL} too");
        return KeyId::parse(kid.trim()).ok_or_else(|| section.error(KID, expected));
    };
    let named = |name: &str| KeyId::in_vault(base.trim(), name);
    let vault = named("key").ok_or_else(|| {
        section.error(BASE_URL, "must be the URL of a vault such as https://NAME.vault.azure.net/")
    })?;
    match KeyId::parse(kid.trim()) {
        Some(key) if key.vault() == vault.vault() => Ok(key),
        Some(_) => {
            Err(section.error(KID, format!("must be a key of the vault at {BASE_URL}; remove {BASE_URL}")))
        }
        None => named(kid.trim()).ok_or_else(|| {
            section.error(KID, format!("must be the name of a key, or its URL such as {URL}"))
        }),
    }
}

fn client(section: &mut Section<'_>) -> Result<Option<Client>, ConfigError> {
    let id = section.non_empty(CLIENT)?;
    let secret = section.secret(SECRET)?;
    let tenant = section.non_empty(TENANT)?.map(|tenant| tenant.trim().to_owned());
    if tenant.as_deref().is_some_and(|tenant| !is_tenant(tenant)) {
        return Err(section.error(TENANT, "must be the id of a tenant of Entra ID, or its domain"));
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Some(Client { id: id.trim().to_owned(), secret, tenant })),
        (None, None) if tenant.is_none() => Ok(None),
        (None, _) => Err(section.missing(CLIENT, &format!("set {CLIENT} and {SECRET}, or neither"))),
        (Some(_), None) => Err(section.missing(SECRET, &format!("set {CLIENT} and {SECRET}, or neither"))),
    }
}
