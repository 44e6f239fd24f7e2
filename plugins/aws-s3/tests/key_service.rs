//! The client of AWS KMS: refusals, outages, answers of other servers.

#[path = "common/cloud.rs"]
mod cloud;

use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cloud::S3;
use cloud::key_server::kms::{ACCESS_KEY, ALIAS, ARN, Client, FakeKms, OTHER_ARN, SECRET_KEY, refusal};
use conformance::{
    Answer, Cloud as _, LoadedPlugin, Machine, SmallServer, configuration, content, section, uuid, without,
};
use crypto_envelope::{FileKey, KeyServiceError, Wrapped};
use fake_cloud::BucketServer;
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

/// A file key that no text contains by chance.
const FILE_KEY: [u8; 32] = *b"\x9f\x86\xd0\x81\x88\x4c\x7d\x65\x9a\x2f\xea\xa0\xc5\x5a\xd0\x15\xa3\xbf\x4f\x1b\x2b\x0b\x82\x2c\xd1\x5d\x6c\x15\xb0\xf0\x0a\x08";

fn file_key() -> FileKey {
    FileKey::new(&FILE_KEY)
}

/// Returns the message of a permanent error.
fn refused<T>(outcome: Result<T, KeyServiceError>) -> Result<String> {
    match outcome {
        Err(KeyServiceError::Refused(message)) => Ok(message),
        Err(other) => bail!("transient: {other}"),
        Ok(_) => bail!("not refused"),
    }
}

/// Returns the message of an error that may pass.
fn unavailable<T>(outcome: Result<T, KeyServiceError>) -> Result<String> {
    match outcome {
        Err(KeyServiceError::Unavailable(message)) => Ok(message),
        Err(other) => bail!("permanent: {other}"),
        Ok(_) => bail!("available"),
    }
}

#[test]
fn file_key_comes_back() -> Result<()> {
    let kms = FakeKms::start()?;
    for key in [ARN, ALIAS] {
        let client = kms.client(key)?;
        let wrapped = client.wrap(&file_key())?;
        assert_eq!(wrapped.key, "");
        assert_eq!(client.unwrap(&wrapped)?.expose(), &FILE_KEY);
        assert!(
            client.service.has_key(&wrapped.key) && !client.service.has_key("https://elsewhere.test/key")
        );
    }
    assert_eq!((kms.requests("Encrypt"), kms.requests("Decrypt")), (2, 2));
    let bodies: Vec<Value> = kms
        .server
        .requests()
        .iter()
        .map(|request| serde_json::from_str(&request.body))
        .collect::<Result<_, _>>()?;
    let keys: Vec<_> = bodies.iter().map(|body| body["KeyId"].as_str()).collect();
    assert_eq!(keys, [Some(ARN), Some(ARN), Some(ALIAS), None]);
    Ok(())
}

#[test]
fn key_of_an_alias_may_change() -> Result<()> {
    let kms = FakeKms::start()?;
    // As the alias was for another key before.
    let wrapped = kms.client(OTHER_ARN)?.wrap(&file_key())?;
    assert_eq!(kms.client(ALIAS)?.unwrap(&wrapped)?.expose(), &FILE_KEY);
    // The ARN stands for one key only.
    let message = refused(kms.client(ARN)?.unwrap(&wrapped))?;
    assert!(message.contains("IncorrectKeyException") && message.contains("PreviousMasterKeys"), "{message}");
    assert_eq!(kms.requests("Decrypt"), 2);
    Ok(())
}

#[test]
fn key_of_another_account_is_refused() -> Result<()> {
    let kms = FakeKms::start()?;
    let client = kms.client("arn:aws:kms:us-east-1:111122223333:alias/images")?;
    let plaintext = BASE64.encode(FILE_KEY);
    let of_account = |account: u64| {
        let arn = format!("arn:aws:kms:us-east-1:{account}:key/1234");
        Answer(200, Vec::new(), json!({"Plaintext": plaintext, "KeyId": arn}).to_string())
    };
    kms.then([of_account(444_455_556_666), of_account(111_122_223_333)]);
    let wrapped = Wrapped { key: String::new(), wrapped: b"x".to_vec() };
    let message = refused(client.unwrap(&wrapped))?;
    assert!(message.contains("another account") && !message.contains(&plaintext), "{message}");
    client.unwrap(&wrapped)?;
    Ok(())
}

