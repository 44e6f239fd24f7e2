//! The sources of Google's credentials, and the attributes of uploads.

#[path = "common/cloud.rs"]
mod cloud;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloud::{Google, options};
use conformance::{
    Answer, Cloud as _, DICOM, KEY, LoadedPlugin, Machine, Outcome, SmallServer, UUID, configuration,
    content, load, section, with, without,
};
use fake_cloud::{BucketServer, Fault, FaultRule, GoogleOptions, Interceptor, Operation, ServiceAccount};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

#[test]
fn child() -> Result<()> {
    conformance::child::<Google>()
}

/// A machine without credentials, and a server.
struct Setting {
    options: GoogleOptions,
    server: BucketServer,
    machine: Machine,
}

impl Setting {
    fn new() -> Result<Self> {
        let options = options()?;
        let server = BucketServer::start_google(options.clone())?;
        Ok(Self { options, server, machine: Machine::new()? })
    }

    /// Adds an environment variable to the machine.
    fn set(self, variable: &'static str, value: impl Into<std::ffi::OsString>) -> Self {
        Self { machine: self.machine.set(variable, value), ..self }
    }

    /// Runs the plugin with changes of a section without credentials. The log must contain no secret.
    fn run(&self, changes: &Value) -> Result<Outcome> {
        self.run_trusting(changes, None)
    }

    fn run_trusting(&self, changes: &Value, authority: Option<&Path>) -> Result<Outcome> {
        let user = &self.options.user;
        let pem = self.options.service_accounts[0].private_key_pem();
        let key = pem.lines().nth(3).unwrap_or_default();
        let secrets =
            [user.client_secret.as_str(), user.refresh_token.as_str(), key, "Bearer ", "of-a-former-user"];
        let bare = without(
            section::<Google>(&self.server, &json!({"MaxRetries": 0, "EnableHttpLogs": true})),
            &["ServiceAccountFile"],
        );
        let mut configuration = configuration::<Google>(with(bare, changes));
        if let Some(authority) = authority {
            configuration["HttpsCACertificates"] = json!(authority);
        }
        self.machine.run::<Google>(&configuration, &secrets)
    }

    /// Runs the plugin over TLS at Google's addresses, which a proxy redirects to the server.
    fn run_at_googles_addresses(mut self) -> Result<(Self, Outcome)> {
        let google = Interceptor::start(self.server.port())?;
        let authority = self.machine.file("authority.pem", google.authority())?;
        self = self.set("HTTPS_PROXY", google.proxy());
        let outcome = self.run_trusting(&json!({"Endpoint": "storage.googleapis.com"}), Some(&authority))?;
        Ok((self, outcome))
    }

    /// Checks that the plugin has found credentials with this number of requests for tokens.
    fn expect_success(&self, outcome: &Outcome, tokens: u64) {
        assert_eq!(outcome.errors, [""; 0]);
        assert_eq!(self.server.keys("bucket").len(), 3);
        let requests = self.server.requests();
        // The checks and three uploads, none of which was refused.
        let expected = (Google::REQUESTS_AT_START + 3 + tokens, tokens);
        assert_eq!((requests.total, requests.of(Operation::Token)), expected);
    }
}

/// Checks that there is one error line, which contains all `fragments`.
fn expect_one_error(outcome: &Outcome, fragments: &[&str]) -> Result<()> {
    let [line] = outcome.errors.as_slice() else { bail!("{:#?}", outcome.errors) };
    for fragment in fragments {
        ensure!(line.contains(fragment), "{fragment:?} is not in {line:?}");
    }
    Ok(())
}

#[test]
fn service_account_needs_no_token_service() -> Result<()> {
    let setting = Setting::new()?;
    let account = setting.options.service_accounts[0].json(&setting.server.endpoint());
    let key = setting.machine.file("key.json", &account.to_string())?;
    let setting = setting.set("GOOGLE_APPLICATION_CREDENTIALS", key);
    let outcome = setting.run(&json!({}))?;
    setting.expect_success(&outcome, 0);
    Ok(())
}

#[test]
fn user_of_gcloud_gets_tokens_of_google() -> Result<()> {
    let folder_of = |path: PathBuf| path.parent().map(Path::to_owned).context("no folder");
    for (file, variable) in [
        (".config/gcloud/application_default_credentials.json", None),
        ("elsewhere/application_default_credentials.json", Some("CLOUDSDK_CONFIG")),
        ("user.json", Some("GOOGLE_APPLICATION_CREDENTIALS")),
    ] {
        let mut setting = Setting::new()?;
        let path = setting.machine.file(file, &setting.options.user.json().to_string())?;
        if let Some(variable) = variable {
            let value = if variable == "CLOUDSDK_CONFIG" { folder_of(path)? } else { path };
            setting = setting.set(variable, value);
        }
        let (setting, outcome) = setting.run_at_googles_addresses()?;
        // A valid token is cached.
        setting.expect_success(&outcome, 1);
    }
    Ok(())
}

