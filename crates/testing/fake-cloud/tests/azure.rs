//! Azure clients on the Azure server: objects, credentials, faults, counts.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{ODD_NAMES, bytes, path, retries, text};
use fake_cloud::{AzureOptions, BucketServer, Fault, FaultRule, Operation, Sas};
use futures_util::TryStreamExt;
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::{
    Attribute, Attributes, ClientOptions, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, TagSet,
};

fn server() -> BucketServer {
    BucketServer::start_azure(&AzureOptions::default()).unwrap()
}

fn unsigned(server: &BucketServer) -> MicrosoftAzureBuilder {
    let options = AzureOptions::default();
    MicrosoftAzureBuilder::new()
        .with_endpoint(options.blob_endpoint(&server.endpoint()))
        .with_account(options.account)
        .with_container_name("bucket")
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(60)))
        .with_retry(retries(0))
}

fn builder(server: &BucketServer) -> MicrosoftAzureBuilder {
    unsigned(server).with_access_key(AzureOptions::default().key)
}

fn client(server: &BucketServer) -> MicrosoftAzure {
    builder(server).build().unwrap()
}

fn with_sas(server: &BucketServer, sas: &str) -> MicrosoftAzure {
    let pairs: Vec<_> = url::form_urlencoded::parse(sas.as_bytes()).into_owned().collect();
    unsigned(server).with_sas_authorization(pairs).build().unwrap()
}

