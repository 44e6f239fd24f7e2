//! The sources of an identity. Azurite accepts tokens only over TLS.

#[path = "common/cloud.rs"]
mod cloud;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, bail, ensure};
use cloud::Azure;
use conformance::{Answer, DICOM, Machine, Outcome, Request, SmallServer, UUID, configuration, load};
use fake_cloud::AzuriteOverTls;
use fake_orthanc::LogLevel;
use serde_json::json;
use tempfile::TempDir;

const SECRET: &str = "client-secret-of-orthanc";
const ASSERTION: &str = "federated-token-of-the-pod";
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn child() -> Result<()> {
    conformance::child::<Azure>()
}

/// A server that accepts tokens, and the certificate of its authority.
struct Server {
    azurite: AzuriteOverTls,
    folder: TempDir,
}

impl Server {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let azurite = AzuriteOverTls::start(folder.path())?;
        fs::write(folder.path().join("authority.pem"), azurite.authority())?;
        Ok(Self { azurite, folder })
    }

    /// Runs the plugin with an account and no key. The plugin creates its container.
    fn run(&self, machine: &Machine) -> Result<Outcome> {
        let mut configuration = configuration::<Azure>(json!({
            "AccountName": self.azurite.account(),
            "BlobEndpoint": self.azurite.blob_endpoint(),
            "ContainerName": "orthanc",
            "MaxRetries": 0,
            "EnableHttpLogs": true,
        }));
        configuration["HttpsCACertificates"] = json!(self.folder.path().join("authority.pem"));
        machine.run::<Azure>(&configuration, &[SECRET, ASSERTION, "eyJ", "Bearer "])
    }

    /// Runs the plugin and checks that it finds an identity.
    fn works(&self, machine: &Machine) -> Result<()> {
        let outcome = self.run(machine)?;
        assert_eq!(outcome.errors, [""; 0]);
        let is_about_creation = |line: &String| line.contains("azure://orthanc") && line.contains("created");
        assert!(outcome.warnings.iter().any(is_about_creation), "{:#?}", outcome.warnings);
        Ok(())
    }
}

/// Returns Entra ID's answer with a token.
fn token(life: Duration) -> String {
    let seconds = life.as_secs();
    json!({"token_type": "Bearer", "expires_in": seconds, "access_token": AzuriteOverTls::token(life)})
        .to_string()
}

/// Starts a fake of Entra ID that issues tokens for a form with this field.
fn entra(field: &'static str) -> Result<SmallServer> {
    SmallServer::start(move |request: &Request| {
        let form = &request.body;
        let is_valid = request.target == "POST /hospital/oauth2/v2.0/token"
            && form.contains(field)
            && form.contains("client_id=orthanc")
            && form.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
        if is_valid { (200, token(HOUR)) } else { (401, refusal()) }
    })
}