#[test]
fn refusals_say_what_to_do() -> Result<()> {
    let kms = FakeKms::start()?;
    let client = kms.client(ARN)?;
    let wrapped = client.wrap(&file_key())?;
    for (status, code, advice) in [
        (400, "AccessDeniedException", "kms:Encrypt"),
        (400, "com.amazon.coral.service#AccessDeniedException", "kms:Encrypt"),
        (400, "NotFoundException", "check KeyId and Region"),
        (400, "DisabledException", "enable it"),
        (400, "KMSInvalidStateException", "to be deleted"),
        (400, "InvalidKeyUsageException", "SYMMETRIC_DEFAULT"),
        (400, "UnrecognizedClientException", "AccessKey"),
        (400, "InvalidSignatureException", "SecretKey"),
        (400, "ExpiredTokenException", "expired"),
        (400, "ValidationException", "refused the request"),
        (404, "", "Endpoint"),
    ] {
        let before = kms.requests("Encrypt");
        kms.then([if code.is_empty() {
            Answer(405, Vec::new(), String::new())
        } else {
            refusal(status, code)
        }]);
        let message = refused(client.wrap(&file_key()))?;
        assert!(
            message.starts_with(&format!("cannot wrap a file key with AWS KMS key {ARN} at 127.0.0.1:")),
            "{message}"
        );
        assert!(message.contains(advice) && message.contains("HTTP 40"), "{message}");
        if !code.is_empty() {
            assert!(message.contains("the words of the service, request 2d3f1c5e-request"), "{message}");
        }
        assert_eq!(kms.requests("Encrypt"), before + 1, "{code}");
    }
    kms.then([refusal(400, "AccessDeniedException")]);
    let message = refused(client.unwrap(&wrapped))?;
    assert!(
        message.starts_with("cannot unwrap a file key with ") && message.contains("kms:Decrypt"),
        "{message}"
    );
    let damaged = Wrapped { wrapped: b"damaged".to_vec(), ..wrapped };
    let message = refused(client.unwrap(&damaged))?;
    assert!(message.contains("InvalidCiphertextException"), "{message}");
    Ok(())
}

#[test]
fn busy_service_is_asked_again() -> Result<()> {
    let kms = FakeKms::start()?;
    let client = kms.client(ARN)?;
    kms.then([
        Answer(429, vec![("Retry-After", "2".to_owned())], String::new()),
        refusal(400, "ThrottlingException"),
        refusal(500, "KMSInternalException"),
        refusal(503, "DependencyTimeoutException"),
        Answer(200, vec![("Content-Length", "1000".to_owned())], "{\"Cipher".to_owned()),
        Answer(200, vec![("Content-Type", "text/html".to_owned())], "<html>Welcome</html>".to_owned()),
    ]);
    let start = Instant::now();
    client.wrap(&file_key())?;
    assert!(start.elapsed() >= Duration::from_secs(2), "Retry-After is ignored");
    assert_eq!(kms.requests("Encrypt"), 7);
    Ok(())
}

#[test]
fn attempts_are_limited() -> Result<()> {
    let kms = FakeKms::start()?;
    let limited = Client::open(&kms.section(ARN), &json!({"MaxRetries": 2}))?;
    kms.then((0..10).map(|_| refusal(503, "ServiceUnavailableException")));
    let message = unavailable(limited.wrap(&file_key()))?;
    assert!(
        message.contains("ServiceUnavailableException") && message.contains("after 3 attempts"),
        "{message}"
    );
    assert_eq!(kms.requests("Encrypt"), 3);
    // A pause that is longer than anyone waits.
    let other = FakeKms::start()?;
    let impatient = Client::open(&other.section(ARN), &json!({"OutageTimeout": 2}))?;
    other.then([Answer(429, vec![("Retry-After", "3".to_owned())], String::new())]);
    unavailable(impatient.wrap(&file_key()))?;
    assert_eq!(other.requests("Encrypt"), 1);
    Ok(())
}

