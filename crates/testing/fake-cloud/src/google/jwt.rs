//! Tokens that service accounts sign themselves: RS256, as in RFC 7519 and AIP-4111.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::google::account::ServiceAccount;

/// One of these must be in the scope.
const SCOPES: [&str; 3] = [
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/devstorage.full_control",
];

/// Clocks may differ by so many seconds.
const SKEW: u64 = 300;

/// The longest that such a token may last, in seconds.
const LONGEST: u64 = 3600;

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: Option<String>,
    aud: Option<String>,
    scope: Option<String>,
    iat: u64,
    exp: u64,
}

/// The account that signed the token, or what is wrong with it. With `audience`, the token must be meant for that.
pub(crate) fn verify(
    token: &str,
    accounts: &[ServiceAccount],
    audience: Option<&str>,
) -> Result<String, &'static str> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
    let (header, claims) = message.split_once('.').ok_or("not a JWT")?;
    let (header, claims): (Header, Claims) = (decode(header)?, decode(claims)?);
    if header.alg != "RS256" {
        return Err("the algorithm is not RS256");
    }
    let account = accounts.iter().find(|account| account.client_email == claims.iss);
    let account = account.ok_or("Invalid grant: account not found")?;
    if header.kid.is_some_and(|id| id != account.private_key_id) {
        return Err("no such key");
    }
    let signature = BASE64.decode(signature).map_err(|_| "the signature is not base64")?;
    if !account.verify(message.as_bytes(), &signature) {
        return Err("Invalid JWT Signature.");
    }
    check(&claims, audience)?;
    Ok(claims.iss)
}

fn check(claims: &Claims, audience: Option<&str>) -> Result<(), &'static str> {
    // An assertion may leave it out; a token that is used as it is may not.
    if claims.sub.as_ref().map_or(audience.is_none(), |sub| *sub != claims.iss) {
        return Err("sub is not iss");
    }
    if audience.is_some_and(|audience| claims.aud.as_deref() != Some(audience)) {
        return Err("Invalid JWT: Failed audience check.");
    }
    let mut scopes = claims.scope.as_deref().unwrap_or_default().split(' ');
    if !scopes.any(|scope| SCOPES.contains(&scope)) {
        return Err("the scope is not one of storage");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if claims.exp < claims.iat || claims.exp - claims.iat > LONGEST {
        return Err("Invalid JWT: Token must be a short-lived token (60 minutes)");
    }
    if claims.iat > now + SKEW || claims.exp <= now {
        return Err("Invalid JWT: Token is not in a reasonable timeframe");
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, &'static str> {
    let json = BASE64.decode(part).map_err(|_| "a part is not base64")?;
    serde_json::from_slice(&json).map_err(|_| "a part is not the JSON that it should be")
}