#[test]
fn metadata_server_issues_tokens() -> Result<()> {
    let setting = Setting::new()?;
    let metadata = format!("127.0.0.1:{}", setting.server.port());
    let setting = setting.set("GCE_METADATA_HOST", metadata);
    let outcome = setting.run(&json!({}))?;
    setting.expect_success(&outcome, 1);
    Ok(())
}

#[test]
fn absurd_lifetimes_are_capped() -> Result<()> {
    let setting = Setting::new()?;
    setting.options.tokens.life(Duration::MAX);
    let metadata = format!("127.0.0.1:{}", setting.server.port());
    let setting = setting.set("GCE_METADATA_HOST", metadata);
    let outcome = setting.run(&json!({}))?;
    setting.expect_success(&outcome, 1);
    Ok(())
}

#[test]
fn metadata_server_is_not_asked_through_a_proxy() -> Result<()> {
    for host in ["169.254.169.254:1", "metadata.google.internal:1", "metadata.test:1"] {
        // A proxy that would give itself away by issuing a token.
        let setting = Setting::new()?;
        let setting = setting.set("GCE_METADATA_HOST", host).set("GCE_METADATA_IP", "169.254.169.254:1");
        let proxy = setting.server.endpoint();
        let setting = setting.set("HTTP_PROXY", proxy);
        let errors = setting.run(&json!({}))?.errors;
        // That of the start, or those of three uploads if this machine may be Google's.
        let is_expected =
            |line: &String| line.contains("gs://bucket") && line.contains("the metadata server");
        assert!(!errors.is_empty() && errors.iter().all(is_expected), "{errors:#?}");
        assert_eq!(setting.server.requests().total, 0, "{host}");
    }
    Ok(())
}

#[test]
fn expiring_tokens_are_renewed() -> Result<()> {
    let setting = Setting::new()?;
    // Less than the margin of the renewal, so that each request renews the token.
    setting.options.tokens.life(Duration::from_secs(60));
    let metadata = format!("127.0.0.1:{}", setting.server.port());
    let setting = setting.set("GCE_METADATA_HOST", metadata);
    // Requests within a tenth of a second share a renewal.
    setting.server.latency(Duration::from_millis(150));
    let outcome = setting.run(&json!({}))?;
    assert_eq!(outcome.errors, [""; 0]);
    let requests = setting.server.requests();
    assert!(requests.of(Operation::Token) > 1, "{requests:?}");
    assert_eq!(setting.server.keys("bucket").len(), 3);
    Ok(())
}

#[test]
fn replaced_file_is_read_again() -> Result<()> {
    let setting = Setting::new()?;
    let unknown = ServiceAccount::generate()?.json("https://oauth2.googleapis.com");
    let file = setting.machine.file("key.json", &unknown.to_string())?;
    let good = setting.options.service_accounts[0].json("https://oauth2.googleapis.com").to_string();
    let hold = setting.server.hold(Operation::GetObject);
    let replaced = file.clone();
    thread::spawn(move || {
        assert!(hold.wait_until(1, Duration::from_secs(60)));
        fs::write(replaced, good)?;
        hold.release();
        anyhow::Ok(())
    });
    let outcome = setting.run(&json!({ "ServiceAccountFile": file }))?;
    assert_eq!(outcome.errors, [""; 0]);
    // The first check was refused once.
    assert_eq!(setting.server.requests().total, 1 + Google::REQUESTS_AT_START + 3);
    Ok(())
}

/// The server's clock is two hours behind. It refuses tokens from the future.
#[test]
fn tokens_are_signed_with_the_time_of_the_server() -> Result<()> {
    let server = SmallServer::start(|request| {
        let now = SystemTime::now() - Duration::from_secs(7200);
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let token = request.headers.iter().find_map(|header| header.strip_prefix("authorization: Bearer "));
        let claims = token.and_then(|token| URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok());
        let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
        let (status, body) = match claims["iat"].as_u64() {
            Some(issued) if issued > seconds + 300 => {
                (401, "<Error><Code>AuthenticationRequired</Code></Error>")
            }
            _ if request.target.starts_with("PUT") => (200, ""),
            _ => (404, "<Error><Code>NoSuchKey</Code></Error>"),
        };
        let headers = vec![
            ("Date", httpdate::fmt_http_date(now)),
            ("ETag", "\"1\"".to_owned()),
            ("x-guploader-uploadid", "8f2c".to_owned()),
        ];
        Answer(status, headers, body.to_owned())
    })?;
    let section = with(Google::section(&server.url("")), &json!({"MaxRetries": 0}));
    let orthanc = load::<Google>(configuration::<Google>(section))??;
    orthanc.create(UUID, DICOM, b"x").map_err(|code| anyhow!("error {code}: {:#?}", orthanc.logs()))?;
    // The first check was refused once.
    assert_eq!(server.requests().len(), 5, "{:#?}", server.requests());
    let warnings = orthanc.logs_at(LogLevel::Warning);
    let about_clock: Vec<_> = warnings.iter().filter(|line| line.contains("clock")).collect();
    assert!(about_clock.len() == 1 && about_clock[0].contains("is 2 h 0 min ahead of"), "{warnings:#?}");
    Ok(())
}