#[test]
fn silence_ends_with_the_patience() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let service = json!({"KeyId": ARN, "Endpoint": endpoint});
    let message = unavailable(Client::open(&service, &json!({"OutageTimeout": 1}))?.wrap(&file_key()))?;
    assert!(message.contains("no answer for 1 s (OutageTimeout)"), "{message}");
    drop(listener);
    let message = unavailable(Client::open(&service, &json!({"MaxRetries": 1}))?.wrap(&file_key()))?;
    assert!(message.contains("cannot connect to 127.0.0.1"), "{message}");
    Ok(())
}

/// A server that sends one byte a second shows signs of life for ever.
#[test]
fn slow_answer_ends_with_the_patience() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let service = json!({"KeyId": ARN, "Endpoint": format!("http://{}", listener.local_addr()?)});
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 16_384]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(300));
            }
        }
    });
    let start = Instant::now();
    let message = unavailable(Client::open(&service, &json!({"OutageTimeout": 2}))?.wrap(&file_key()))?;
    assert!(message.contains("(OutageTimeout)"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(60), "it would last until RequestTimeout");
    Ok(())
}

#[test]
fn unusable_answers_are_refused() -> Result<()> {
    let kms = FakeKms::start()?;
    let client = kms.client(ARN)?;
    let plain = |body: String| Answer(200, Vec::new(), body);
    let huge = format!("{{\"CiphertextBlob\": \"{}\"}}", "A".repeat(70_000));
    let key = |len: usize| json!({"KeyId": ARN, "Plaintext": BASE64.encode(vec![7; len])}).to_string();
    for body in ["", "{}", "[]", "{\"CiphertextBlob\": \"\"}", "{\"CiphertextBlob\": 7}", &huge] {
        kms.then([plain(body.to_owned())]);
        let message = refused(client.wrap(&file_key()))?;
        assert!(message.contains("the answer "), "{message}");
    }
    let wrapped = Wrapped { key: String::new(), wrapped: b"x".to_vec() };
    for body in ["{}".to_owned(), key(0), key(31), key(33), key(10_000)] {
        kms.then([plain(body)]);
        let message = refused(client.unwrap(&wrapped))?;
        assert!(message.contains("no key of 32 bytes"), "{message}");
    }
    assert_eq!((kms.requests("Encrypt"), kms.requests("Decrypt")), (6, 5), "no retries");
    Ok(())
}

#[test]
fn wrong_clock_is_corrected() -> Result<()> {
    let kms = FakeKms::start()?;
    let client = kms.client(ARN)?;
    let later = SystemTime::now() + Duration::from_secs(7200);
    let Answer(status, mut headers, body) = refusal(400, "InvalidSignatureException");
    headers.push(("Date", httpdate::fmt_http_date(later)));
    kms.then([Answer(status, headers, body)]);
    let wrapped = client.wrap(&file_key())?;
    client.unwrap(&wrapped)?;
    let hour = |request: &conformance::Request| {
        let date = request
            .headers
            .iter()
            .find_map(|header| header.strip_prefix("x-amz-date: ")?.get(9..11)?.parse::<i32>().ok());
        date.unwrap_or_default()
    };
    let hours: Vec<_> = kms.server.requests().iter().map(hour).collect();
    let behind = |hour: i32| (hour - hours[0]).rem_euclid(24);
    assert!(
        hours.len() == 3 && (2..=3).contains(&behind(hours[1])) && (2..=3).contains(&behind(hours[2])),
        "{hours:?}"
    );
    Ok(())
}