#[tokio::test]
async fn blobs_come_back_as_they_were_put() {
    let server = server();
    let client = client(&server);
    for length in [0, 1, 65_536, 3_000_001] {
        let content = bytes(length);
        let put = client.put(&path("a/b"), content.clone().into()).await.unwrap();
        let got = client.get(&path("a/b")).await.unwrap();
        assert_eq!((&got.meta.e_tag, got.meta.size), (&put.e_tag, length as u64));
        assert_eq!(got.bytes().await.unwrap(), content);
        let stored = server.object("bucket", "a/b").unwrap();
        assert_eq!((&stored.bytes, stored.parts, stored.storage_class), (&content, None, None));
        assert!(stored.checksum_md5.is_some());
    }
    let part = client.get_range(&path("a/b"), 1_000_000..2_000_000).await.unwrap();
    assert_eq!(part, bytes(3_000_001).slice(1_000_000..2_000_000));
    let counts = server.requests();
    assert_eq!(
        (counts.put_object(), counts.get_object(), counts.get_object_range(), counts.total),
        (4, 4, 1, 9)
    );
    assert_eq!((counts.body_bytes_received, counts.body_bytes_sent), (3_065_538, 4_065_538));
    client.delete(&path("a/b")).await.unwrap();
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn what_is_missing_is_not_found_and_a_container_is_never_created() {
    let server = server();
    let here = client(&server);
    let error = here.get(&path("nothing")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && text(&error).contains("BlobNotFound"), "{error:?}");
    let elsewhere = builder(&server).with_container_name("missing").build().unwrap();
    let put = elsewhere.put(&path("k"), bytes(10).into()).await.unwrap_err();
    assert!(text(&put).contains("ContainerNotFound"), "{put:?}");
    let get = elsewhere.get(&path("k")).await.unwrap_err();
    assert!(text(&get).contains("ContainerNotFound"), "{get:?}");
    assert!(elsewhere.list(None).try_collect::<Vec<_>>().await.is_err());
    assert!(server.objects("missing").is_empty() && server.unfinished_uploads("missing").is_empty());
    assert!(server.last_requests().iter().all(|request| request.status == Some(404)));
    // It deletes in batches, even one.
    let error = here.delete(&path("nothing")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert_eq!((server.requests().delete_objects(), server.requests().delete_object()), (1, 0));
}

#[tokio::test]
async fn names_are_kept_exactly_as_sent() {
    let server = server();
    let client = client(&server);
    let mut keys = ODD_NAMES;
    keys.sort_unstable();
    for (i, key) in keys.iter().enumerate() {
        client.put(&path(key), bytes(i + 1).into()).await.unwrap();
    }
    assert_eq!(server.keys("bucket"), keys);
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(client.get(&path(key)).await.unwrap().bytes().await.unwrap(), bytes(i + 1), "{key}");
        assert_eq!(server.object("bucket", key).unwrap().bytes, bytes(i + 1), "{key}");
        server.insert("bucket", key, bytes(i));
        assert_eq!(client.get(&path(key)).await.unwrap().bytes().await.unwrap(), bytes(i), "{key}");
        assert_eq!(server.remove("bucket", key).unwrap().bytes, bytes(i), "{key}");
    }
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn blocks_become_one_blob() {
    let server = server();
    let client = client(&server);
    let content = bytes(2_000_017);
    let mut upload = client.put_multipart(&path("k")).await.unwrap();
    upload.put_part(content.slice(..1_000_000).into()).await.unwrap();
    upload.put_part(content.slice(1_000_000..).into()).await.unwrap();
    assert!(server.keys("bucket").is_empty());
    let unfinished = server.unfinished_uploads("bucket");
    assert_eq!((unfinished.len(), unfinished[0].key.as_str()), (1, "k"));
    let mut sizes: Vec<_> = unfinished[0].parts.values().collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [&1_000_000, &1_000_017]);
    upload.complete().await.unwrap();
    let stored = server.object("bucket", "k").unwrap();
    assert_eq!((stored.parts, stored.bytes), (Some(2), content));
    assert!(server.unfinished_uploads("bucket").is_empty());
    let counts = server.requests();
    assert_eq!((counts.upload_part(), counts.complete_multipart_upload(), counts.total), (2, 1, 3));
    let mut forgotten = client.put_multipart(&path("other")).await.unwrap();
    forgotten.put_part(bytes(10).into()).await.unwrap();
    server.clear();
    assert!(server.unfinished_uploads("bucket").is_empty() && server.keys("bucket").is_empty());
    client.put(&path("k"), bytes(1).into()).await.unwrap();
}

#[tokio::test]
async fn what_the_client_says_about_a_blob_is_kept() {
    let server = server();
    let client = client(&server);
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "application/dicom".into());
    attributes.insert(Attribute::StorageClass, "Cool".into());
    attributes.insert(Attribute::Metadata("origin".into()), "scanner".into());
    let mut tags = TagSet::default();
    tags.push("color", "blue");
    let options = PutOptions { attributes, tags, ..PutOptions::default() };
    client.put_opts(&path("k"), bytes(10).into(), options).await.unwrap();
    let stored = server.object("bucket", "k").unwrap();
    assert_eq!(stored.storage_class.as_deref(), Some("Cool"));
    assert_eq!(stored.content_type.as_deref(), Some("application/dicom"));
    assert_eq!((stored.metadata["origin"].as_str(), stored.tags["color"].as_str()), ("scanner", "blue"));
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let error = client.put_opts(&path("k"), bytes(1).into(), create).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let class = Attributes::from_iter([(Attribute::StorageClass, "Lukewarm")]);
    let options = PutOptions { attributes: class, ..PutOptions::default() };
    let error = client.put_opts(&path("k"), bytes(1).into(), options).await.unwrap_err();
    assert!(text(&error).contains("InvalidHeaderValue"), "{error:?}");
}

#[tokio::test]
async fn a_wrong_key_or_account_is_refused() {
    let server = server();
    let wrong = builder(&server).with_access_key("d3Jvbmcga2V5").build().unwrap();
    let error = wrong.put(&path("k"), bytes(3_000_000).into()).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error:?}");
    assert!(text(&error).contains("AuthenticationFailed"), "{error:?}");
    let anonymous = unsigned(&server).with_skip_signature(true).build().unwrap();
    assert!(anonymous.get(&path("k")).await.is_err());
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn another_account_has_its_own_key() {
    let options = AzureOptions {
        account: "hospital".to_owned(),
        key: "c29tZSBvdGhlciBrZXk=".to_owned(),
        ..AzureOptions::default()
    };
    let server = BucketServer::start_azure(&options).unwrap();
    let endpoint = options.blob_endpoint(&server.endpoint());
    let client = unsigned(&server).with_endpoint(endpoint.clone()).with_account(&options.account);
    let client = client.with_access_key(&options.key).build().unwrap();
    client.put(&path("k"), bytes(10).into()).await.unwrap();
    assert_eq!(server.keys("bucket"), ["k"]);
    let expected = "DefaultEndpointsProtocol=http;AccountName=hospital;AccountKey=c29tZSBvdGhlciBrZXk=;";
    assert_eq!(options.connection_string(&server.endpoint()), format!("{expected}BlobEndpoint={endpoint};"));
}

