//! The sources of the default credential chain of AWS.
//!
//! Environment variables select most sources, so each case has its own `Machine`.

#[path = "common/cloud.rs"]
mod cloud;

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use aws_smithy_types::date_time::{DateTime, Format};
use cloud::S3;
use conformance::{
    Answer, Cloud as _, METADATA_LIFETIME, Outcome, Request, SmallServer, configuration, section, without,
};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options};
use serde_json::json;
use tempfile::TempDir;

const ACCESS_KEY: &str = "AKIACHAINEXAMPLE";
const SECRET_KEY: &str = "chain/secret+key/0123456789";
const TOKEN: &str = "chain-session-token==";

#[test]
fn child() -> Result<()> {
    conformance::child::<S3>()
}

/// A machine, and a bucket that accepts only its credentials.
struct Machine {
    machine: conformance::Machine,
    server: BucketServer,
}

impl Machine {
    /// Returns a machine without credentials.
    fn new(session_token: Option<&str>) -> Result<Self> {
        let server = BucketServer::start(Options {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            session_token: session_token.map(str::to_owned),
            ..Options::default()
        })?;
        Ok(Self { machine: conformance::Machine::new()?, server })
    }

    fn set(self, variable: &'static str, value: impl Into<OsString>) -> Self {
        Self { machine: self.machine.set(variable, value), ..self }
    }

    /// Writes a file in the home folder and returns its path.
    fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        self.machine.file(name, content)
    }

    /// Runs the plugin on this machine.
    fn run(&self) -> Result<Outcome> {
        let options = json!({S3::HTTP_LOG_OPTION: true, "MaxRetries": 0});
        let section = without(section::<S3>(&self.server, &options), &["AccessKey", "SecretKey"]);
        self.machine.run::<S3>(&configuration::<S3>(section), &[SECRET_KEY, TOKEN])
    }

    /// Runs the plugin and checks that it finds the credentials.
    fn works(&self) -> Result<Outcome> {
        let outcome = self.run()?;
        assert_eq!(outcome.errors, [""; 0]);
        assert_eq!(self.server.keys("bucket").len(), 3);
        // The checks and three uploads, none of which was refused.
        assert_eq!(self.server.requests().total, S3::REQUESTS_AT_START + 3);
        Ok(outcome)
    }
}

/// Returns the answer of a credential service, with this lifetime.
fn credentials_json(seconds: u64) -> String {
    let credentials = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2024-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": TOKEN,
        "Expiration": expiration(seconds),
    });
    credentials.to_string()
}

/// Returns the expiry time in the format of AWS.
fn expiration(seconds: u64) -> String {
    let time = DateTime::from(SystemTime::now() + Duration::from_secs(seconds));
    time.fmt(Format::DateTime).unwrap_or_default()
}

const HOUR: u64 = 3600;

