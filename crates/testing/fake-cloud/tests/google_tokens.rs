//! Google's token endpoint and metadata server, and the proxy that stands in for Google's own hosts.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use common::{bytes, path, retries, text};
use fake_cloud::{BucketServer, Fault, FaultRule, GoogleOptions, Interceptor, Operation, ServiceAccount};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{Certificate, ClientOptions, ObjectStoreExt};
use reqwest::Response;
use serde_json::{Value, json};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

fn server() -> (BucketServer, GoogleOptions) {
    let options = GoogleOptions::new().unwrap();
    (BucketServer::start_google(options.clone()).unwrap(), options)
}

async fn ask(server: &BucketServer, path: &str, fields: &[(&str, &str)]) -> Response {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = reqwest::Client::new().post(format!("{}{path}", server.endpoint())).body(body);
    request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap()
}

async fn json_of(answer: Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

async fn status(server: &BucketServer, token: &str) -> u16 {
    let request = reqwest::Client::new().put(format!("{}/bucket/k", server.endpoint()));
    request.bearer_auth(token).body("x").send().await.unwrap().status().as_u16()
}

/// A token that the account signs, made like Google's with some claims replaced.
fn signed(account: &ServiceAccount, changes: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": account.client_email, "sub": account.client_email, "scope": SCOPE, "iat": now, "exp": now + 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id});
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(account.sign(message.as_bytes()).unwrap());
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_self_signed_token_is_good_only_if_all_of_it_is() {
    let (server, options) = server();
    let account = &options.service_accounts[0];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(status(&server, &signed(account, &json!({}))).await, 200);
    for wrong in [
        json!({"iss": "nobody@example.com"}),
        json!({"sub": "nobody@example.com"}),
        json!({"scope": "https://www.googleapis.com/auth/drive"}),
        json!({"iat": now, "exp": now + 3601}),
        json!({"iat": now - 3600, "exp": now - 1}),
        json!({"iat": now + 1000, "exp": now + 2000}),
    ] {
        assert_eq!(status(&server, &signed(account, &wrong)).await, 401, "{wrong}");
    }
    let mut forged = signed(account, &json!({}));
    forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
    assert_eq!(status(&server, &forged).await, 401);
    options.tokens.refuse_self_signed(true);
    assert_eq!(status(&server, &signed(account, &json!({}))).await, 401);
}

#[tokio::test]
async fn tokens_are_had_for_a_refresh_token() {
    let (server, options) = server();
    options.tokens.life(Duration::from_secs(1));
    let user = &options.user;
    let with = |name: &str, value: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", user.client_id.as_str()),
            ("client_secret", user.client_secret.as_str()),
            ("refresh_token", user.refresh_token.as_str()),
        ];
        fields.map(|field| (field.0, if field.0 == name { value.to_owned() } else { field.1.to_owned() }))
    };
    let send = async |path: &str, name: &str, value: &str| {
        let fields = with(name, value);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(&server, path, &fields).await
    };
    for endpoint in ["/token", "/o/oauth2/token"] {
        let granted = json_of(send(endpoint, "", "").await).await;
        assert_eq!((&granted["expires_in"], &granted["token_type"]), (&json!(1), &json!("Bearer")));
        let token = granted["access_token"].as_str().unwrap();
        assert_eq!(status(&server, token).await, 200);
        options.tokens.revoke_all();
        assert_eq!(status(&server, token).await, 401);
    }
    for (name, error, code) in [
        ("client_id", "invalid_client", 401),
        ("client_secret", "invalid_client", 401),
        ("refresh_token", "invalid_grant", 400),
        ("grant_type", "unsupported_grant_type", 400),
    ] {
        let refused = send("/token", name, "wrong").await;
        assert_eq!(refused.status(), code, "{name}");
        assert_eq!(json_of(refused).await["error"], error);
    }
    server.faults().push(FaultRule::new(Fault::status(503, "internal_failure")).on(Operation::Token));
    let refused = send("/token", "", "").await;
    assert_eq!(
        (refused.status().as_u16(), &json_of(refused).await["error"]),
        (503, &json!("internal_failure"))
    );
    assert_eq!(server.requests().token(), 7);
}