#[tokio::test]
async fn shared_access_signatures_open_what_they_say_for_as_long_as_they_say() {
    let server = server();
    let options = AzureOptions::default();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let mut sas = Sas::until(now + hour);
    for query in [options.account_sas(&sas), options.service_sas("bucket", &sas)] {
        let client = with_sas(&server, &query);
        client.put(&path("k"), bytes(10).into()).await.unwrap();
        assert_eq!(client.get(&path("k")).await.unwrap().bytes().await.unwrap(), bytes(10));
        assert_eq!(client.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
        // Azurite knows no batches with such signatures: HTTP 500.
        let url = format!("{}/bucket/k?{query}", options.blob_endpoint(&server.endpoint()));
        assert_eq!(reqwest::Client::new().delete(url).send().await.unwrap().status(), 202);
    }
    assert_eq!(server.requests().delete_object(), 2);
    let elsewhere = with_sas(&server, &options.service_sas("other", &sas));
    assert!(elsewhere.get(&path("k")).await.is_err());
    sas.permissions = "r".to_owned();
    let reader = with_sas(&server, &options.account_sas(&sas));
    let error = reader.put(&path("k"), bytes(10).into()).await.unwrap_err();
    assert!(text(&error).contains("AuthorizationPermissionMismatch"), "{error:?}");
    sas.expiry = now - hour;
    for query in [options.account_sas(&sas), options.service_sas("bucket", &sas)] {
        let error = with_sas(&server, &query).get(&path("k")).await.unwrap_err();
        assert!(text(&error).contains("AuthenticationFailed"), "{error:?}");
    }
}

#[tokio::test]
async fn a_range_behind_the_end_is_refused() {
    let server = server();
    server.insert("bucket", "k", bytes(9));
    server.insert("bucket", "empty", "");
    let sas = AzureOptions::default().account_sas(&Sas::until(SystemTime::now() + Duration::from_secs(60)));
    let ask = async |key: &str, range: &str| {
        let url = format!("{}/devstoreaccount1/bucket/{key}?{sas}", server.endpoint());
        reqwest::Client::new().get(url).header("range", range).send().await.unwrap()
    };
    for (key, range, total) in [("k", "bytes=9-10", 9), ("k", "bytes=20-30", 9), ("empty", "bytes=0-9", 0)] {
        let answer = ask(key, range).await;
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(answer.headers()["content-range"].to_str().unwrap(), format!("bytes */{total}"));
        assert_eq!(answer.headers()["x-ms-error-code"], "InvalidRange");
        assert!(answer.text().await.unwrap().contains("<Code>InvalidRange</Code>"));
    }
    let beyond = ask("k", "bytes=5-100").await;
    assert_eq!((beyond.status().as_u16(), beyond.bytes().await.unwrap()), (206, bytes(9).slice(5..)));
}

#[tokio::test]
async fn refusals_are_in_azures_words() {
    let server = server();
    server.insert("bucket", "k", "x");
    let fault = Fault::Status { code: 503, s3_code: "SlowDown".to_owned(), retry_after_seconds: Some(7) };
    server.faults().push(FaultRule::new(fault).times(2));
    let url = format!("{}/devstoreaccount1/bucket/k", server.endpoint());
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"7".parse().unwrap()));
    assert_eq!(answer.headers()["x-ms-error-code"], "ServerBusy");
    let id = answer.headers()["x-ms-request-id"].to_str().unwrap().to_owned();
    let document = answer.text().await.unwrap();
    assert!(document.contains("<Code>ServerBusy</Code>") && document.contains(&id), "{document}");
    let error = client(&server).get(&path("k")).await.unwrap_err();
    assert!(text(&error).contains("ServerBusy"), "{error:?}");
    for (s3, azure) in [("NoSuchBucket", "ContainerNotFound"), ("InternalError", "InternalError")] {
        server.faults().push(FaultRule::new(Fault::status(500, s3)));
        let head = reqwest::Client::new().head(&url).send().await.unwrap();
        assert_eq!(head.headers()["x-ms-error-code"], azure);
        assert_eq!(head.content_length(), Some(0));
    }
}