#[test]
fn credentials_come_from_environment_variables() -> Result<()> {
    let machine =
        Machine::new(None)?.set("AWS_ACCESS_KEY_ID", ACCESS_KEY).set("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    machine.works()?;
    let machine = Machine::new(Some(TOKEN))?
        .set("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .set("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .set("AWS_SESSION_TOKEN", TOKEN);
    machine.works()?;
    Ok(())
}

#[test]
fn unencrypted_endpoint_needs_no_authorities() -> Result<()> {
    let machine =
        Machine::new(None)?.set("AWS_ACCESS_KEY_ID", ACCESS_KEY).set("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let none = machine.file("no-authorities.pem", "")?;
    machine.set("SSL_CERT_FILE", none).set("SSL_CERT_DIR", "/nonexistent").works()?;
    Ok(())
}

#[test]
fn credentials_come_from_the_shared_files() -> Result<()> {
    let good = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    let bad = "aws_access_key_id = other\naws_secret_access_key = other\n";

    let machine = Machine::new(None)?;
    machine.file(".aws/credentials", &format!("[default]\n{good}[hospital]\n{bad}"))?;
    machine.works()?;

    let machine = Machine::new(None)?.set("AWS_PROFILE", "hospital");
    machine.file(".aws/credentials", &format!("[default]\n{bad}[hospital]\n{good}"))?;
    machine.works()?;

    let machine = Machine::new(Some(TOKEN))?.set("AWS_PROFILE", "hospital");
    machine.file(".aws/config", &format!("[profile hospital]\n{good}aws_session_token = {TOKEN}\n"))?;
    machine.works()?;

    let machine = Machine::new(None)?;
    let path = machine.file("elsewhere", &format!("[default]\n{good}"))?;
    machine.set("AWS_SHARED_CREDENTIALS_FILE", path).works()?;
    Ok(())
}

#[test]
fn credentials_come_from_a_credential_process() -> Result<()> {
    let machine = Machine::new(Some(TOKEN))?.set("PATH", "/usr/bin:/bin");
    let answer = json!({
        "Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "SessionToken": TOKEN,
        "Expiration": expiration(HOUR),
    });
    let answer = machine.file("answer.json", &answer.to_string())?;
    machine.file(".aws/config", &format!("[default]\ncredential_process = cat {}\n", answer.display()))?;
    machine.works()?;
    Ok(())
}

#[test]
fn credentials_come_from_single_sign_on() -> Result<()> {
    let portal = SmallServer::start(|request| {
        if !request.has("x-amz-sso_bearer_token", "sso-token") {
            return (401, String::new());
        }
        let expiry = SystemTime::now() + Duration::from_secs(HOUR);
        let expiration = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let credentials = json!({
            "accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY, "sessionToken": TOKEN,
            "expiration": u64::try_from(expiration).unwrap_or_default(),
        });
        (200, json!({"roleCredentials": credentials}).to_string())
    })?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_ENDPOINT_URL_SSO", portal.url(""));
    machine.file(
        ".aws/config",
        "[default]\nsso_session = hospital\nsso_account_id = 111122223333\nsso_role_name = role\n\
         [sso-session hospital]\nsso_region = eu-west-1\nsso_start_url = https://example.test/start\n",
    )?;
    // The cache of `aws sso login`. The name is the SHA-1 of the session's name.
    let token = json!({"accessToken": "sso-token", "expiresAt": expiration(HOUR)});
    machine.file(".aws/sso/cache/2b2d005e88ce14a4112785bb266b2c0c16be7eb4.json", &token.to_string())?;
    machine.works()?;
    let requests = portal.requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    let target = &requests[0].target;
    assert!(target.starts_with("GET /federation/credentials?"), "{target}");
    assert!(target.contains("account_id=111122223333"), "{target}");
    Ok(())
}

/// Starts a service that issues credentials to containers with the right token.
fn container_service(seconds: u64) -> Result<SmallServer> {
    SmallServer::start(move |request| match request.target.as_str() {
        "GET /role" if request.has("authorization", "Bearer pod-token") => (200, credentials_json(seconds)),
        _ => (403, String::new()),
    })
}

#[test]
fn credentials_come_from_a_container_service() -> Result<()> {
    let service = container_service(HOUR)?;
    let machine = Machine::new(Some(TOKEN))?
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer pod-token");
    machine.works()?;
    assert_eq!(service.requests().len(), 1, "valid credentials are cached");

    // EKS Pod Identity provides a file with a token, which it replaces regularly.
    let service = container_service(HOUR)?;
    let machine = Machine::new(Some(TOKEN))?;
    let file = machine.file("token", "Bearer pod-token")?;
    let machine = machine
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file);
    machine.works()?;
    Ok(())
}

#[test]
fn expiring_credentials_are_renewed() -> Result<()> {
    // Less than the margin of the renewal, so that each request renews them.
    let service = container_service(60)?;
    let machine = Machine::new(Some(TOKEN))?
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer pod-token");
    machine.works()?;
    assert_eq!(service.requests().len(), 6, "one for each request to the bucket");
    Ok(())
}

#[test]
fn valid_credentials_survive_a_failed_renewal() -> Result<()> {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let service =
        SmallServer::start(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (200, credentials_json(60)),
            _ => (400, String::new()),
        })?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"));
    let outcome = machine.works()?;
    let about_renewal = outcome.warnings.iter().filter(|line| line.contains("renew"));
    assert_eq!(about_renewal.count(), 5, "{:#?}", outcome.warnings);
    Ok(())
}

/// Runs `change` while the server holds the first request back.
fn during_the_check(server: &BucketServer, change: impl FnOnce() -> Result<()> + Send + 'static) {
    let hold = server.hold(Operation::GetObject);
    thread::spawn(move || {
        assert!(hold.wait_until(1, Duration::from_secs(60)));
        change()?;
        hold.release();
        anyhow::Ok(())
    });
}

#[test]
fn replaced_file_is_read_again() -> Result<()> {
    let machine = Machine::new(None)?;
    let bad = "[default]\naws_access_key_id = AKIAFORMER\naws_secret_access_key = former\n";
    let file = machine.file(".aws/credentials", bad)?;
    let good =
        format!("[default]\naws_access_key_id = {ACCESS_KEY} \naws_secret_access_key =  {SECRET_KEY}\r\n");
    during_the_check(&machine.server, move || Ok(std::fs::write(file, good)?));
    let outcome = machine.run()?;
    assert_eq!(outcome.errors, [""; 0]);
    // The first check was refused once.
    assert_eq!(machine.server.requests().total, 1 + S3::REQUESTS_AT_START + 3);
    Ok(())
}

#[test]
fn refused_credentials_are_loaded_again_once() -> Result<()> {
    for code in ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"] {
        for (times, loads, uploads) in [(1, 2, 5), (usize::MAX, 2, 5)] {
            let service = container_service(HOUR)?;
            let machine = Machine::new(Some(TOKEN))?
                .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
                .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer pod-token");
            let refusal = FaultRule::new(Fault::status(400, code)).on(Operation::PutObject).times(times);
            machine.server.faults().push(refusal);
            let errors = machine.run()?.errors;
            assert_eq!(errors.len(), if times == 1 { 0 } else { 4 }, "{errors:#?}");
            assert!(errors.iter().all(|line| line.contains(code)), "{errors:#?}");
            assert_eq!(service.requests().len(), loads, "{code}");
            assert_eq!(machine.server.requests().of(Operation::PutObject), uploads, "{code}");
        }
    }
    Ok(())
}

