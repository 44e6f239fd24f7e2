//! Each place where an identity may come from, and none. Azurite has a look at the tokens, so it runs over TLS.

#[path = "common/cloud.rs"]
mod cloud;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use cloud::Azure;
use conformance::{Machine, Outcome, Request, SmallServer, configuration};
use fake_cloud::AzuriteOverTls;
use serde_json::json;
use tempfile::TempDir;

const SECRET: &str = "client-secret-of-orthanc";
const ASSERTION: &str = "federated-token-of-the-pod";
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn child() -> Result<()> {
    conformance::child::<Azure>()
}

/// A server that takes tokens, and the certificate to trust.
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

    /// Runs the plugin on a machine, with an account and no key. It makes its container.
    fn run(&self, machine: &Machine) -> Result<Outcome> {
        let mut configuration = configuration::<Azure>(json!({
            "AccountName": self.azurite.account(),
            "BlobEndpoint": self.azurite.blob_endpoint(),
            "ContainerName": "orthanc",
            "MaxRetries": 0,
            "EnableHttpLogs": true,
        }));
        configuration["HttpsCACertificates"] = json!(self.folder.path().join("authority.pem"));
        machine.run_configuration::<Azure>(&configuration, &[SECRET, ASSERTION, "eyJ", "Bearer "])
    }

    /// Runs the plugin, which must find an identity.
    fn works(&self, machine: &Machine) -> Result<()> {
        let outcome = self.run(machine)?;
        assert_eq!(outcome.errors, [""; 0]);
        let made =
            "Azure Blob Storage: azure://orthanc was missing and has been created: check that it is private";
        assert!(outcome.warnings.iter().any(|line| line == made), "{:#?}", outcome.warnings);
        Ok(())
    }
}

/// The answer of Entra ID with a token.
fn token(life: Duration) -> String {
    let seconds = life.as_secs();
    json!({"token_type": "Bearer", "expires_in": seconds, "access_token": AzuriteOverTls::token(life)})
        .to_string()
}

/// Entra ID, which gives tokens for a form with this field.
fn entra(field: &'static str) -> Result<SmallServer> {
    SmallServer::start(move |request: &Request| {
        let form = &request.body;
        let right = request.target == "POST /hospital/oauth2/v2.0/token"
            && form.contains(field)
            && form.contains("client_id=orthanc")
            && form.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
        if right { (200, token(HOUR)) } else { (401, refusal()) }
    })
}

