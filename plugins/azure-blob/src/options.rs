//! The options of the section `AzureBlobStorage` that are Azure's own.

use object_store::azure::AzureAccessKey;
use object_store::{Attribute, PutOptions};
use storage_plugin::{ConfigError, Section};

use crate::account::{Account, Credentials, PUBLIC_CLOUD, endpoint, is_account_name, spelled_endpoint};
use crate::connection_string;

const ACCESS_TIERS: &[&str] = &["Hot", "Cool", "Cold", "Archive", "Premium"];
/// Options of an earlier plugin, which named and encrypted its blobs in another way.
const KEY_VAULT_OPTIONS: [&str; 5] =
    ["EnableStorage", "EncryptionEnabled", "KeyDecayCount", "KeyPoolSize", "AzureKeyVault"];

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) account: Account,
    pub(crate) container: String,
    pub(crate) create_container: bool,
    pub(crate) access_tier: Option<&'static str>,
    pub(crate) put_options: PutOptions,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        for option in KEY_VAULT_OPTIONS {
            if section.has(option) {
                return Err(section.error(
                    option,
                    "belongs to the plugin for Azure Key Vault, whose files this release cannot read yet: remove it for \
                     a storage without",
                ));
            }
        }
        let access_tier = section.choice("AccessTier", ACCESS_TIERS)?;
        let mut put_options = PutOptions::default();
        if let Some(tier) = access_tier {
            put_options.attributes.insert(Attribute::StorageClass, tier.into());
        }
        Ok(Self {
            account: account(section)?,
            container: container(section)?,
            create_container: section.flag("CreateContainerIfNotExists", true)?,
            access_tier,
            put_options,
        })
    }
}

/// `ConnectionString`, or else `AccountName` with what goes with it.
fn account(section: &mut Section<'_>) -> Result<Account, ConfigError> {
    // Empty ones are none: templates leave them so.
    let string = section.secret("ConnectionString")?.filter(|string| !string.expose().trim().is_empty());
    let name = section.text("AccountName")?.filter(|name| !name.is_empty());
    let key = section.secret("AccountKey")?.filter(|key| !key.expose().is_empty());
    let spelled = section.text("BlobEndpoint")?.filter(|endpoint| !endpoint.is_empty());
    let name = match (string, name) {
        (Some(string), None) => {
            return connection_string::parse(string.expose().trim())
                .map_err(|problem| section.error("ConnectionString", problem));
        }
        (None, Some(name)) => name,
        (Some(_), Some(_)) => {
            return Err(
                section.error("AccountName", "is given beside ConnectionString: one of them is needed")
            );
        }
        (None, None) => {
            return Err(section.error("ConnectionString", "is missing: it, or an AccountName, is needed"));
        }
    };
    let endpoint = match &spelled {
        Some(spelled) => spelled_endpoint(spelled).ok_or_else(|| {
            section.error("BlobEndpoint", "is no URL: https://host[:port][/path] is needed")
        })?,
        None => Some(&name)
            .filter(|name| is_account_name(name))
            .and_then(|name| endpoint("https", name, PUBLIC_CLOUD))
            .ok_or_else(|| {
                section
                    .error("AccountName", "cannot be one: 3 to 24 letters from a to z and digits are needed")
            })?,
    };
    let credentials = match key {
        None => Credentials::Identity,
        Some(key) => Credentials::Key(AzureAccessKey::try_new(key.expose().trim()).map_err(|_| {
            section.error("AccountKey", "is no base64: copy the whole key, with the = at its end")
        })?),
    };
    Ok(Account { name, endpoint, credentials })
}

/// `ContainerName`, by Azure's rules; those of its own begin with `$`.
fn container(section: &mut Section<'_>) -> Result<String, ConfigError> {
    let name = section.required_text("ContainerName")?.trim().to_owned();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ordinary = (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if ordinary || matches!(name.as_str(), "$root" | "$web") {
        return Ok(name);
    }
    let needed = "3 to 63 letters from a to z, digits and single hyphens between them are needed";
    Err(section.error("ContainerName", format!("is {name:?}: {needed}")))
}
