//! Google's token endpoint (RFC 6749) and the metadata server of its virtual machines.

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::dialect::{AnswerBody, document};
use crate::google::options::GoogleOptions;

const ENDPOINT: &str = "/o/oauth2/token";
const METADATA: &str = "/computeMetadata/";
const METADATA_TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// The user whose refresh token is accepted.
pub(crate) const USER: &str = "user@example.com";
const FLAVOR: &str = "metadata-flavor";

/// Whether a request asks for a token instead of an object.
pub(crate) fn is_token_request(head: &Parts) -> bool {
    let path = head.uri.path();
    head.method == Method::POST && path == ENDPOINT || path.starts_with(METADATA)
}

/// Answers a token request.
pub(crate) fn answer(head: &Parts, body: &[u8], options: &GoogleOptions) -> Response<AnswerBody> {
    if head.uri.path().starts_with(METADATA) {
        return metadata(head, options);
    }
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let field =
        |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let user = &options.user;
    if field("grant_type") != "refresh_token" {
        failure(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Invalid grant_type")
    } else if field("client_id") != user.client_id || field("client_secret") != user.client_secret {
        failure(StatusCode::UNAUTHORIZED, "invalid_client", "Unauthorized")
    } else if field("refresh_token") != user.refresh_token {
        failure(StatusCode::BAD_REQUEST, "invalid_grant", "Token has been expired or revoked.")
    } else {
        granted(USER, options)
    }
}

fn metadata(head: &Parts, options: &GoogleOptions) -> Response<AnswerBody> {
    // Requests that a browser is tricked into do not have this header.
    let has_flavor = head.headers.get(FLAVOR).is_some_and(|flavor| flavor == "Google");
    let mut answer = match head.uri.path() {
        _ if !has_flavor => {
            failure(StatusCode::FORBIDDEN, "forbidden", "Missing Metadata-Flavor:Google header.")
        }
        METADATA_TOKEN => {
            let email = options.service_accounts.first().map_or("", |account| &account.client_email);
            granted(email, options)
        }
        _ => failure(StatusCode::NOT_FOUND, "not_found", "Not Found"),
    };
    answer.headers_mut().insert(FLAVOR, HeaderValue::from_static("Google"));
    answer
}

fn granted(email: &str, options: &GoogleOptions) -> Response<AnswerBody> {
    let (token, seconds) = options.tokens.grant(email);
    let grant = json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"});
    json_answer(StatusCode::OK, &grant)
}

/// Returns an error in the form of OAuth.
pub(crate) fn failure(status: StatusCode, error: &str, description: &str) -> Response<AnswerBody> {
    json_answer(status, &json!({"error": error, "error_description": description}))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    document(&Method::GET, status, "application/json; charset=utf-8", value.to_string())
}
