//! The options in the section `AzureBlobStorage` that are specific to Azure.

use object_store::{Attribute, PutOptions};
use storage_plugin::{ConfigError, Section, bucket_name};
use url::Url;

use crate::connection_string;
use crate::credentials::Credentials;
use crate::endpoint;
use crate::shared_key::AccountKey;

const ACCESS_TIERS: &[&str] = &["Hot", "Cool", "Cold", "Archive", "Premium"];

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) account: Account,
    pub(crate) container: String,
    pub(crate) create_container: bool,
    pub(crate) access_tier: Option<&'static str>,
    pub(crate) put_options: PutOptions,
}

/// A storage account.
#[derive(Debug)]
pub(crate) struct Account {
    /// The name that is part of signatures.
    pub(crate) name: String,
    /// The URL of its containers.
    pub(crate) endpoint: Url,
    pub(crate) credentials: Credentials,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
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

/// Reads `ConnectionString`, or else `AccountName` and the options that belong to it.
fn account(section: &mut Section<'_>) -> Result<Account, ConfigError> {
    let string = section.secret("ConnectionString")?.filter(|string| !string.expose().trim().is_empty());
    let account_name = section.non_empty("AccountName")?;
    let key = section.secret("AccountKey")?;
    let blob_endpoint = section.non_empty("BlobEndpoint")?;
    let name = match (string, account_name) {
        (Some(string), None) => {
            return connection_string::parse(string.expose().trim())
                .map_err(|problem| section.error("ConnectionString", problem));
        }
        (None, Some(name)) => name,
        (Some(_), Some(_)) => {
            return Err(section.error("AccountName", "must not be set together with ConnectionString"));
        }
        (None, None) => {
            return Err(section.missing("ConnectionString", "set it or AccountName"));
        }
    };
    let endpoint = match blob_endpoint {
        // The value is not quoted, because it may contain a shared access signature.
        Some(text) => endpoint::parse(&text, Some(&name)).ok_or_else(|| {
            let problem = format!("must be {}", endpoint::EXPECTED);
            section.error("BlobEndpoint", problem)
        })?,
        // The value is not quoted, because it may be the key in the wrong place.
        None => Some(&name)
            .filter(|name| endpoint::is_account_name(name))
            .and_then(|name| endpoint::standard("https", name, endpoint::PUBLIC_CLOUD))
            .ok_or_else(|| section.error("AccountName", "must be 3 to 24 lowercase letters and digits"))?,
    };
    let credentials = match key {
        None => Credentials::Identity,
        Some(key) => Credentials::Key(AccountKey::parse(key.expose()).ok_or_else(|| {
            let problem = "must be valid base64; copy the entire key, including the trailing `=`";
            section.error("AccountKey", problem)
        })?),
    };
    Ok(Account { name, endpoint, credentials })
}

/// Reads `ContainerName` and checks it by Azure's rules. The names of Azure's own containers begin with `$`.
fn container(section: &mut Section<'_>) -> Result<String, ConfigError> {
    let name = bucket_name(section, "ContainerName")?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ordinary = (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if ordinary || matches!(name.as_str(), "$root" | "$web") {
        return Ok(name);
    }
    Err(section.error(
        "ContainerName",
        format!(
            "must be 3 to 63 characters: lowercase letters, digits and single hyphens, starting and ending with a \
             letter or digit{}",
            connection_string::got(&name)
        ),
    ))
}
