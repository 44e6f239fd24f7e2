//! The client of AWS KMS on moto, which is started for each test. It checks signatures and permissions here.
//!
//! `cargo xtask servers` installs moto and runs these tests. Other runs have none of them.
#![expect(clippy::print_stderr, reason = "the harness shows it if a test fails")]

#[path = "common/cloud.rs"]
mod cloud;

use std::env;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cloud::S3;
use cloud::key_server::kms::Client;
use conformance::{Cloud as _, LoadedPlugin, UUID, configuration, content, section};
use crypto_envelope::{FileKey, KeyServiceError, Wrapped};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

/// Set by `cargo xtask servers`.
const SERVERS_VARIABLE: &str = "ORTHANC_TEST_SERVERS";
/// Python with moto, below cargo's target folder.
const PYTHON: &str = "tools/servers-python/bin/python";
/// Before each script.
const PRELUDE: &str = "
import boto3, json, sys
def client(service, region='us-east-1'):
    return boto3.client(service, region, endpoint_url=sys.argv[1], aws_access_key_id='root', aws_secret_access_key='root')
kms = client('kms')
context = {'orthanc-object-storage': 'A2'}
";

fn main() {
    let arguments = Arguments::from_args();
    let tests: [(&str, Test); 5] = [
        ("signatures_and_permissions_are_right", signatures_and_permissions_are_right),
        ("rotated_key_unwraps", rotated_key_unwraps),
        ("alias_of_another_key_unwraps", alias_of_another_key_unwraps),
        ("tools_of_aws_unwrap", tools_of_aws_unwrap),
        ("whole_plugin_stores_and_reads", whole_plugin_stores_and_reads),
    ];
    let is_run = env::var_os(SERVERS_VARIABLE).is_some();
    let trial = |(name, test): (&str, Test)| {
        Trial::test(name, move || {
            let outcome = Moto::start().and_then(|moto| test(&moto));
            outcome.map_err(|error| Failed::from(format!("{error:?}")))
        })
    };
    let trials = tests.into_iter().filter(|_| is_run).map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

type Test = fn(&Moto) -> Result<()>;

/// A running moto. Killed when dropped.
struct Moto {
    process: Child,
    python: PathBuf,
    url: String,
}

impl Moto {
    fn start() -> Result<Self> {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let mut folders = target.into_iter().chain([workspace]);
        let python = folders.find_map(|folder| Some(folder.join(PYTHON)).filter(|python| python.exists()));
        let python = python.context("moto is not installed: run `cargo xtask servers`")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        // Ends with this process.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&python);
        command.args(["-m", "moto.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let moto = Self { process, python, url: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(start.elapsed() < Duration::from_mins(1), "moto does not start");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(moto)
    }

    /// Returns what a script with AWS' own client prints.
    fn script(&self, script: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.python);
        command.args(["-c", &format!("{PRELUDE}{script}"), &self.url]).args(arguments);
        let output = command.env("NO_PROXY", "*").output()?;
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the script failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn section(&self, key: &Value) -> Value {
        json!({"KeyId": key, "Endpoint": self.url})
    }

    fn client(&self, key: &Value) -> Result<Client> {
        Client::open(&self.section(key), &json!({}))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn expect_unwrapped(client: &Client, wrapped: &Wrapped, file_key: &FileKey) -> Result<()> {
    ensure!(client.unwrap(wrapped)?.expose() == file_key.expose(), "another file key");
    Ok(())
}

/// Checks that the service refuses, and returns the message.
fn expect_refused(client: &Client, wrapped: &Wrapped) -> Result<String> {
    match client.unwrap(wrapped) {
        Err(KeyServiceError::Refused(message)) => Ok(message),
        other => anyhow::bail!("{other:?}"),
    }
}

fn signatures_and_permissions_are_right(moto: &Moto) -> Result<()> {
    const SCRIPT: &str = "
import urllib.request
iam = client('iam')
key = kms.create_key()['KeyMetadata']['Arn']
def user(name, *actions):
    iam.create_user(UserName=name)
    statement = {'Effect': 'Allow', 'Action': list(actions), 'Resource': '*'}
    iam.put_user_policy(UserName=name, PolicyName='p',
        PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': [statement]}))
    made = iam.create_access_key(UserName=name)['AccessKey']
    return {'AccessKey': made['AccessKeyId'], 'SecretKey': made['SecretAccessKey']}
users = {'both': user('both', 'kms:Encrypt', 'kms:Decrypt'), 'writer': user('writer', 'kms:Encrypt')}
# From now on, moto checks each request.
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + '/moto-api/reset-auth', b'0', {'Content-Type': 'text/plain'}))
print(json.dumps({'key': key, 'users': users}))
";
    let made = moto.script(SCRIPT, &[])?;
    let client = |user: &Value| {
        Client::open(&conformance::with(moto.section(&made["key"]), user), &json!({"MaxRetries": 0}))
    };
    let both = &made["users"]["both"];
    let file_key = FileKey::random()?;
    let wrapped = client(both)?.wrap(&file_key)?;
    expect_unwrapped(&client(both)?, &wrapped, &file_key)?;
    let message = expect_refused(&client(&made["users"]["writer"])?, &wrapped)?;
    ensure!(message.contains("AccessDenied") && message.contains("kms:Decrypt"), "{message}");
    client(&made["users"]["writer"])?.wrap(&file_key)?;
    let wrong = conformance::with(both.clone(), &json!({"SecretKey": "wrong"}));
    let message = expect_refused(&client(&wrong)?, &wrapped)?;
    ensure!(message.contains("SignatureDoesNotMatch"), "{message}");
    let unknown = json!({"AccessKey": "AKIAUNKNOWNUNKNOWN", "SecretKey": "wrong"});
    let message = expect_refused(&client(&unknown)?, &wrapped)?;
    ensure!(message.contains("InvalidClientTokenId"), "{message}");
    Ok(())
}

fn rotated_key_unwraps(moto: &Moto) -> Result<()> {
    let key = moto.script("print(json.dumps(kms.create_key()['KeyMetadata']['Arn']))", &[])?;
    let file_key = FileKey::random()?;
    let client = moto.client(&key)?;
    let wrapped = client.wrap(&file_key)?;
    let arn = key.as_str().context("no ARN")?;
    let rotate =
        "kms.rotate_key_on_demand(KeyId=sys.argv[2]); kms.enable_key_rotation(KeyId=sys.argv[2]); print('1')";
    moto.script(rotate, &[arn])?;
    expect_unwrapped(&client, &wrapped, &file_key)?;
    let wrapped = client.wrap(&file_key)?;
    expect_unwrapped(&client, &wrapped, &file_key)
}

fn alias_of_another_key_unwraps(moto: &Moto) -> Result<()> {
    const SCRIPT: &str = "
keys = [kms.create_key()['KeyMetadata']['Arn'] for _ in range(2)]
kms.create_alias(AliasName='alias/images', TargetKeyId=keys[0])
print(json.dumps(keys))
";
    let keys = moto.script(SCRIPT, &[])?;
    let alias = moto.client(&json!("alias/images"))?;
    let file_key = FileKey::random()?;
    let before = alias.wrap(&file_key)?;
    let other = keys[1].as_str().context("no ARN")?;
    moto.script("kms.update_alias(AliasName='alias/images', TargetKeyId=sys.argv[2]); print('1')", &[other])?;
    expect_unwrapped(&alias, &before, &file_key)?;
    let after = alias.wrap(&file_key)?;
    expect_unwrapped(&alias, &after, &file_key)?;
    // An ARN stands for one key.
    expect_unwrapped(&moto.client(&keys[0])?, &before, &file_key)?;
    expect_refused(&moto.client(&keys[1])?, &before)?;
    expect_unwrapped(&moto.client(&keys[1])?, &after, &file_key)
}

fn tools_of_aws_unwrap(moto: &Moto) -> Result<()> {
    const WRAP: &str = "
import base64
key = kms.create_key()['KeyMetadata']['Arn']
wrapped = [kms.encrypt(KeyId=key, Plaintext=b'7' * 32, EncryptionContext=c)['CiphertextBlob'] for c in (context, {})]
print(json.dumps({'key': key, 'wrapped': [list(blob) for blob in wrapped]}))
";
    const UNWRAP: &str = "
print(json.dumps(list(kms.decrypt(CiphertextBlob=bytes.fromhex(sys.argv[2]), EncryptionContext=context)['Plaintext'])))
";
    let made = moto.script(WRAP, &[])?;
    let client = moto.client(&made["key"])?;
    let wrapped = |number: usize| -> Result<_> {
        let bytes: Vec<u8> = serde_json::from_value(made["wrapped"][number].clone())?;
        Ok(Wrapped { key: String::new(), wrapped: bytes })
    };
    expect_unwrapped(&client, &wrapped(0)?, &FileKey::new(b"77777777777777777777777777777777"))?;
    let message = expect_refused(&client, &wrapped(1)?)?;
    ensure!(message.contains("InvalidCiphertextException"), "another encryption context: {message}");
    let file_key = FileKey::random()?;
    let wrapped = client.wrap(&file_key)?.wrapped;
    let hex: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
    let unwrapped: Vec<u8> = serde_json::from_value(moto.script(UNWRAP, &[&hex])?)?;
    ensure!(unwrapped == file_key.expose(), "another file key");
    Ok(())
}

fn whole_plugin_stores_and_reads(moto: &Moto) -> Result<()> {
    let alias = "kms.create_alias(AliasName='alias/images', TargetKeyId=kms.create_key()['KeyMetadata']['KeyId']); print('1')";
    moto.script(alias, &[])?;
    let encryption = json!({"MasterKey": {"AwsKms": moto.section(&json!("alias/images"))}});
    let server = S3::server()?;
    let configuration =
        configuration::<S3>(section::<S3>(&server, &json!({"StorageEncryption": encryption})));
    let plugin = LoadedPlugin::<S3>::load(server, configuration.clone())?;
    plugin.create(UUID, &content(200_000))?;
    plugin.check()?;
    let LoadedPlugin { orthanc, server, .. } = plugin;
    drop(orthanc);
    let plugin = LoadedPlugin::<S3>::load(server, configuration)?;
    ensure!(plugin.range(UUID, 70_000, 1000)? == content(200_000)[70_000..71_000], "the range differs");
    ensure!(plugin.read(UUID)? == content(200_000), "the bytes differ");
    ensure!(plugin.errors().is_empty(), "{:#?}", plugin.errors());
    plugin.check()
}