#[test]
fn redirects_are_not_followed() -> Result<()> {
    let thief = SmallServer::start(|_| (200, "{}".to_owned()))?;
    let kms = FakeKms::start()?;
    for status in [301, 302, 307, 308] {
        kms.then([Answer(status, vec![("Location", thief.url("/"))], String::new())]);
        refused(kms.client(ARN)?.wrap(&file_key()))?;
        // Nor within the same host, since the path or the port may be another program's.
        kms.then([Answer(status, vec![("Location", kms.server.url("/other"))], String::new())]);
        refused(kms.client(ARN)?.wrap(&file_key()))?;
    }
    assert_eq!((thief.requests().len(), kms.requests("Encrypt")), (0, 8));
    Ok(())
}

#[test]
fn messages_contain_no_secret() -> Result<()> {
    // Quotes all that it gets, as a proxy may do.
    let echo = SmallServer::start(|request| {
        let text = format!("{} {}", request.body, request.headers.join(" "));
        (400, json!({"__type": "ValidationException", "message": text}).to_string())
    })?;
    let token = "session-token-of-hunter2";
    let service = json!({
        "KeyId": ARN, "Endpoint": echo.url(""), "AccessKey": ACCESS_KEY, "SecretKey": SECRET_KEY, "SessionToken": token,
    });
    let client = Client::open(&service, &json!({}))?;
    let wrapped = Wrapped {
        key: String::new(),
        wrapped: b"\x01\x02\x02\x00\x78the ciphertext of the file key".to_vec(),
    };
    let messages = [
        refused(client.wrap(&file_key()))?,
        refused(client.unwrap(&wrapped))?,
        format!("{:?}", client.service),
    ];
    let plaintext = BASE64.encode(FILE_KEY);
    let ciphertext = BASE64.encode(&wrapped.wrapped);
    for message in &messages {
        for secret in [
            plaintext.trim_end_matches('='),
            ciphertext.trim_end_matches('='),
            SECRET_KEY,
            token,
            "Signature=",
        ] {
            assert!(!message.contains(secret), "{secret}: {message}");
        }
    }
    let sent: String = echo.requests().iter().map(|request| request.body.clone()).collect();
    assert!(sent.contains(&plaintext) && sent.contains(&ciphertext));
    Ok(())
}

