//! Requests that `object_store` does not make, signed by hand.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use common::server;
use fake_cloud::{BucketServer, Operation};
use reqwest::{Method, Response};

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Date and time as AWS signs them.
fn now() -> (String, String) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let date = format!("{year:04}{month:02}{:02}", days + 1);
    let time = format!("{date}T{:02}{:02}{:02}Z", time / 3600, time / 60 % 60, time % 60);
    (date, time)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn sha256(text: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, text).as_ref())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Sends a request with signature version 4. `target` is path and query, encoded and its query in order.
async fn send(
    server: &BucketServer,
    method: Method,
    target: &str,
    payload: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Response {
    let (date, time) = now();
    let host = format!("127.0.0.1:{}", server.port());
    let mut signed = vec![("host", host.as_str()), ("x-amz-content-sha256", payload), ("x-amz-date", &time)];
    signed.extend_from_slice(headers);
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: Vec<_> = query
        .split('&')
        .map(|pair| if pair.is_empty() || pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    let canonical = format!("{method}\n{path}\n{}\n{lines}\n{names}\n{payload}", query.join("&"));
    let scope = format!("{date}/us-east-1/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let key = ["us-east-1", "s3", "aws4_request"]
        .iter()
        .fold(mac(b"AWS4test-secret-key", &date), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &to_sign));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=test-access-key/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    let mut request = reqwest::Client::new()
        .request(method, format!("{}{target}", server.endpoint()))
        .header("authorization", authorization)
        .body(body);
    for (name, value) in signed.iter().filter(|(name, _)| *name != "host") {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_checksum_that_is_not_that_of_the_body_is_a_bad_digest() {
    let server = server();
    let put = async |name, value| {
        send(&server, Method::PUT, "/bucket/k", UNSIGNED, &[(name, value)], "123456789").await
    };
    for (name, good, bad) in [
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg=", "rosUhgp5mIk="),
        ("x-amz-checksum-crc32", "y/Q5Jg==", "y/Q5Jw=="),
        ("x-amz-checksum-crc32c", "4waSgw==", "4waShA=="),
        ("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==", "6Afx/PgtEy+bsBjKZzihnw=="),
    ] {
        server.clear();
        let answer = put(name, bad).await;
        assert_eq!(answer.status(), 400, "{name}");
        assert!(answer.text().await.unwrap().contains("<Code>BadDigest</Code>"), "{name}");
        assert!(server.keys("bucket").is_empty());
        assert!(put(name, "nonsense").await.text().await.unwrap().contains("InvalidDigest"), "{name}");
        let answer = put(name, good).await;
        assert_eq!(answer.status(), 200, "{name}");
        assert_eq!(answer.headers()["x-amz-checksum-crc64nvme"], "rosUhgp5mIg=");
        assert_eq!(server.object("bucket", "k").unwrap().checksum_crc64nvme, "rosUhgp5mIg=");
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_signed_one_is_refused() {
    let server = server();
    let answer = send(&server, Method::PUT, "/bucket/k", &sha256(b"signed"), &[], "sent").await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("XAmzContentSHA256Mismatch"));
    assert!(server.keys("bucket").is_empty());
    assert_eq!(
        send(&server, Method::PUT, "/bucket/k", &sha256(b"signed"), &[], "signed").await.status(),
        200
    );
}

#[tokio::test]
async fn a_checksum_in_the_trailer_of_a_chunked_body_is_checked() {
    let server = server();
    let put = async |sum: &str| {
        let body = format!("4\r\n1234\r\n5\r\n56789\r\n0\r\nx-amz-checksum-crc64nvme:{sum}\r\n\r\n");
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "9"),
            ("x-amz-trailer", "x-amz-checksum-crc64nvme"),
        ];
        send(&server, Method::PUT, "/bucket/k", UNSIGNED_TRAILER, &headers, body).await
    };
    let refused = put("rosUhgp5mIk=").await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("BadDigest"));
    assert!(server.keys("bucket").is_empty());
    assert_eq!(put("rosUhgp5mIg=").await.status(), 200);
    assert_eq!(server.object("bucket", "k").unwrap().bytes, "123456789");
}

#[tokio::test]
async fn tags_can_be_read_and_bad_ones_are_refused() {
    let server = server();
    let put =
        async |tags| send(&server, Method::PUT, "/bucket/k", UNSIGNED, &[("x-amz-tagging", tags)], "x").await;
    assert_eq!(put("a=1&b%20c=2").await.status(), 200);
    let answer = send(&server, Method::GET, "/bucket/k?tagging", UNSIGNED, &[], "").await;
    let text = answer.text().await.unwrap();
    assert!(text.contains("<Key>a</Key><Value>1</Value>") && text.contains("<Key>b c</Key>"), "{text}");
    let answer = send(&server, Method::GET, "/bucket/k", UNSIGNED, &[], "").await;
    assert_eq!(answer.headers()["x-amz-tagging-count"], "2");
    for bad in ["a=1&a=2", "=1", "1=&2=&3=&4=&5=&6=&7=&8=&9=&10=&11="] {
        let answer = put(bad).await;
        assert!(answer.text().await.unwrap().contains("InvalidTag"), "{bad}");
    }
}

#[tokio::test]
async fn encryption_is_echoed_and_bad_encryption_refused() {
    let server = server();
    let put = async |headers: &[(&str, &str)]| {
        send(&server, Method::PUT, "/bucket/k", UNSIGNED, headers, "x").await
    };
    for (class, key) in [("aws:kms", Some("key-1")), ("aws:kms:dsse", Some("key-2")), ("AES256", None)] {
        let mut headers = vec![("x-amz-server-side-encryption", class)];
        headers.extend(key.map(|key| ("x-amz-server-side-encryption-aws-kms-key-id", key)));
        let put = put(&headers).await;
        let head = send(&server, Method::HEAD, "/bucket/k", UNSIGNED, &[], "").await;
        for answer in [put, head] {
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-amz-server-side-encryption"], class);
            let echoed = answer.headers().get("x-amz-server-side-encryption-aws-kms-key-id");
            assert_eq!(echoed.map(|key| key.to_str().unwrap()), key);
        }
    }
    assert_eq!(put(&[("x-amz-server-side-encryption", "rot13")]).await.status(), 400);
    let key_alone = [("x-amz-server-side-encryption-aws-kms-key-id", "key")];
    assert_eq!(put(&key_alone).await.status(), 400);
}

#[tokio::test]
async fn a_bucket_can_be_asked_for_and_created() {
    let server = server();
    let head = async |path| send(&server, Method::HEAD, path, UNSIGNED, &[], "").await;
    let found = head("/bucket").await;
    assert_eq!(
        (found.status().as_u16(), &found.headers()["x-amz-bucket-region"]),
        (200, &"us-east-1".parse().unwrap())
    );
    let missing = head("/missing").await;
    assert_eq!(missing.status(), 404);
    assert!(missing.headers().contains_key("x-amz-request-id"));
    assert_eq!(send(&server, Method::PUT, "/missing", UNSIGNED, &[], "").await.status(), 200);
    assert_eq!(head("/missing").await.status(), 200);
    assert_eq!(server.requests().of(Operation::HeadBucket), 3);
    let buckets = send(&server, Method::GET, "/", UNSIGNED, &[], "").await.text().await.unwrap();
    assert!(buckets.contains("<Name>bucket</Name>") && buckets.contains("<Name>missing</Name>"), "{buckets}");
}

#[tokio::test]
async fn errors_are_documents_with_code_message_resource_and_request_id() {
    let server = server();
    let answer = send(&server, Method::GET, "/bucket/a%20b", UNSIGNED, &[], "").await;
    let id = answer.headers()["x-amz-request-id"].to_str().unwrap().to_owned();
    let text = answer.text().await.unwrap();
    for part in ["<Code>NoSuchKey</Code>", "<Message>", "<Resource>/bucket/a%20b</Resource>"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.contains(&format!("<RequestId>{id}</RequestId></Error>")), "{text}");
}
