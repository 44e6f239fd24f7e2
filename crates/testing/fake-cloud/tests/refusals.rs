//! Wrong signatures, tokens, checksums and ranges are refused. The plugins never send most of them.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{KEY, builder, bytes, client_options, no_retries, path, server, text};
use fake_cloud::{AzureOptions, BucketServer, GoogleOptions, Options, Sas, ServiceAccount};
use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::azure::{AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{
    GcpCredential, GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder,
};
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, StaticCredentialProvider};

const LIMIT: Duration = Duration::from_secs(20);

/// Options of a client that adds a header to each request.
fn with_header(name: &'static str, value: &'static str) -> ClientOptions {
    let headers = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
    client_options(LIMIT).with_default_headers(HeaderMap::from_iter(headers))
}

/// Asserts that a client can neither read nor write, with this error code.
async fn assert_refused(client: &impl ObjectStore, code: &str) {
    let get = client.get(&path(KEY)).await.unwrap_err();
    assert!(text(&get).contains(code), "{code}: {get:?}");
    let put = client.put(&path("new"), "x".into()).await.unwrap_err();
    assert!(text(&put).contains(code), "{code}: {put:?}");
}

#[tokio::test]
async fn s3_refuses_wrong_credentials() {
    let server = server();
    server.insert("bucket", KEY, "x");
    for (client, code) in [
        (builder(&server).with_secret_access_key("wrong"), "SignatureDoesNotMatch"),
        (builder(&server).with_access_key_id("unknown"), "InvalidAccessKeyId"),
        (builder(&server).with_region("eu-west-1"), "AuthorizationHeaderMalformed"),
        (builder(&server).with_token("unexpected"), "InvalidToken"),
        (builder(&server).with_skip_signature(true), "AccessDenied"),
    ] {
        assert_refused(&client.build().unwrap(), code).await;
    }
    assert_eq!(server.keys("bucket"), [KEY]);
    let options = Options { session_token: Some("token/+=".to_owned()), ..Options::default() };
    let server = BucketServer::start(options).unwrap();
    assert_refused(&builder(&server).build().unwrap(), "InvalidToken").await;
    assert_refused(&builder(&server).with_token("other").build().unwrap(), "InvalidToken").await;
    builder(&server).with_token("token/+=").build().unwrap().put(&path(KEY), "x".into()).await.unwrap();
}

#[tokio::test]
async fn s3_refuses_wrong_checksum() {
    let server = server();
    let put = async |crc| {
        let options = with_header("x-amz-checksum-crc64nvme", crc);
        let client = builder(&server).with_client_options(options).build().unwrap();
        client.put(&path(KEY), "123456789".into()).await
    };
    let error = put("rosUhgp5mIk=").await.unwrap_err();
    assert!(text(&error).contains("BadDigest"), "{error:?}");
    assert!(server.keys("bucket").is_empty());
    put("rosUhgp5mIg=").await.unwrap();
}

#[tokio::test]
async fn s3_refuses_wrong_md5_of_bulk_deletion() {
    let server = server();
    server.insert("bucket", KEY, "x");
    let url = format!("{}/bucket?delete", server.endpoint());
    for (md5, code) in [(None, "InvalidRequest"), (Some("1B2M2Y8AsgTpgAmY7PhCfg=="), "BadDigest")] {
        let mut request = reqwest::Client::new().post(&url).body("<Delete/>");
        if let Some(md5) = md5 {
            request = request.header("content-md5", md5);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let body = answer.text().await.unwrap();
        assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
    }
    assert_eq!(server.keys("bucket"), [KEY]);
}

fn google_client(server: &BucketServer, options: ClientOptions) -> GoogleCloudStorageBuilder {
    GoogleCloudStorageBuilder::new()
        .with_bucket_name("bucket")
        .with_base_url(&server.endpoint())
        .with_client_options(options)
        .with_retry(no_retries())
}

fn bearer(token: &str) -> GcpCredentialProvider {
    Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: token.to_owned() }))
}

fn with_account(
    server: &BucketServer,
    account: &ServiceAccount,
    options: ClientOptions,
) -> GoogleCloudStorage {
    let key = account.json(&server.endpoint()).to_string();
    google_client(server, options).with_service_account_key(key).build().unwrap()
}

