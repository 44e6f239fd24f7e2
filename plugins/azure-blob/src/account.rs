//! A storage account: where it is, and what opens it.

use std::fmt;

use object_store::azure::AzureAccessKey;
use storage_plugin::parse_endpoint;
use url::Url;

/// The domain of Azure's public cloud.
pub(crate) const PUBLIC_CLOUD: &str = "core.windows.net";

/// A storage account.
#[derive(Debug)]
pub(crate) struct Account {
    /// The name that goes into signatures.
    pub(crate) name: String,
    /// The URL under which its containers are.
    pub(crate) endpoint: Url,
    pub(crate) credentials: Credentials,
}

/// What opens an account.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// Its key.
    Key(AzureAccessKey),
    /// A shared access signature, of the account or of the container: the parameters of its query.
    Signature(Vec<(String, String)>),
    /// The identity that this machine or program has: see `credentials`.
    Identity,
}

impl fmt::Debug for Credentials {
    /// Which kind, and no more: keys and signatures are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Signature(_) => "Signature(…)",
            Self::Identity => "Identity",
        })
    }
}

/// The endpoint of an account in a cloud's domain.
pub(crate) fn endpoint(scheme: &str, account: &str, domain: &str) -> Option<Url> {
    parse_endpoint(&format!("{scheme}://{account}.blob.{domain}"))
}

/// The endpoint that somebody has spelled.
pub(crate) fn spelled_endpoint(text: &str) -> Option<Url> {
    parse_endpoint(text.trim_end_matches('/'))
}

/// Whether `name` can be an account's: 3 to 24 small letters and digits.
pub(crate) fn is_account_name(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