#[tokio::test]
async fn tokens_are_had_for_a_signed_assertion() {
    let (server, options) = server();
    let account = &options.service_accounts[0];
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let assertion = signed(account, &json!({"aud": format!("{}/token", server.endpoint())}));
    let granted =
        json_of(ask(&server, "/token", &[("grant_type", grant), ("assertion", &assertion)]).await).await;
    assert_eq!(granted["expires_in"], 3600);
    assert_eq!(status(&server, granted["access_token"].as_str().unwrap()).await, 200);
    for wrong in [signed(account, &json!({"aud": "https://elsewhere.test/token"})), "nonsense".to_owned()] {
        let refused = ask(&server, "/token", &[("grant_type", grant), ("assertion", &wrong)]).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(json_of(refused).await["error"], "invalid_grant");
    }
}

#[tokio::test]
async fn the_metadata_server_gives_tokens_to_those_who_ask_properly() {
    let (server, options) = server();
    let url = format!("{}/computeMetadata/v1/instance/service-accounts/default", server.endpoint());
    let ask = async |what: &str, flavor: &str| {
        let request = reqwest::Client::new().get(format!("{url}/{what}"));
        request.header("metadata-flavor", flavor).send().await.unwrap()
    };
    let granted = ask("token?audience=x", "Google").await;
    assert_eq!(granted.headers()["metadata-flavor"], "Google");
    let granted = json_of(granted).await;
    assert_eq!(status(&server, granted["access_token"].as_str().unwrap()).await, 200);
    assert_eq!(ask("email", "Google").await.text().await.unwrap(), options.service_accounts[0].client_email);
    assert_eq!(ask("token", "Other").await.status(), 403);
}

#[tokio::test]
async fn a_user_signs_in_at_a_host_that_only_seems_to_be_googles() {
    let (server, options) = server();
    let interceptor = Interceptor::start(server.port()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application_default_credentials.json");
    std::fs::write(&file, options.user.json().to_string()).unwrap();
    let root = Certificate::from_pem(interceptor.authority().as_bytes()).unwrap();
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_proxy_url(interceptor.proxy())
        .with_root_certificate(root)
        .with_timeout(Duration::from_secs(20));
    let client = GoogleCloudStorageBuilder::new()
        .with_application_credentials(file.to_str().unwrap())
        .with_bucket_name("bucket")
        .with_client_options(options)
        .with_retry(retries(0))
        .build()
        .unwrap();
    // storage.googleapis.com is one of those hosts, too.
    client.put(&path("a/k"), bytes(10).into()).await.unwrap();
    assert_eq!(client.get(&path("a/k")).await.unwrap().bytes().await.unwrap(), bytes(10));
    assert_eq!((server.requests().token(), server.keys("bucket")), (1, vec!["a/k".to_owned()]));
    let elsewhere =
        reqwest::Client::builder().proxy(reqwest::Proxy::all(interceptor.proxy()).unwrap()).build().unwrap();
    let error = elsewhere.get("https://elsewhere.test/").send().await.unwrap_err();
    assert!(error.is_connect(), "{}", text(&error));
}

#[test]
fn a_key_is_made_quickly_and_written_as_google_does() {
    let start = Instant::now();
    let rounds = 5;
    let accounts: Vec<_> = (0..rounds).map(|_| ServiceAccount::generate().unwrap()).collect();
    println!("a key takes {:?}", start.elapsed() / rounds);
    let json = accounts[0].json("http://127.0.0.1:1");
    assert_eq!(json["type"], "service_account");
    assert_eq!(json["token_uri"], "http://127.0.0.1:1/token");
    assert!(json["private_key"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----\nMII"));
    assert_ne!(accounts[0].private_key_id, accounts[1].private_key_id);
}
