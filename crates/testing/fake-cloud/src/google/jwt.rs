//! Tokens that service accounts sign themselves: RS256 as in RFC 7519 and AIP-4111.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::google::account::ServiceAccount;

/// The scope must contain one of these.
const SCOPES: [&str; 3] = [
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/devstorage.full_control",
];

/// Maximum difference between the clocks of client and server, in seconds.
const SKEW: u64 = 300;

/// Maximum life of a token, in seconds.
const LONGEST: u64 = 3600;

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    scope: Option<String>,
    iat: u64,
    exp: u64,
}

/// Returns the e-mail address of the account that signed the token, or the reason why the token is invalid.
pub(crate) fn verify(token: &str, accounts: &[ServiceAccount]) -> Result<String, &'static str> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
    let (header, claims) = message.split_once('.').ok_or("not a JWT")?;
    let header: Header = decode(header)?;
    let claims: Claims = decode(claims)?;
    if header.alg != "RS256" {
        return Err("the algorithm is not RS256");
    }
    let account = accounts.iter().find(|account| account.client_email == claims.iss);
    let account = account.ok_or("unknown account")?;
    if header.kid.is_some_and(|id| id != account.private_key_id) {
        return Err("unknown key");
    }
    let signature = BASE64.decode(signature).map_err(|_| "the signature is not base64")?;
    if !account.verify(message.as_bytes(), &signature) {
        return Err("wrong signature");
    }
    check(&claims)?;
    Ok(claims.iss)
}

fn check(claims: &Claims) -> Result<(), &'static str> {
    if claims.sub != claims.iss {
        return Err("sub is not iss");
    }
    let mut scopes = claims.scope.as_deref().unwrap_or_default().split(' ');
    if !scopes.any(|scope| SCOPES.contains(&scope)) {
        return Err("the scope does not include storage");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if claims.exp < claims.iat || claims.exp - claims.iat > LONGEST {
        return Err("the token must be valid for at most 60 minutes");
    }
    if claims.iat > now + SKEW || claims.exp <= now {
        return Err("expired");
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, &'static str> {
    let json = BASE64.decode(part).map_err(|_| "not base64")?;
    serde_json::from_slice(&json).map_err(|_| "not the expected JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Signs a valid token with some claims replaced.
    fn signed(account: &ServiceAccount, changes: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": account.client_email, "sub": account.client_email, "scope": SCOPES[1], "iat": now,
            "exp": now + 3600,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = BASE64.encode(account.sign(message.as_bytes()).unwrap());
        format!("{message}.{signature}")
    }

    #[test]
    fn invalid_tokens_are_refused() {
        let account = ServiceAccount::shared().unwrap();
        let accounts = [account.clone()];
        let good = signed(&account, &json!({}));
        assert_eq!(verify(&good, &accounts).as_ref(), Ok(&account.client_email));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for (wrong, reason) in [
            (json!({"iss": "nobody@example.com"}), "unknown account"),
            (json!({"sub": "nobody@example.com"}), "sub is not iss"),
            (json!({"scope": "https://www.googleapis.com/auth/drive"}), "the scope does not include storage"),
            (json!({"iat": now, "exp": now + 3601}), "the token must be valid for at most 60 minutes"),
            (json!({"iat": now - 3600, "exp": now - 1}), "expired"),
            (json!({"iat": now + 1000, "exp": now + 2000}), "expired"),
        ] {
            assert_eq!(verify(&signed(&account, &wrong), &accounts), Err(reason), "{wrong}");
        }
        let mut forged = good;
        forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
        assert_eq!(verify(&forged, &accounts), Err("wrong signature"));
    }
}