#[tokio::test]
async fn google_refuses_wrong_tokens() {
    let powerless = ServiceAccount::generate().unwrap();
    let mut options = GoogleOptions::new().unwrap();
    options.service_accounts.push(powerless.clone());
    options.without_access.push(powerless.client_email.clone());
    let server = BucketServer::start_google(options).unwrap();
    let unknown = google_client(&server, client_options(LIMIT)).with_credentials(bearer("ya29.unknown"));
    assert_refused(&unknown.build().unwrap(), "AuthenticationRequired").await;
    let stranger = with_account(&server, &ServiceAccount::generate().unwrap(), client_options(LIMIT));
    assert_refused(&stranger, "AuthenticationRequired").await;
    assert_refused(&with_account(&server, &powerless, client_options(LIMIT)), "AccessDenied").await;
    let anonymous = reqwest::get(format!("{}/bucket/key", server.endpoint())).await.unwrap();
    assert_eq!(anonymous.status(), 403);
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn google_refuses_wrong_checksum() {
    let options = GoogleOptions::new().unwrap();
    let account = options.service_accounts[0].clone();
    let server = BucketServer::start_google(options).unwrap();
    let put = async |hash| {
        let client = with_account(&server, &account, with_header("x-goog-hash", hash));
        client.put(&path(KEY), "123456789".into()).await
    };
    let error = put("crc32c=4waShA==").await.unwrap_err();
    assert!(text(&error).contains("BadDigest"), "{error:?}");
    assert!(server.keys("bucket").is_empty());
    put("crc32c=4waSgw==").await.unwrap();
}

fn azure_client(server: &BucketServer) -> MicrosoftAzureBuilder {
    let options = AzureOptions::default();
    MicrosoftAzureBuilder::new()
        .with_endpoint(options.blob_endpoint(&server.endpoint()))
        .with_account(options.account)
        .with_container_name("bucket")
        .with_client_options(client_options(LIMIT))
        .with_retry(no_retries())
}

fn with_sas(server: &BucketServer, query: &str) -> MicrosoftAzure {
    let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let credential = StaticCredentialProvider::new(AzureCredential::SASToken(pairs));
    azure_client(server).with_credentials(Arc::new(credential)).build().unwrap()
}

#[tokio::test]
async fn azure_refuses_wrong_credentials() {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options).unwrap();
    let wrong_key = azure_client(&server).with_access_key("d3Jvbmcga2V5").build().unwrap();
    assert_refused(&wrong_key, "AuthenticationFailed").await;
    let hour = Duration::from_secs(3600);
    let expired = Sas::until(SystemTime::now() - hour);
    for query in [options.account_sas(&expired), options.service_sas("bucket", &expired)] {
        assert_refused(&with_sas(&server, &query), "AuthenticationFailed").await;
    }
    let valid = Sas::until(SystemTime::now() + hour);
    let elsewhere = with_sas(&server, &options.service_sas("other", &valid));
    assert!(elsewhere.put(&path(KEY), "x".into()).await.is_err());
    let reader = Sas { permissions: "r".to_owned(), ..valid };
    let error = with_sas(&server, &options.account_sas(&reader)).put(&path(KEY), "x".into()).await;
    assert!(error.is_err_and(|error| text(&error).contains("AuthorizationPermissionMismatch")));
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn azure_refuses_range_beyond_the_end() {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options).unwrap();
    server.insert("bucket", KEY, bytes(9));
    server.insert("bucket", "empty", "");
    let sas = options.account_sas(&Sas::until(SystemTime::now() + Duration::from_secs(60)));
    for (key, range, total) in [(KEY, "bytes=9-10", 9), ("empty", "bytes=0-9", 0)] {
        let url = format!("{}/bucket/{key}?{sas}", options.blob_endpoint(&server.endpoint()));
        let answer = reqwest::Client::new().get(url).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(answer.headers()["content-range"], format!("bytes */{total}"));
        assert_eq!(answer.headers()["x-ms-error-code"], "InvalidRange");
    }
}