#[test]
fn control_characters_in_credentials_are_reported() -> Result<()> {
    let machine = Machine::new(None)?
        .set("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .set("AWS_SECRET_ACCESS_KEY", format!("{SECRET_KEY}\r\n{SECRET_KEY}"));
    let errors = machine.run()?.errors;
    assert!(errors.len() == 1 && errors[0].contains("control characters"), "{errors:#?}");
    assert_eq!(machine.server.requests().total, 0);
    Ok(())
}

/// Answers as version 2 of EC2's metadata service.
fn metadata_service(request: &Request) -> (u16, String) {
    const SESSION: &str = "metadata-session";
    if request.target == "PUT /latest/api/token" {
        let is_valid =
            request.headers.iter().any(|header| header.starts_with("x-aws-ec2-metadata-token-ttl-seconds: "));
        return if is_valid { (200, SESSION.to_owned()) } else { (400, String::new()) };
    }
    if !request.has("x-aws-ec2-metadata-token", SESSION) {
        return (401, String::new());
    }
    match request.target.as_str() {
        "GET /latest/meta-data/iam/security-credentials/" => (200, "hospital-role".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/hospital-role" => (200, credentials_json(HOUR)),
        _ => (404, String::new()),
    }
}

#[test]
fn credentials_come_from_the_metadata_service() -> Result<()> {
    let service = SmallServer::start(metadata_service)?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url(""));
    machine.works()?;
    assert!(service.requests().iter().any(|request| request.target == "PUT /latest/api/token"));
    Ok(())
}

#[test]
fn credentials_come_from_a_web_identity() -> Result<()> {
    let service = SmallServer::start(|request| {
        let is_valid = request.body.contains("Action=AssumeRoleWithWebIdentity")
            && request.body.contains("WebIdentityToken=identity-token")
            && request.body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fhospital");
        if !is_valid {
            return (400, String::new());
        }
        let expiration = expiration(HOUR);
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser>\
             <Arn>arn:aws:sts::111122223333:assumed-role/hospital/s</Arn><AssumedRoleId>b:s</AssumedRoleId>\
             </AssumedRoleUser></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>1</RequestId>\
             </ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        );
        (200, answer)
    })?;
    let machine = Machine::new(Some(TOKEN))?;
    let file = machine.file("identity", "identity-token")?;
    let machine = machine
        .set("AWS_WEB_IDENTITY_TOKEN_FILE", file)
        .set("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/hospital")
        .set("AWS_ENDPOINT_URL_STS", service.url(""));
    machine.works()?;
    assert_eq!(service.requests().len(), 1);
    Ok(())
}

