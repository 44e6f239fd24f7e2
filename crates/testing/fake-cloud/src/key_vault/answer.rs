//! The answers of a vault and of Entra ID.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{State, VaultFault, VaultOperation, VaultRequest};

/// Domains of vaults, and Entra ID in the same cloud.
const CLOUDS: [(&str, &str); 4] = [
    ("vault.azure.net", "login.microsoftonline.com"),
    ("managedhsm.azure.net", "login.microsoftonline.com"),
    ("vault.azure.cn", "login.chinacloudapi.cn"),
    ("vault.usgovcloudapi.net", "login.microsoftonline.us"),
];

type Answer = Response<Full<Bytes>>;

/// Answers a request to `host`.
pub(super) async fn answer(state: &State, host: &str, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let operation = operation(state, host, &head);
    let index = {
        let mut requests = state.requests.lock();
        requests.push(VaultRequest { host: host.to_owned(), operation, target, status: None });
        requests.len() - 1
    };
    if operation == VaultOperation::WrapKey {
        state.keys.note(&body);
    }
    let fault = {
        let mut faults = state.faults.lock();
        let met = faults.iter().position(|(of, _)| *of == operation);
        met.map(|index| faults.remove(index).1)
    };
    let answer = match fault {
        Some(VaultFault::Silence) => std::future::pending().await,
        Some(fault) => failed(fault, &body),
        None => carry_out(state, host, operation, &head, &body),
    };
    if let Some(request) = state.requests.lock().get_mut(index) {
        request.status = Some(answer.status().as_u16());
    }
    answer
}

fn operation(state: &State, host: &str, head: &Parts) -> VaultOperation {
    if CLOUDS.iter().any(|cloud| cloud.1 == host) || host == "login.windows.net" {
        let is_token = head.uri.path().ends_with("/token");
        return if is_token { VaultOperation::Token } else { VaultOperation::Other };
    }
    if cloud(host).is_none() {
        return VaultOperation::Other;
    }
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !state.entra.accepts(token, host) {
        return VaultOperation::Challenge;
    }
    match (&head.method, head.uri.path().rsplit('/').next()) {
        (&Method::GET, _) => VaultOperation::GetKey,
        (&Method::POST, Some("wrapkey")) => VaultOperation::WrapKey,
        (&Method::POST, Some("unwrapkey")) => VaultOperation::UnwrapKey,
        _ => VaultOperation::Other,
    }
}

fn cloud(host: &str) -> Option<(&'static str, &'static str)> {
    let is_in = |domain: &str| host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'));
    CLOUDS.into_iter().find(|cloud| is_in(cloud.0))
}

fn carry_out(state: &State, host: &str, operation: VaultOperation, head: &Parts, body: &[u8]) -> Answer {
    let path = head.uri.path();
    if operation == VaultOperation::Challenge {
        return challenge(state, host);
    }
    let Some(_vault) = cloud(host) else {
        let (status, answer) = state.entra.answer(host, &head.method, path, body);
        return json_answer(status, &answer);
    };
    if !head.uri.query().is_some_and(|query| query.contains("api-version=")) {
        return refused(400, "BadParameter", "api-version must be specified");
    }
    if !state.permitted.lock().contains(&operation) {
        return refused(403, "Forbidden", "The user, group or application does not have the permission.");
    }
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let keys = &state.keys;
    let result = match (operation, &parts[..]) {
        (VaultOperation::GetKey, ["keys", name]) => keys.describe(host, name, None),
        (VaultOperation::GetKey, ["keys", name, version]) => keys.describe(host, name, Some(version)),
        (VaultOperation::WrapKey, ["keys", name, version, _]) => {
            keys.convert(host, (name, version), true, body)
        }
        (VaultOperation::UnwrapKey, ["keys", name, version, _]) => {
            keys.convert(host, (name, version), false, body)
        }
        _ => Err((404, "NotFound", "The path is not known.".to_owned())),
    };
    match result {
        Ok(answer) => json_answer(200, &answer),
        Err((status, code, message)) => refused(status, code, &message),
    }
}

fn challenge(state: &State, host: &str) -> Answer {
    let (domain, entra) = cloud(host).unwrap_or_default();
    let tenant = &state.entra.client.tenant;
    let usual =
        || format!("Bearer authorization=\"https://{entra}/{tenant}\", resource=\"https://{domain}\"");
    let challenge = state.challenge.lock().clone().unwrap_or_else(usual);
    let mut answer = refused(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

fn failed(fault: VaultFault, body: &[u8]) -> Answer {
    match fault {
        VaultFault::Echo => {
            let message = format!("The parameter is incorrect: {}", String::from_utf8_lossy(body));
            refused(400, "BadParameter", &message)
        }
        VaultFault::Status(status, seconds) => {
            let mut answer = refused(status, "Throttled", "Injected by the test server");
            if let Some(seconds) = seconds {
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            answer
        }
        VaultFault::Redirect(url) => {
            let mut answer = refused(307, "Moved", "Injected by the test server");
            if let Ok(url) = HeaderValue::from_str(&url) {
                answer.headers_mut().insert(LOCATION, url);
            }
            answer
        }
        VaultFault::Body(body) => Response::new(Full::from(body)),
        // Never answered.
        VaultFault::Silence => Response::default(),
    }
}

fn refused(status: u16, code: &str, message: &str) -> Answer {
    json_answer(status, &json!({"error": {"code": code, "message": message}}))
}

fn json_answer(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}
