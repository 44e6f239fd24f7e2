//! Where tokens for a vault come from: the cloud that a vault belongs to, and the tenant that it names.
//!
//! A vault answers a request without a token with a challenge that names its tenant:
//! `WWW-Authenticate: Bearer authorization="https://login.microsoftonline.com/TENANT", resource="https://vault.azure.net"`.
//! The client's secret is sent there, so the challenge is only accepted if it names Entra ID, and the vault's own domain:
//! <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses>

use url::{Host, Url};

use crate::credentials::Audience;

/// Domains of vaults, and Entra ID in the same cloud.
const CLOUDS: [(&str, &str); 6] = [
    ("vault.azure.net", "https://login.microsoftonline.com"),
    ("managedhsm.azure.net", "https://login.microsoftonline.com"),
    ("vault.azure.cn", "https://login.chinacloudapi.cn"),
    ("managedhsm.azure.cn", "https://login.chinacloudapi.cn"),
    ("vault.usgovcloudapi.net", "https://login.microsoftonline.us"),
    ("managedhsm.usgovcloudapi.net", "https://login.microsoftonline.us"),
];
/// All hosts of Entra ID, with those that were used earlier.
const ENTRA_ID: [&str; 6] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
    "login.microsoftonline.us",
    "login.usgovcloudapi.net",
];
const ADVICE: &str =
    "set clientId, clientSecret and tenantId, or give this machine an identity that may use the key";

/// Returns what tokens for `vault` are for.
pub(crate) fn audience(vault: &Url) -> Audience {
    let host = vault.host_str().unwrap_or_default();
    let cloud = CLOUDS.into_iter().find(|(domain, _)| is_below(host, domain));
    let parent = match vault.host() {
        Some(Host::Domain(name)) => name.split_once('.').map_or(name, |(_, parent)| parent),
        _ => host,
    };
    let (domain, authority) = cloud.unwrap_or((parent, CLOUDS[0].1));
    Audience { resource: format!("https://{domain}"), authority, advice: ADVICE }
}

/// A tenant of Entra ID.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// The URL of Entra ID, without a slash at the end.
    pub(crate) authority: String,
    pub(crate) id: String,
}

impl Tenant {
    /// Returns the tenant that the challenge of a vault at `host` names, if both belong together. `own` is the Entra ID of the
    /// configuration.
    pub(crate) fn of_challenge(challenge: &str, host: &str, own: &str) -> Option<Self> {
        let (scheme, list) = challenge.trim().split_once(' ')?;
        let value = |names: [&str; 2]| {
            let pairs = list.split(',').filter_map(|pair| pair.trim().split_once('='));
            let mut named =
                pairs.filter(|(name, _)| names.iter().any(|other| name.eq_ignore_ascii_case(other)));
            named.next().map(|(_, value)| value.trim_matches('"'))
        };
        let authorization = Url::parse(value(["authorization", "authorization_uri"])?).ok()?;
        let resource = Url::parse(value(["resource", "scope"])?).ok()?;
        let is_own_domain = resource.scheme() == "https" && is_below(host, resource.host_str()?);
        let id = authorization.path().trim_matches('/').to_owned();
        let authority = authorization.origin().ascii_serialization();
        let is_entra_id = ENTRA_ID.iter().any(|host| authority == format!("https://{host}"))
            || Url::parse(own).is_ok_and(|own| own.origin() == authorization.origin());
        let is_valid =
            scheme.eq_ignore_ascii_case("bearer") && is_own_domain && is_entra_id && is_tenant(&id);
        is_valid.then_some(Self { authority, id })
    }
}

/// Whether `text` can be the id or the domain of a tenant. It becomes part of a path.
pub(crate) fn is_tenant(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    text.bytes().all(allowed) && text.contains(|letter: char| letter != '.')
}

fn is_below(host: &str, domain: &str) -> bool {
    domain.contains('.')
        && host.strip_suffix(domain).is_some_and(|name| name.len() > 1 && name.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "https://login.microsoftonline.com";

    #[test]
    fn vaults_belong_to_clouds() {
        for (vault, resource, authority) in [
            ("https://v.vault.azure.net", "https://vault.azure.net", PUBLIC),
            ("https://h.managedhsm.azure.net", "https://managedhsm.azure.net", PUBLIC),
            ("https://v.vault.azure.cn", "https://vault.azure.cn", "https://login.chinacloudapi.cn"),
            (
                "https://v.vault.usgovcloudapi.net",
                "https://vault.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            ),
            ("https://v.vault.stack.example", "https://vault.stack.example", PUBLIC),
            ("https://localhost:8443", "https://localhost", PUBLIC),
            ("https://10.0.0.1", "https://10.0.0.1", PUBLIC),
        ] {
            let audience = audience(&vault.parse().unwrap());
            assert_eq!((audience.resource.as_str(), audience.authority), (resource, authority), "{vault}");
        }
    }

    fn tenant(authorization: &str, resource: &str) -> Option<(String, String)> {
        let challenge = format!("Bearer authorization=\"{authorization}\", resource=\"{resource}\"");
        let tenant = Tenant::of_challenge(&challenge, "v.vault.azure.net", "https://own.example:8443");
        tenant.map(|tenant| (tenant.authority, tenant.id))
    }

    #[test]
    fn challenge_of_entra_id_is_accepted() {
        let vault = "https://vault.azure.net";
        for (authorization, authority, id) in [
            ("https://login.microsoftonline.com/72f9-1", PUBLIC, "72f9-1"),
            ("https://login.windows.net/hospital.example/", "https://login.windows.net", "hospital.example"),
            ("https://own.example:8443/72f9", "https://own.example:8443", "72f9"),
        ] {
            assert_eq!(tenant(authorization, vault), Some((authority.to_owned(), id.to_owned())));
        }
        let older = "bearer authorization_uri=https://login.microsoftonline.com/t,scope=https://vault.azure.net/.default";
        assert!(Tenant::of_challenge(older, "v.vault.azure.net", PUBLIC).is_some());
    }

    #[test]
    fn other_challenges_are_refused() {
        let vault = "https://vault.azure.net";
        for authorization in [
            "https://attacker.example/t",
            "https://login.microsoftonline.com.attacker.example/t",
            "https://login.microsoftonline.com@attacker.example/t",
            "https://attacker.example/login.microsoftonline.com",
            "https://login.microsoftonline.com:8443/t",
            "http://login.microsoftonline.com/t",
            "http://own.example:8443/t",
            "https://own.example/t",
            "https://login.microsoftonline.com/",
            "https://login.microsoftonline.com/t/u",
            "https://login.microsoftonline.com/t%2fu",
            "https://login.microsoftonline.com/..",
            "t",
        ] {
            assert_eq!(tenant(authorization, vault), None, "{authorization}");
        }
        for resource in [
            "https://attacker.example",
            "https://other.vault.azure.net",
            "https://ault.azure.net",
            "https://v.vault.azure.net",
            "http://vault.azure.net",
            "https://net",
            "vault.azure.net",
        ] {
            assert_eq!(tenant("https://login.microsoftonline.com/t", resource), None, "{resource}");
        }
        for challenge in ["", "Bearer", "Basic realm=\"x\"", "Bearer authorization=\"\", resource=\"\""] {
            assert_eq!(Tenant::of_challenge(challenge, "v.vault.azure.net", PUBLIC), None, "{challenge}");
        }
    }
}
