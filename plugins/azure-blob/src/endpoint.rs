//! The address of a storage account.

use storage_plugin::parse_endpoint;
use url::{Host, Url};

/// The form of an endpoint, in messages.
pub(crate) const EXPECTED: &str = "https://host[:port], on an emulator https://host[:port]/account";
/// The domain of Azure's public cloud.
pub(crate) const PUBLIC_CLOUD: &str = "core.windows.net";

/// Returns the endpoint of an account in a cloud's domain.
pub(crate) fn standard(scheme: &str, account: &str, domain: &str) -> Option<Url> {
    parse_endpoint(&format!("{scheme}://{account}.blob.{domain}")).filter(|url| url.path() == "/")
}

/// Parses an endpoint as a user writes it, perhaps with a slash at its end. Its path can only be the name of the account,
/// which is in the path on emulators: any other would become part of the names of blobs.
pub(crate) fn parse(text: &str, account: Option<&str>) -> Option<Url> {
    let url = parse_endpoint(text.trim_end_matches('/'))?;
    let path = url.path().trim_start_matches('/');
    let in_host = matches!(url.host(), Some(Host::Domain(domain)) if domain.contains(".blob."));
    let is_account = match account {
        Some(account) => path == account,
        None => !path.contains('/'),
    };
    (path.is_empty() || is_account && !in_host).then_some(url)
}

/// Whether `name` is a valid account name: 3 to 24 lowercase letters and digits.
pub(crate) fn is_account_name(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Returns the account in `https://account.blob.core.windows.net` or `http://127.0.0.1:10000/account`.
pub(crate) fn account_name(endpoint: &Url) -> String {
    let in_path = endpoint.path_segments().and_then(|mut path| path.next()).filter(|name| !name.is_empty());
    let in_host = match endpoint.host() {
        Some(Host::Domain(domain)) => domain.split('.').next(),
        _ => None,
    };
    in_path.or(in_host).unwrap_or_default().to_owned()
}