#[test]
fn wrong_options_are_refused() -> Result<()> {
    for (service, fragments) in [
        (json!({}), ["AwsKms.KeyId", "is missing"]),
        (json!({"KeyId": "hunter2/hunter2"}), ["AwsKms.KeyId", "alias/NAME"]),
        (json!({"KeyId": ARN, "Region": "eu-west-1"}), ["AwsKms.Region", "\"us-east-1\""]),
        (json!({"KeyId": ALIAS, "Region": "eu-west-1a"}), ["AwsKms.Region", "\"eu-west-1\""]),
        (json!({"KeyId": ARN, "Endpoint": "http://kms.test"}), ["AwsKms.Endpoint", "https://"]),
        (json!({"KeyId": ARN, "Endpoint": "https://kms.test/path"}), ["AwsKms.Endpoint", "without a path"]),
        (json!({"KeyId": ARN, "AccessKey": "hunter2"}), ["AwsKms.SecretKey", "is missing"]),
        (json!({"KeyId": ARN, "SessionToken": "hunter2"}), ["AwsKms.SessionToken", "requires"]),
    ] {
        let message =
            Client::open(&service, &json!({})).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(fragments.iter().all(|fragment| message.contains(fragment)), "{service}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    Ok(())
}

/// The section with a bucket and a master key in this service.
fn with_key_service(server: &BucketServer, kms: &FakeKms, options: &Value) -> Value {
    let service =
        conformance::with(kms.section(ARN), &json!({"AccessKey": ACCESS_KEY, "SecretKey": SECRET_KEY}));
    let encryption = json!({"MasterKey": {"AwsKms": service}, "ReadFormats": ["A2"]});
    let options =
        conformance::with(json!({"StorageEncryption": encryption, S3::HTTP_LOG_OPTION: true}), options);
    configuration::<S3>(section::<S3>(server, &options))
}

#[test]
fn whole_plugin_asks_rarely() -> Result<()> {
    let kms = FakeKms::start()?;
    let server = S3::server()?;
    let configuration = with_key_service(&server, &kms, &json!({}));
    let plugin = LoadedPlugin::<S3>::load(server, configuration.clone())?;
    // For the first file key.
    assert_eq!(kms.server.requests().len(), 1);
    for number in 0..20 {
        plugin.create(&uuid(number), &content(200_000 + number))?;
    }
    assert_eq!(plugin.read(&uuid(3))?, content(200_003));
    assert_eq!(plugin.range(&uuid(4), 70_000, 1000)?, content(200_004)[70_000..71_000]);
    assert_eq!((kms.requests("Encrypt"), kms.requests("Decrypt")), (1, 0));
    plugin.check()?;
    let mut lines = plugin.orthanc.logs();

    let LoadedPlugin { orthanc, server, .. } = plugin;
    drop(orthanc);
    let plugin = LoadedPlugin::<S3>::load(server, configuration)?;
    assert_eq!(plugin.range(&uuid(5), 70_000, 1000)?, content(200_005)[70_000..71_000]);
    for number in 0..20 {
        assert_eq!(plugin.read(&uuid(number))?, content(200_000 + number));
    }
    assert_eq!((kms.requests("Encrypt"), kms.requests("Decrypt")), (2, 1));
    plugin.check()?;
    lines.extend(plugin.orthanc.logs());

    let requests = kms.server.requests();
    let bodies: Vec<Value> =
        requests.iter().map(|request| serde_json::from_str(&request.body)).collect::<Result<_, _>>()?;
    let secrets =
        ["Plaintext", "CiphertextBlob"].map(|name| bodies.iter().filter_map(move |body| body[name].as_str()));
    let secrets: Vec<_> = secrets.into_iter().flatten().collect();
    assert_eq!(secrets.len(), 3, "{bodies:?}");
    for secret in secrets.into_iter().chain([SECRET_KEY, "Signature="]) {
        let leak = lines.iter().find(|(_, line)| line.contains(secret.trim_end_matches('=')));
        assert_eq!(leak, None);
    }
    assert!(
        lines.iter().filter(|(level, _)| *level == LogLevel::Info).count() > 50,
        "the log is not verbose"
    );
    Ok(())
}

#[test]
fn child() -> Result<()> {
    conformance::child::<S3>()
}

#[test]
fn refused_token_is_renewed() -> Result<()> {
    let accepted =
        fake_cloud::Options { session_token: Some("session".to_owned()), ..fake_cloud::Options::default() };
    for code in ["ExpiredTokenException", "UnrecognizedClientException"] {
        let credentials = json!({
            "AccessKeyId": accepted.access_key, "SecretAccessKey": accepted.secret_key, "Token": accepted.session_token,
            "Expiration": "2099-01-01T00:00:00Z",
        });
        let credentials = credentials.to_string();
        let issuer = SmallServer::start(move |_| (200, credentials.clone()))?;
        let kms = SmallServer::start({
            let refused = std::sync::atomic::AtomicBool::new(false);
            let code = code.to_owned();
            move |_| match refused.swap(true, std::sync::atomic::Ordering::SeqCst) {
                false => refusal(400, &code),
                true => Answer(
                    200,
                    Vec::new(),
                    json!({"CiphertextBlob": "d3JhcHBlZA==", "KeyId": ARN}).to_string(),
                ),
            }
        })?;
        let server = BucketServer::start(accepted.clone())?;
        let encryption = json!({"MasterKey": {"AwsKms": {"KeyId": ARN, "Endpoint": kms.url("")}}});
        let options = json!({"StorageEncryption": encryption, "MaxRetries": 0, "CheckWrite": false});
        let section = without(section::<S3>(&server, &options), &["AccessKey", "SecretKey"]);
        let machine = Machine::new()?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", issuer.url("/role"));
        let outcome = machine.run::<S3>(&configuration::<S3>(section), &[&accepted.secret_key])?;
        assert_eq!(outcome.errors, [""; 0], "{code}");
        assert_eq!(
            kms.requests().len(),
            2,
            "{code}: one for the three attachments, and one that was refused"
        );
        // One for the bucket, two for the key service.
        assert_eq!(issuer.requests().len(), 3, "{code}");
    }
    Ok(())
}
