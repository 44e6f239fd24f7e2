//! Entra ID: tokens for a client with a secret.

use std::collections::HashMap;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::VaultClient;
use super::keys::random_hex;

/// Issues tokens.
#[derive(Debug)]
pub(super) struct EntraId {
    pub(super) client: VaultClient,
    /// Valid tokens, with what they are for.
    tokens: Mutex<HashMap<String, String>>,
}

impl EntraId {
    pub(super) fn new(client: VaultClient) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// Issues a token for a resource such as `https://vault.azure.net`.
    pub(super) fn issue(&self, resource: &str) -> String {
        let token = format!("eyJ{}", random_hex().unwrap_or_default());
        self.tokens.lock().insert(token.clone(), resource.to_owned());
        token
    }

    pub(super) fn revoke(&self) {
        self.tokens.lock().clear();
    }

    /// Whether a token is for the vault at `host`.
    pub(super) fn accepts(&self, token: &str, host: &str) -> bool {
        let domain = |resource: &String| Some(resource.strip_prefix("https://")?.to_owned());
        let domain = self.tokens.lock().get(token).and_then(domain);
        domain.is_some_and(|domain| host.strip_suffix(&domain).is_some_and(|name| name.ends_with('.')))
    }

    /// Answers a request for a token, or for what Microsoft's own client asks before: where to ask.
    pub(super) fn answer(&self, host: &str, method: &Method, path: &str, form: &[u8]) -> (u16, Value) {
        let tenant = &self.client.tenant;
        let base = format!("https://{host}/{tenant}");
        if *method == Method::POST && path == format!("/{tenant}/oauth2/v2.0/token") {
            return self.token(form);
        }
        if path == format!("/{tenant}/v2.0/.well-known/openid-configuration") {
            let configuration = json!({
                "issuer": format!("{base}/v2.0"),
                "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
                "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            });
            return (200, configuration);
        }
        if path == "/common/discovery/instance" {
            let metadata = json!([{"preferred_network": host, "preferred_cache": host, "aliases": [host]}]);
            let endpoint = format!("{base}/v2.0/.well-known/openid-configuration");
            return (200, json!({"tenant_discovery_endpoint": endpoint, "metadata": metadata}));
        }
        (400, json!({"error": "invalid_request", "error_description": "AADSTS90002: Tenant not found."}))
    }

    fn token(&self, form: &[u8]) -> (u16, Value) {
        let form: HashMap<_, _> = form_urlencoded::parse(form).collect();
        let field = |name: &str| form.get(name).map(AsRef::as_ref).unwrap_or_default();
        if field("grant_type") != "client_credentials"
            || field("client_id") != self.client.id
            || field("client_secret") != self.client.secret
        {
            // Azure does not quote it.
            let description =
                format!("AADSTS7000215: Invalid client secret provided: {}", field("client_secret"));
            return (401, json!({"error": "invalid_client", "error_description": description}));
        }
        let Some(resource) = field("scope").split(' ').find_map(|scope| scope.strip_suffix("/.default"))
        else {
            return (400, json!({"error": "invalid_scope", "error_description": "AADSTS70011"}));
        };
        let token = self.issue(resource);
        (200, json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token}))
    }
}