#[test]
fn refused_token_is_replaced_once() -> Result<()> {
    for (times, errors, uploads) in [(1, 0, 5), (usize::MAX, 4, 5)] {
        let setting = Setting::new()?;
        let metadata = format!("127.0.0.1:{}", setting.server.port());
        let setting = setting.set("GCE_METADATA_HOST", metadata);
        let refusal = FaultRule::new(Fault::status(401, "AuthenticationRequired"));
        setting.server.faults().push(refusal.on(Operation::PutObject).times(times));
        let outcome = setting.run(&json!({}))?;
        assert_eq!(outcome.errors.len(), errors, "{:#?}", outcome.errors);
        let requests = setting.server.requests();
        assert_eq!((requests.of(Operation::Token), requests.of(Operation::PutObject)), (2, uploads));
    }
    Ok(())
}

#[test]
fn missing_credentials_prevent_the_start() -> Result<()> {
    // One that does not answer would prevent the start only on a machine that is known to be elsewhere.
    let service = SmallServer::start(|_| (404, String::new()))?;
    let address = service.url("").trim_start_matches("http://").to_owned();
    let setting = Setting::new()?.set("GCE_METADATA_HOST", address);
    let outcome = setting.run(&json!({}))?;
    expect_one_error(&outcome, &["gs://bucket", "the metadata server refused", "ServiceAccountFile"])?;
    assert_eq!(setting.server.requests().total, 0);
    Ok(())
}

#[test]
fn silent_metadata_server_is_a_warning_in_the_cloud() -> Result<()> {
    for variable in ["K_SERVICE", "CLOUD_RUN_JOB"] {
        let setting =
            Setting::new()?.set("GCE_METADATA_HOST", "127.0.0.1:9").set("GCE_METADATA_IP", "127.0.0.1:9");
        let outcome = setting.set(variable, "orthanc").run(&json!({}))?;
        let is_expected = |line: &&String| line.contains("Connection refused") && line.contains("continuing");
        assert_eq!(outcome.warnings.iter().filter(is_expected).count(), 1, "{:#?}", outcome.warnings);
        assert_eq!(outcome.errors.len(), 3, "three uploads: {:#?}", outcome.errors);
    }
    Ok(())
}

#[test]
fn unusable_files_prevent_the_start() -> Result<()> {
    let setting = Setting::new()?;
    let machine = &setting.machine;
    let broken = machine.file("broken.json", "{\"type\": \"service_account\", \"private_key\": \"hunter2")?;
    let federated = machine.file("federated.json", "{\"type\": \"external_account\"}")?;
    for (file, fragment) in [
        (PathBuf::from("/nowhere/key.json"), "No such file"),
        (broken, "JSON"),
        (federated, "authorized_user"),
    ] {
        let outcome = setting.run(&json!({ "ServiceAccountFile": file }))?;
        let path = file.display().to_string();
        expect_one_error(&outcome, &["GoogleCloudStorage.ServiceAccountFile", &path, fragment])?;
        assert!(!outcome.errors[0].contains("hunter2"), "{:?}", outcome.errors);
    }
    assert_eq!(setting.server.requests().total, 0);
    Ok(())
}

#[test]
fn refusal_of_the_token_service_is_one_error() -> Result<()> {
    let setting = Setting::new()?;
    let mut user = setting.options.user.clone();
    user.refresh_token = "1//of-a-former-user".to_owned();
    setting.machine.file(".config/gcloud/application_default_credentials.json", &user.json().to_string())?;
    let (_, outcome) = setting.run_at_googles_addresses()?;
    expect_one_error(
        &outcome,
        &["gs://bucket", "gcloud auth application-default login", "HTTP 400 invalid_grant"],
    )
}

#[test]
fn uploads_have_a_checksum() -> Result<()> {
    let server = SmallServer::start(|_| (503, String::new()))?;
    let section = with(Google::section(&server.url("")), &json!({"MaxRetries": 0}));
    let orthanc = load::<Google>(configuration::<Google>(section))??;
    assert!(orthanc.create(UUID, DICOM, b"123456789").is_err());
    let uploads: Vec<_> =
        server.requests().into_iter().filter(|request| request.target.starts_with("PUT")).collect();
    // E3069283, the check value of CRC-32C.
    assert!(uploads.len() == 1 && uploads[0].has("x-goog-hash", "crc32c=4waSgw=="), "{uploads:#?}");
    Ok(())
}

#[test]
fn uploads_have_the_storage_class() -> Result<()> {
    for (changes, class) in [(json!({}), None), (json!({"StorageClass": "NEARLINE"}), Some("NEARLINE"))] {
        let plugin = LoadedPlugin::<Google>::with(&changes)?;
        plugin.create(UUID, &content(100_000))?;
        let stored = plugin.server.object("bucket", KEY).context("not stored")?;
        assert_eq!(stored.storage_class.as_deref(), class);
        assert_eq!(plugin.requests(), 1);
    }
    Ok(())
}