fn refusal() -> String {
    json!({"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
        .to_string()
}

/// A machine with a tenant and a client.
fn machine(entra: &SmallServer) -> Result<Machine> {
    let machine = Machine::new()?.set("AZURE_TENANT_ID", "hospital").set("AZURE_CLIENT_ID", "orthanc");
    // With the slash at its end that Azure's own tools write.
    Ok(machine.set("AZURE_AUTHORITY_HOST", entra.url("/")))
}

#[test]
fn a_service_principal_is_found_in_the_environment() -> Result<()> {
    let (server, entra) = (Server::start()?, entra("client_secret=client-secret-of-orthanc")?);
    server.works(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    assert_eq!(entra.requests().len(), 1, "the token is kept while it is valid");
    Ok(())
}

#[test]
fn a_workload_identity_is_found_in_the_environment() -> Result<()> {
    let (server, entra) = (Server::start()?, entra("client_assertion=federated-token-of-the-pod")?);
    let machine = machine(&entra)?;
    let file = machine.file("token", ASSERTION)?;
    server.works(&machine.set("AZURE_FEDERATED_TOKEN_FILE", file))
}

#[test]
fn a_managed_identity_is_asked_of_the_service_that_the_environment_names() -> Result<()> {
    let server = Server::start()?;
    let service = SmallServer::start(|request: &Request| {
        let right = request.target.starts_with("GET /msi/token?")
            && request.target.contains("resource=https%3A%2F%2Fstorage.azure.com")
            && request.target.contains("client_id=chosen")
            && request.has("metadata", "true")
            && request.has("x-identity-header", "identity-header");
        let expires = SystemTime::now() + HOUR;
        let expires =
            expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let answer = json!({"access_token": AzuriteOverTls::token(HOUR), "expires_on": expires});
        if right { (200, answer.to_string()) } else { (400, String::new()) }
    })?;
    let machine = Machine::new()?
        .set("IDENTITY_ENDPOINT", service.url("/msi/token"))
        .set("IDENTITY_HEADER", "identity-header")
        .set("AZURE_CLIENT_ID", "chosen");
    server.works(&machine)?;
    assert_eq!(service.requests().len(), 1);
    Ok(())
}

/// A program `az` in a folder of the machine, which prints this.
fn azure_cli(machine: &Machine, prints: &str, status: u8) -> Result<std::path::PathBuf> {
    let answer = machine.file("answer.json", prints)?;
    let script =
        format!("#!/bin/sh\necho \"$@\" > \"$0.arguments\"\ncat {}\nexit {status}\n", answer.display());
    let program = machine.file("bin/az", &script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

fn search_path(program: &Path) -> String {
    format!("{}:/usr/bin:/bin", program.parent().unwrap_or(program).display())
}

#[test]
fn the_user_of_the_azure_cli_is_asked_where_there_is_no_managed_identity() -> Result<()> {
    let (server, machine) = (Server::start()?, Machine::new()?);
    let prints = json!({
        "accessToken": AzuriteOverTls::token(HOUR), "expiresOn": "2099-01-01 00:00:00.000000", "tokenType": "Bearer",
    });
    let program = azure_cli(&machine, &prints.to_string(), 0)?;
    // Nobody listens at the address of the managed identity.
    let machine = machine.set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/").set("PATH", search_path(&program));
    server.works(&machine)?;
    let arguments = fs::read_to_string(program.with_extension("arguments"))?;
    assert!(arguments.starts_with("account get-access-token"), "{arguments}");
    Ok(())
}

#[test]
fn without_any_identity_the_start_is_refused_with_one_clear_line() -> Result<()> {
    let (server, machine) = (Server::start()?, Machine::new()?);
    let program = azure_cli(&machine, "", 1)?;
    let machine = machine.set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/").set("PATH", search_path(&program));
    let line = "Azure Blob Storage: cannot check azure://orthanc: no credentials: the managed identity service cannot be \
                used: cannot connect: Connection refused (os error 111): give this machine an identity that may use the \
                container; the Azure CLI gave none: run az login as the user that Orthanc runs as";
    assert_eq!(server.run(&machine)?.errors, [line]);
    Ok(())
}

#[test]
fn a_refusal_of_entra_id_is_one_clear_line() -> Result<()> {
    let (server, entra) = (Server::start()?, entra("client_secret=another")?);
    let outcome = server.run(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    let line = "Azure Blob Storage: cannot check azure://orthanc: no credentials: Entra ID refused: check AZURE_TENANT_ID, \
                AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (HTTP 401 invalid_client: AADSTS7000215: Invalid client secret \
                provided.)";
    assert_eq!(outcome.errors, [line]);
    Ok(())
}

#[test]
fn a_token_that_azure_does_not_take_is_one_clear_line() -> Result<()> {
    let server = Server::start()?;
    let entra = SmallServer::start(|_| (200, token(Duration::ZERO)))?;
    let outcome = server.run(&machine(&entra)?.set("AZURE_CLIENT_SECRET", SECRET))?;
    let [line] = outcome.errors.as_slice() else { panic!("{:#?}", outcome.errors) };
    let expected = "Azure Blob Storage: cannot check azure://orthanc: access denied: check the credentials and their \
                    permissions on the bucket (HTTP 40";
    assert!(line.starts_with(expected), "{line}");
    Ok(())
}