fn refusal() -> String {
    json!({"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
        .to_string()
}

/// Returns a machine with a tenant and a client.
fn machine(entra: &SmallServer) -> Result<Machine> {
    let machine = Machine::new()?.set("AZURE_TENANT_ID", "hospital").set("AZURE_CLIENT_ID", "orthanc");
    // Azure's tools write the URL with a slash at the end.
    Ok(machine.set("AZURE_AUTHORITY_HOST", entra.url("/")))
}

#[test]
fn service_principal_is_in_the_environment() -> Result<()> {
    let server = Server::start()?;
    let entra = entra("client_secret=client-secret-of-orthanc")?;
    server.works(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    assert_eq!(entra.requests().len(), 1, "a valid token is cached");
    Ok(())
}

#[test]
fn refused_token_is_replaced_once() -> Result<()> {
    let server = Server::start()?;
    let asked = AtomicUsize::new(0);
    let entra = SmallServer::start(move |_| {
        // Entra ID revokes tokens before they expire.
        let life = if asked.fetch_add(1, Ordering::SeqCst) == 0 { Duration::ZERO } else { HOUR };
        let token = AzuriteOverTls::token(life);
        (200, json!({"token_type": "Bearer", "expires_in": 3600, "access_token": token}).to_string())
    })?;
    server.works(&machine(&entra)?.set("AZURE_CLIENT_SECRET", format!("{SECRET}\n")))?;
    let requests = entra.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].body.contains("client_secret=client-secret-of-orthanc&"), "trimmed");
    Ok(())
}

/// The server's clock is two hours ahead. It refuses requests of another quarter of an hour.
#[test]
fn requests_are_signed_with_the_time_of_the_server() -> Result<()> {
    let server = SmallServer::start(|request| {
        let now = SystemTime::now() + 2 * HOUR;
        let sent = request.headers.iter().find_map(|header| header.strip_prefix("x-ms-date: "));
        let sent =
            sent.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(SystemTime::UNIX_EPOCH);
        let distance = now.duration_since(sent).unwrap_or_else(|error| error.duration());
        let (status, code) = match distance.as_secs() {
            900.. => (403, "AuthenticationFailed"),
            _ if request.target.starts_with("PUT") => (201, ""),
            _ => (404, "BlobNotFound"),
        };
        let headers = vec![
            ("Date", httpdate::fmt_http_date(now)),
            ("ETag", "\"1\"".to_owned()),
            ("x-ms-error-code", code.to_owned()),
            ("x-ms-request-id", "8f2c".to_owned()),
        ];
        Answer(status, headers, format!("<Error><Code>{code}</Code></Error>"))
    })?;
    let endpoint = server.url("/hospital");
    let string = format!("BlobEndpoint={endpoint};AccountName=hospital;AccountKey=aHVudGVyMg==");
    let section = json!({"ConnectionString": string, "ContainerName": "orthanc", "MaxRetries": 0});
    let orthanc = load::<Azure>(configuration::<Azure>(section))??;
    orthanc.create(UUID, DICOM, b"x").map_err(|code| anyhow!("error {code}: {:#?}", orthanc.logs()))?;
    // The first check was refused once.
    assert_eq!(server.requests().len(), 5, "{:#?}", server.requests());
    let warnings = orthanc.logs_at(LogLevel::Warning);
    let about_clock: Vec<_> = warnings.iter().filter(|line| line.contains("clock")).collect();
    assert!(about_clock.len() == 1 && about_clock[0].contains("is 2 h 0 min behind"), "{warnings:#?}");
    Ok(())
}

#[test]
fn workload_identity_is_in_the_environment() -> Result<()> {
    let server = Server::start()?;
    let entra = entra("client_assertion=federated-token-of-the-pod")?;
    let machine = machine(&entra)?;
    let file = machine.file("token", ASSERTION)?;
    server.works(&machine.set("AZURE_FEDERATED_TOKEN_FILE", file))
}

#[test]
fn absurd_lifetimes_are_capped() -> Result<()> {
    let server = Server::start()?;
    let answer = |life: &serde_json::Value| {
        let answer = json!({"access_token": AzuriteOverTls::token(HOUR), "token_type": "Bearer"});
        conformance::with(answer, life).to_string()
    };
    let entra = SmallServer::start(move |_| (200, answer(&json!({"expires_in": u64::MAX}))))?;
    server.works(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;

    let server = Server::start()?;
    let service = SmallServer::start(move |_| (200, answer(&json!({"expires_on": u64::MAX.to_string()}))))?;
    server.works(&Machine::new()?.set("IDENTITY_ENDPOINT", service.url("/msi/token")))
}

#[test]
fn managed_identity_is_not_asked_for_through_a_proxy() -> Result<()> {
    let server = Server::start()?;
    for address in ["http://169.254.169.254:1/msi", "http://localhost:1/msi", "http://identity.test:1/msi"] {
        // A proxy that would give itself away by issuing a token.
        let proxy = SmallServer::start(|_| {
            let answer = json!({"access_token": AzuriteOverTls::token(HOUR), "expires_on": "9999999999"});
            (200, answer.to_string())
        })?;
        let machine = Machine::new()?.set("HTTP_PROXY", proxy.url("")).set("IDENTITY_ENDPOINT", address);
        let outcome = server.run(&machine)?;
        // That of the start, or those of three uploads if the service could not be reached.
        let is_expected = |line: &String| line.contains("the managed identity service");
        assert!(
            !outcome.errors.is_empty() && outcome.errors.iter().all(is_expected),
            "{:#?}",
            outcome.errors
        );
        assert!(proxy.requests().is_empty(), "{address}: {:#?}", proxy.requests());
    }
    Ok(())
}

#[test]
fn managed_identity_has_its_service() -> Result<()> {
    let server = Server::start()?;
    let service = SmallServer::start(|request: &Request| {
        let is_valid = request.target.starts_with("GET /msi/token?")
            && request.target.contains("resource=https%3A%2F%2Fstorage.azure.com")
            && request.target.contains("client_id=chosen")
            && request.has("metadata", "true")
            && request.has("x-identity-header", "identity-header");
        let expiry = (SystemTime::now() + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires_on = expiry.as_secs().to_string();
        let answer = json!({"access_token": AzuriteOverTls::token(HOUR), "expires_on": expires_on});
        if is_valid { (200, answer.to_string()) } else { (400, String::new()) }
    })?;
    let machine = Machine::new()?
        .set("IDENTITY_ENDPOINT", service.url("/msi/token"))
        .set("IDENTITY_HEADER", "identity-header")
        .set("AZURE_CLIENT_ID", "chosen");
    server.works(&machine)?;
    assert_eq!(service.requests().len(), 1);
    Ok(())
}

/// Installs a program `az` on the machine that prints `answer`.
fn azure_cli(machine: &Machine, answer: &str, status: u8) -> Result<std::path::PathBuf> {
    let path = machine.file("answer.json", answer)?;
    let script =
        format!("#!/bin/sh\necho \"$@\" > \"$0.arguments\"\ncat {}\nexit {status}\n", path.display());
    let program = machine.file("bin/az", &script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

fn search_path(program: &Path) -> String {
    format!("{}:/usr/bin:/bin", program.parent().unwrap_or(program).display())
}

#[test]
fn azure_cli_is_asked_last() -> Result<()> {
    let server = Server::start()?;
    let machine = Machine::new()?;
    let answer = json!({
        "accessToken": AzuriteOverTls::token(HOUR), "expiresOn": "2099-01-01 00:00:00.000000",
        "tokenType": "Bearer",
    });
    let program = azure_cli(&machine, &answer.to_string(), 0)?;
    // No service listens at the address of the managed identity.
    let machine = machine.set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/").set("PATH", search_path(&program));
    server.works(&machine)?;
    let arguments = fs::read_to_string(program.with_extension("arguments"))?;
    assert!(arguments.starts_with("account get-access-token"), "{arguments}");
    Ok(())
}

/// Checks that there is one error line about the container, which contains all `fragments`.
fn expect_one_error(outcome: &Outcome, fragments: &[&str]) -> Result<()> {
    let [line] = outcome.errors.as_slice() else { bail!("{:#?}", outcome.errors) };
    for fragment in ["azure://orthanc"].iter().chain(fragments) {
        ensure!(line.contains(fragment), "{fragment:?} is not in {line:?}");
    }
    Ok(())
}

#[test]
fn missing_identity_prevents_the_start() -> Result<()> {
    let server = Server::start()?;
    let machine = Machine::new()?;
    let program = azure_cli(&machine, "", 1)?;
    // One that does not answer would prevent the start only on a machine that is known to be elsewhere.
    let service = SmallServer::start(|_| (400, String::new()))?;
    let machine =
        machine.set("IDENTITY_ENDPOINT", service.url("/msi/token")).set("PATH", search_path(&program));
    expect_one_error(&server.run(&machine)?, &["the managed identity service", "az login", "AccountKey"])
}

#[test]
fn silent_identity_service_is_a_warning_in_the_cloud() -> Result<()> {
    let server = Server::start()?;
    // App Service says where its identity service is.
    let machine = Machine::new()?.set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/");
    let outcome = server.run(&machine)?;
    let is_expected = |line: &&String| line.contains("Connection refused") && line.contains("continuing");
    assert_eq!(outcome.warnings.iter().filter(is_expected).count(), 1, "{:#?}", outcome.warnings);
    assert_eq!(outcome.errors.len(), 3, "three uploads: {:#?}", outcome.errors);
    Ok(())
}

#[test]
fn refusal_of_entra_id_is_one_error() -> Result<()> {
    let server = Server::start()?;
    let entra = entra("client_secret=another")?;
    let outcome = server.run(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    expect_one_error(&outcome, &["AZURE_CLIENT_SECRET", "HTTP 401 invalid_client", "AADSTS7000215"])
}

#[test]
fn refused_token_is_one_error() -> Result<()> {
    let server = Server::start()?;
    let entra = SmallServer::start(|_| (200, token(Duration::ZERO)))?;
    let outcome = server.run(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    expect_one_error(&outcome, &["HTTP 40"])
}
