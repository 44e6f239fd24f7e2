//! The default credential chain of AWS: each place where credentials may come from, and none.
//!
//! Most of these places are named by environment variables: so each case has a `Machine` of its own.

#[path = "common/cloud.rs"]
mod cloud;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use aws_smithy_types::date_time::{DateTime, Format};
use cloud::S3;
use conformance::{Outcome, Request, SmallServer, section, without};
use fake_cloud::{BucketServer, Options};
use serde_json::json;
use tempfile::TempDir;

const ACCESS_KEY: &str = "AKIACHAINEXAMPLE";
const SECRET_KEY: &str = "chain/secret+key/0123456789";
const TOKEN: &str = "chain-session-token==";

#[test]
fn child() -> Result<()> {
    conformance::child::<S3>()
}

/// A machine, and a bucket that can be used with its credentials and no others.
struct Machine {
    machine: conformance::Machine,
    server: BucketServer,
}

impl Machine {
    /// One where no credentials are to be found.
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

    /// The path of a file in the home folder with this content.
    fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        self.machine.file(name, content)
    }

    /// Runs the plugin here.
    fn run(&self) -> Result<Outcome> {
        let section = without(section::<S3>(&self.server, &json!({})), &["AccessKey", "SecretKey"]);
        self.machine.run::<S3>(section, &[SECRET_KEY, TOKEN])
    }

    /// Runs the plugin, which must find the credentials.
    fn works(&self) -> Result<Outcome> {
        let outcome = self.run()?;
        assert_eq!(outcome.errors, [""; 0]);
        assert_eq!(self.server.keys("bucket").len(), 3);
        // The check and three creates: none was refused first.
        assert_eq!(self.server.requests().total, 4);
        Ok(outcome)
    }
}

/// The JSON in which containers and machines get credentials that last so long.
fn credentials_json(seconds: u64) -> String {
    let credentials = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2024-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": TOKEN, "Expiration": expiration(seconds),
    });
    credentials.to_string()
}

/// The time in so many seconds as AWS writes it.
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
fn credentials_come_from_the_shared_files_with_profiles() -> Result<()> {
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
fn credentials_come_from_a_program_named_in_the_profile() -> Result<()> {
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
        let expiration = SystemTime::now() + Duration::from_secs(HOUR);
        let expiration = expiration.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
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
    // What `aws sso login` leaves; the name is the SHA-1 of the session's.
    let token = json!({"accessToken": "sso-token", "expiresAt": expiration(HOUR)});
    machine.file(".aws/sso/cache/2b2d005e88ce14a4112785bb266b2c0c16be7eb4.json", &token.to_string())?;
    machine.works()?;
    let requests = portal.requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    let target = &requests[0].target;
    assert!(
        target.starts_with("GET /federation/credentials?") && target.contains("account_id=111122223333"),
        "{target}"
    );
    Ok(())
}

/// A service that hands out credentials to containers which show their token.
fn container_service(seconds: u64) -> Result<SmallServer> {
    SmallServer::start(move |request| match request.target.as_str() {
        "GET /role" if request.has("authorization", "Bearer pod-token") => (200, credentials_json(seconds)),
        _ => (403, String::new()),
    })
}

#[test]
fn credentials_come_from_the_containers_endpoint() -> Result<()> {
    let service = container_service(HOUR)?;
    let machine = Machine::new(Some(TOKEN))?
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer pod-token");
    machine.works()?;
    assert_eq!(service.requests().len(), 1, "they are kept while they are valid");

    // As EKS Pod Identity does: a file with a token, which is replaced now and then.
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
fn credentials_that_expire_soon_are_renewed() -> Result<()> {
    // Less than the margin in which they are renewed: so each request asks again.
    let service = container_service(60)?;
    let machine = Machine::new(Some(TOKEN))?
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer pod-token");
    machine.works()?;
    assert_eq!(service.requests().len(), 4);
    Ok(())
}

#[test]
fn credentials_that_cannot_be_renewed_are_used_until_they_expire() -> Result<()> {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let service =
        SmallServer::start(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (200, credentials_json(60)),
            _ => (400, String::new()),
        })?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"));
    let outcome = machine.works()?;
    let warning = "AWS S3 Storage: cannot renew the AWS credentials, which are still valid: ";
    assert_eq!(
        outcome.warnings.iter().filter(|line| line.starts_with(warning)).count(),
        3,
        "{:#?}",
        outcome.warnings
    );
    Ok(())
}

/// The metadata service of EC2, version 2 only.
fn metadata_service(request: &Request) -> (u16, String) {
    const SESSION: &str = "metadata-session";
    if request.target == "PUT /latest/api/token" {
        let asked =
            request.headers.iter().any(|header| header.starts_with("x-aws-ec2-metadata-token-ttl-seconds: "));
        return if asked { (200, SESSION.to_owned()) } else { (400, String::new()) };
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
fn credentials_come_from_the_instance_metadata_service_version_2() -> Result<()> {
    let service = SmallServer::start(metadata_service)?;
    let machine = Machine::new(Some(TOKEN))?.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url(""));
    machine.works()?;
    assert!(service.requests().iter().any(|request| request.target == "PUT /latest/api/token"));
    Ok(())
}

#[test]
fn credentials_come_from_a_web_identity() -> Result<()> {
    let service = SmallServer::start(|request| {
        let asked = request.body.contains("Action=AssumeRoleWithWebIdentity")
            && request.body.contains("WebIdentityToken=identity-token")
            && request.body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fhospital");
        if !asked {
            return (400, String::new());
        }
        let expiration = expiration(HOUR);
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::111122223333:assumed-role/hospital/s</Arn><AssumedRoleId>b:s</AssumedRoleId>\
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
fn without_any_credentials_the_start_is_refused_with_one_clear_line() -> Result<()> {
    let line = "AWS S3 Storage: cannot check s3://bucket: no credentials: give AccessKey and SecretKey, or credentials in \
                the environment, the shared AWS files or the machine's role";
    let nowhere = TempDir::new()?.path().join("missing");
    let no_metadata = || Ok::<_, anyhow::Error>(Machine::new(None)?.set("AWS_EC2_METADATA_DISABLED", "true"));
    let machines = [
        no_metadata()?,
        no_metadata()?.set("AWS_SHARED_CREDENTIALS_FILE", nowhere),
        // Nobody listens there, as on a machine that is none of Amazon's.
        Machine::new(None)?.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9"),
    ];
    for machine in machines {
        assert_eq!(machine.run()?.errors, [line]);
        assert_eq!(machine.server.requests().total, 0);
    }
    Ok(())
}

#[test]
fn a_token_service_that_refuses_is_one_clear_line_without_its_answer() -> Result<()> {
    let service = SmallServer::start(|_| (400, format!("{{\"Message\": \"{SECRET_KEY}\"}}")))?;
    let machine = Machine::new(None)?.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/role"));
    let outcome = machine.run()?;
    let cause = "no credentials: the service that gives them refused, or could not be reached";
    let lines: Vec<_> =
        outcome.errors.iter().chain(&outcome.warnings).filter(|line| line.contains(cause)).collect();
    // It may be away for a moment: so Orthanc starts, and each of the three creates fails.
    assert_eq!(lines.len(), 4, "{:#?} {:#?}", outcome.errors, outcome.warnings);
    Ok(())
}