#[test]
fn absurd_lifetimes_are_capped() -> Result<()> {
    let service = SmallServer::start(|request| {
        let (status, body) = metadata_service(request);
        Answer(status, vec![(METADATA_LIFETIME, u64::MAX.to_string())], body)
    })?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url(""));
    machine.works()?;

    let answer = credentials_json(HOUR).replace(&expiration(HOUR)[..4], "9999");
    assert!(answer.contains("\"Expiration\":\"9999-"), "{answer}");
    let service = SmallServer::start(move |_| (200, answer.clone()))?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"));
    machine.works()?;
    Ok(())
}

#[test]
fn metadata_services_are_not_asked_through_a_proxy() -> Result<()> {
    let services = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/role"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23:1/role"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://[fd00:ec2::23]:1/role"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254:1"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://metadata.test:1"),
    ];
    let run = |(variable, address): (&'static str, &'static str)| {
        // A proxy that would give itself away by issuing credentials.
        let proxy = SmallServer::start(|request| match request.target.rsplit('/').next() {
            Some("role") => (200, credentials_json(HOUR)),
            _ => (200, "hospital-role".to_owned()),
        })?;
        let machine = Machine::new(Some(TOKEN))?.set("HTTP_PROXY", proxy.url("")).set(variable, address);
        assert!(!machine.run()?.errors.is_empty(), "{address}");
        assert!(proxy.requests().is_empty(), "{address}: {:#?}", proxy.requests());
        anyhow::Ok(())
    };
    // Each takes as long as the SDK waits for a service that does not answer.
    thread::scope(|scope| {
        let threads = services.map(|service| scope.spawn(move || run(service)));
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    // The proxy is used for other services.
    let proxy = SmallServer::start(|_| (400, String::new()))?;
    let machine = Machine::new(Some(TOKEN))?;
    let file = machine.file("identity", "identity-token")?;
    machine
        .set("HTTP_PROXY", proxy.url(""))
        .set("AWS_WEB_IDENTITY_TOKEN_FILE", file)
        .set("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/hospital")
        .set("AWS_ENDPOINT_URL_STS", "http://sts.test")
        .run()?;
    assert!(!proxy.requests().is_empty());
    Ok(())
}

#[test]
fn missing_credentials_prevent_the_start() -> Result<()> {
    let missing_file = TempDir::new()?.path().join("missing");
    let no_metadata = || Ok::<_, anyhow::Error>(Machine::new(None)?.set("AWS_EC2_METADATA_DISABLED", "true"));
    let machines = [no_metadata()?, no_metadata()?.set("AWS_SHARED_CREDENTIALS_FILE", missing_file)];
    for machine in machines {
        let errors = machine.run()?.errors;
        let [line] = &errors[..] else { anyhow::bail!("{errors:#?}") };
        for fragment in ["s3://bucket", "AccessKey", "SecretKey"] {
            assert!(line.contains(fragment), "{line}");
        }
        assert_eq!(machine.server.requests().total, 0);
    }
    Ok(())
}

#[test]
fn refusal_of_a_credential_service_is_reported() -> Result<()> {
    // `run` checks that the secret in the answer is not in the log.
    let service = SmallServer::start(|_| (400, format!("{{\"Message\": \"{SECRET_KEY}\"}}")))?;
    let machine = Machine::new(None)?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"));
    let outcome = machine.run()?;
    // The service may recover. So Orthanc starts with a warning, and each of the three uploads fails.
    assert_eq!(outcome.errors.len(), 3, "{:#?}", outcome.errors);
    let lines = outcome.errors.iter().chain(&outcome.warnings);
    let about_credentials =
        lines.filter(|line| line.contains("s3://bucket") && line.contains("no credentials"));
    assert_eq!(about_credentials.count(), 4, "{:#?} {:#?}", outcome.errors, outcome.warnings);
    Ok(())
}
