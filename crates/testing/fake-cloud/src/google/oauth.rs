//! Google's token endpoint (RFC 6749, RFC 7523) and the metadata server of its virtual machines.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::dialect::AnswerBody;
use crate::google::jwt;
use crate::google::options::GoogleOptions;

const METADATA: &str = "/computeMetadata/v1/instance/service-accounts/default/";
const FLAVOR: &str = "metadata-flavor";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Whether a request is for tokens and not for a bucket.
pub(crate) fn is_token_request(head: &Parts) -> bool {
    let path = head.uri.path();
    let endpoint = path == "/token" || path == "/o/oauth2/token";
    head.method == Method::POST && endpoint || path.starts_with("/computeMetadata/")
}

/// The answer to such a request.
pub(crate) fn answer(head: &Parts, body: &[u8], options: &GoogleOptions) -> Response<AnswerBody> {
    if head.uri.path().starts_with("/computeMetadata/") {
        return metadata(head, options);
    }
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let field =
        |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    match field("grant_type") {
        "refresh_token" => refresh(field, options),
        JWT_BEARER => match jwt_bearer(field("assertion"), head, options) {
            Ok(email) => granted(&email, options),
            Err(reason) => failure(StatusCode::BAD_REQUEST, "invalid_grant", reason),
        },
        _ => failure(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Invalid grant_type"),
    }
}

fn refresh<'a>(field: impl Fn(&str) -> &'a str, options: &GoogleOptions) -> Response<AnswerBody> {
    let user = &options.user;
    if field("client_id") != user.client_id {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client", "The OAuth client was not found.");
    }
    if field("client_secret") != user.client_secret {
        return failure(StatusCode::UNAUTHORIZED, "invalid_client", "Unauthorized");
    }
    if field("refresh_token") != user.refresh_token {
        return failure(StatusCode::BAD_REQUEST, "invalid_grant", "Token has been expired or revoked.");
    }
    granted("user@example.com", options)
}

fn jwt_bearer(assertion: &str, head: &Parts, options: &GoogleOptions) -> Result<String, &'static str> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // TLS may have been taken off before.
    let own = [format!("http://{host}{}", head.uri.path()), format!("https://{host}{}", head.uri.path())];
    let outcomes = own.iter().map(|own| jwt::verify(assertion, &options.service_accounts, Some(own)));
    outcomes.reduce(Result::or).unwrap_or(Err("no endpoint"))
}

fn granted(email: &str, options: &GoogleOptions) -> Response<AnswerBody> {
    let (token, seconds) = options.tokens.grant(email);
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    let document =
        json!({"access_token": token, "expires_in": seconds, "scope": scope, "token_type": "Bearer"});
    json_answer(StatusCode::OK, &document)
}

fn metadata(head: &Parts, options: &GoogleOptions) -> Response<AnswerBody> {
    let email = options.service_accounts.first().map_or("", |account| &account.client_email);
    let mut answer = match head.uri.path().strip_prefix(METADATA) {
        _ if !asked_properly(&head.headers) => {
            text(StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.")
        }
        Some("token") => {
            let (token, seconds) = options.tokens.grant(email);
            let document = json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"});
            json_answer(StatusCode::OK, &document)
        }
        Some("email") => text(StatusCode::OK, email),
        _ => text(StatusCode::NOT_FOUND, "Not Found"),
    };
    answer.headers_mut().insert(FLAVOR, HeaderValue::from_static("Google"));
    answer
}

/// A browser that was led here would not send it.
fn asked_properly(headers: &HeaderMap) -> bool {
    headers.get(FLAVOR).is_some_and(|flavor| flavor == "Google")
}

/// An error in OAuth's form.
pub(crate) fn failure(status: StatusCode, error: &str, description: &str) -> Response<AnswerBody> {
    json_answer(status, &json!({"error": error, "error_description": description}))
}

fn json_answer(status: StatusCode, document: &Value) -> Response<AnswerBody> {
    typed(status, "application/json; charset=utf-8", document.to_string())
}

fn text(status: StatusCode, text: &str) -> Response<AnswerBody> {
    typed(status, "application/text", text.to_owned())
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<AnswerBody> {
    let mut answer =
        Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