#[tokio::test]
async fn a_client_that_tries_again_gets_through() {
    let server = server();
    let client = builder(&server).with_retry(retries(5)).build().unwrap();
    let rule = server.faults().push(FaultRule::new(Fault::slow_down()).times(3));
    client.put(&path("k"), bytes(1_000_000).into()).await.unwrap();
    assert_eq!((rule.fired(), server.requests().put_object()), (3, 4));
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(300_000)));
    let got = client.get(&path("k")).await.unwrap().bytes().await.unwrap();
    assert_eq!(got, bytes(1_000_000));
    assert_eq!(server.last_requests().last().unwrap().range.as_deref(), Some("bytes=300000-999999"));
}

#[tokio::test]
async fn an_upload_that_is_cut_or_stalls_stores_nothing() {
    let server = server();
    for fault in [
        Fault::CloseAfterRequestBytes(0),
        Fault::CloseAfterRequestBytes(1_000_000),
        Fault::StallRequestAfter(100_000),
    ] {
        let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_millis(300));
        let hasty = builder(&server).with_client_options(options).build().unwrap();
        server.faults().push(FaultRule::new(fault));
        assert!(hasty.put(&path("k"), bytes(8_000_000).into()).await.is_err());
        assert!(server.keys("bucket").is_empty());
    }
    client(&server).put(&path("k"), bytes(8_000_000).into()).await.unwrap();
}

#[tokio::test]
async fn answers_are_spoiled_as_asked() {
    let server = server();
    server.insert("bucket", "k", bytes(4_000_000));
    let client = client(&server);
    let read = async || client.get(&path("k")).await?.bytes().await;
    for fault in [Fault::ResetAfterResponseBytes(1_000_000), Fault::CloseAfterResponseBytes(1_000_000)] {
        server.reset_counts();
        server.faults().push(FaultRule::new(fault));
        assert!(read().await.is_err());
        assert_eq!(server.requests().body_bytes_sent, 1_000_000);
    }
    server.faults().push(FaultRule::new(Fault::CorruptResponseByte(5)));
    assert_ne!(read().await.unwrap(), bytes(4_000_000));
    server.faults().push(FaultRule::new(Fault::DropEtag));
    assert!(client.get(&path("k")).await.is_err_and(|error| text(&error).contains("ETag")));
    server.faults().push(FaultRule::new(Fault::ReplaceObject("other".into())));
    assert_eq!(read().await.unwrap(), "other");
    server.faults().push(FaultRule::new(Fault::CloseBeforeResponse));
    assert!(client.put(&path("new"), "x".into()).await.is_err());
    assert_eq!(server.object("bucket", "new").unwrap().bytes, "x");
}

#[test]
fn the_server_can_be_held_stopped_and_started_again() {
    let server = server();
    let client = client(&server);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hold = server.hold_key(Operation::PutObject, "held");
    std::thread::scope(|scope| {
        scope.spawn(|| runtime().block_on(client.put(&path("held"), "x".into())).unwrap());
        assert!(hold.wait_until(1, Duration::from_secs(10)));
        assert!(server.keys("bucket").is_empty());
        hold.release();
    });
    assert_eq!(server.keys("bucket"), ["held"]);
    server.stop();
    assert_eq!(server.connections_open(), 0);
    assert!(runtime().block_on(client.get(&path("held"))).is_err());
    server.start_again().unwrap();
    assert_eq!(runtime().block_on(async { client.get(&path("held")).await?.bytes().await }).unwrap(), "x");
    server.latency(Duration::from_millis(50));
    let start = Instant::now();
    runtime().block_on(client.head(&path("held"))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn large_blobs_pass_without_being_collected() {
    let server = server();
    let client = client(&server);
    let content = bytes(100_000_000);
    let start = Instant::now();
    client.put(&path("k"), content.clone().into()).await.unwrap();
    let put = start.elapsed();
    let start = Instant::now();
    assert!(client.get(&path("k")).await.unwrap().bytes().await.unwrap() == content);
    println!("100 MB: put {put:?}, get {:?}", start.elapsed());
    assert_eq!(server.requests().body_bytes_sent, 100_000_000);
}
