//! Tokens of the user of the Azure CLI. `object_store` asks for tokens for storage only, and blocks its thread.

use std::fmt;
use std::io;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::azure::AzureCredential;
use object_store::{CredentialProvider, Result};
use serde_json::Value;
use tokio::sync::Mutex;

/// The CLI renews a token that expires within this time.
const MARGIN: Duration = Duration::from_secs(300);
/// How long a token is used whose expiry the CLI does not report.
const SHORT: Duration = Duration::from_secs(240);
/// How long the CLI may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether it has ended.
const POLL: Duration = Duration::from_millis(50);
/// No token is used for longer.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Runs `az` for a token, and keeps it until it expires.
pub(crate) struct AzureCli {
    /// The service that the token is for.
    resource: String,
    token: Mutex<Option<Token>>,
}

struct Token {
    credential: Arc<AzureCredential>,
    until: SystemTime,
}

impl AzureCli {
    pub(crate) fn new(resource: String) -> Self {
        Self { resource, token: Mutex::default() }
    }
}

#[async_trait]
impl CredentialProvider for AzureCli {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> Result<Arc<AzureCredential>> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.until > SystemTime::now()) {
            return Ok(Arc::clone(&token.credential));
        }
        let resource = self.resource.clone();
        let output = tokio::task::spawn_blocking(move || ask(&resource)).await;
        let output = output.map_err(|source| object_store::Error::JoinError { source })?.map_err(unusable)?;
        let new = parse(&output).ok_or_else(|| unusable(io::ErrorKind::InvalidData.into()))?;
        let credential = Arc::clone(&new.credential);
        *token = Some(new);
        Ok(credential)
    }
}

impl fmt::Debug for AzureCli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCli").field("resource", &self.resource).finish_non_exhaustive()
    }
}

fn ask(resource: &str) -> io::Result<Output> {
    // On Windows, `az` is a script.
    let mut command = if cfg!(windows) { Command::new("cmd") } else { Command::new("az") };
    if cfg!(windows) {
        command.args(["/C", "az"]);
    }
    command.args(["account", "get-access-token", "--output", "json", "--resource", resource]);
    run(&mut command, PATIENCE)
}

/// Runs a program that prints little, and kills it after `limit`: whoever waited for it has gone then, and the next one
/// runs it again.
fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(POLL);
    }
    child.wait_with_output()
}

fn parse(output: &Output) -> Option<Token> {
    let answer: Value = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())?;
    let credential = Arc::new(AzureCredential::BearerToken(answer["accessToken"].as_str()?.to_owned()));
    let now = SystemTime::now();
    let expiry =
        answer["expires_on"].as_u64().and_then(|time| UNIX_EPOCH.checked_add(Duration::from_secs(time)));
    let life = expiry.map_or(SHORT, |expiry| {
        expiry.duration_since(now).unwrap_or_default().saturating_sub(MARGIN).min(LONG)
    });
    Some(Token { credential, until: now + life })
}

/// The error, without the program's output.
fn unusable(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "az", source: Box::new(error) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn program_that_hangs_is_killed() {
        let shell = |script: &str| -> Command {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let output = run(&mut shell("echo token"), PATIENCE).unwrap();
        assert_eq!((output.status.success(), &output.stdout[..]), (true, &b"token\n"[..]));
        assert!(!run(&mut shell("exit 3"), PATIENCE).unwrap().status.success());
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let hangs = format!("echo $$ > {}; exec sleep 600", pid.display());
        let error = run(&mut shell(&hangs), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid = std::fs::read_to_string(pid).unwrap();
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
    }
}
