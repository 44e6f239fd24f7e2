//! Caps the lifetimes of tokens, which `object_store` adds to the current time without a check for overflow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use serde_json::Value;

use crate::client::CloudHttp;
use crate::error::TransportError;

/// Maximum number of bytes of an answer with a token.
const MAX_ANSWER: usize = 1024 * 1024;
/// A token is renewed after this time even if the service says that it is valid for longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A [`CloudHttp`] for requests to token services.
#[derive(Debug, Clone)]
pub struct TokenHttp(CloudHttp);

impl TokenHttp {
    pub(crate) fn new(http: CloudHttp) -> Self {
        Self(http)
    }
}

#[async_trait]
impl HttpService for TokenHttp {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = self.0.call(request).await?.into_parts();
        let collected = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            let reason = "the token service's answer is incomplete or too large".to_owned();
            let unreadable = || TransportError::Protocol { reason }.into_http();
            error.downcast::<HttpError>().map_or_else(|_| unreadable(), |error| *error)
        })?;
        let body = capped(collected.to_bytes(), SystemTime::now());
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)))
    }
}

impl HttpConnector for TokenHttp {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Returns a token service's answer with lifetimes of at most [`LONGEST`]: `expires_in` is a number of
/// seconds, and Azure's `expires_on` a string of seconds since 1970.
fn capped(answer: Bytes, now: SystemTime) -> Bytes {
    let Ok(mut json) = serde_json::from_slice::<Value>(&answer) else { return answer };
    let latest = now.duration_since(UNIX_EPOCH).unwrap_or_default() + LONGEST;
    let is_above = |seconds: Option<u64>, limit: Duration| seconds.is_some_and(|s| s > limit.as_secs());
    let mut is_changed = false;
    if let Some(value) = json.get_mut("expires_in").filter(|value| is_above(value.as_u64(), LONGEST)) {
        *value = LONGEST.as_secs().into();
        is_changed = true;
    }
    let seconds = |value: &Value| value.as_str()?.parse().ok();
    if let Some(value) = json.get_mut("expires_on").filter(|value| is_above(seconds(value), latest)) {
        *value = latest.as_secs().to_string().into();
        is_changed = true;
    }
    if is_changed { json.to_string().into() } else { answer }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lifetimes_are_capped() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let change = |answer: Value| {
            let capped = capped(answer.to_string().into(), now);
            serde_json::from_slice::<Value>(&capped).unwrap()
        };
        for unchanged in [
            json!({"access_token": "t", "expires_in": 3600}),
            json!({"access_token": "t", "expires_in": 604_800}),
            json!({"access_token": "t", "expires_on": "1604800"}),
            json!({"access_token": "t", "expires_on": "soon", "expires_in": -1}),
            json!(["expires_in", u64::MAX]),
        ] {
            assert_eq!(change(unchanged.clone()), unchanged);
        }
        for huge in [604_801, u64::MAX] {
            assert_eq!(change(json!({"a": 1, "expires_in": huge})), json!({"a": 1, "expires_in": 604_800}));
        }
        let huge = json!({"expires_on": u64::MAX.to_string(), "expires_in": "3600"});
        assert_eq!(change(huge), json!({"expires_on": "1604800", "expires_in": "3600"}));
        assert_eq!(capped(Bytes::from_static(b"no JSON"), now), "no JSON");
    }
}
