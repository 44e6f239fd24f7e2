//! AWS KMS for tests: a client of the plugin, and a service that keeps its wrapped keys in memory and fails as it is told.
#![allow(dead_code, unreachable_pub)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use OrthancAwsS3Storage::S3;
use anyhow::{Context, Result, anyhow};
use conformance::{Answer, Request, SmallServer};
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Wrapped};
use serde_json::{Value, json};
use storage_plugin::{Provider, ProviderContext, Section};
use tokio::runtime::Runtime;

pub const ALIAS: &str = "alias/images";
pub const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub const OTHER_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321";
pub const ACCESS_KEY: &str = "AKIAKMSEXAMPLE";
pub const SECRET_KEY: &str = "kms/secret+key/0123456789";

/// A client of a key, and the runtime that it works on.
pub struct Client {
    pub service: Arc<dyn KeyService>,
    runtime: Runtime,
}

impl Client {
    /// Opens `AwsKms` with these options, in a section of the plugin with `own` ones.
    pub fn open(service: &Value, own: &Value) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let base = json!({"BucketName": "bucket", "Region": "us-east-1", "AccessKey": ACCESS_KEY, "SecretKey": SECRET_KEY});
        let configuration = json!({"AwsKms": service, S3::SECTION: conformance::with(base, own)});
        let configuration = configuration.as_object().context("not an object")?;
        let section = |name| -> Result<_> { Section::find(configuration, name)?.context("no section") };
        let mut own = section(S3::SECTION)?;
        let context = ProviderContext::read::<S3>(&mut own, configuration, runtime.handle())?;
        let opened = S3::key_service(&mut section("AwsKms")?, &mut own, &context);
        Ok(Self { service: opened.map_err(|error| anyhow!("{error}"))?, runtime })
    }

    pub fn wrap(&self, file_key: &FileKey) -> Result<Wrapped, KeyServiceError> {
        self.runtime.block_on(self.service.wrap(file_key))
    }

    pub fn unwrap(&self, wrapped: &Wrapped) -> Result<FileKey, KeyServiceError> {
        self.runtime.block_on(self.service.unwrap(&wrapped.key, &wrapped.wrapped))
    }
}

/// A service with the keys [`ARN`], which also has the name [`ALIAS`], and [`OTHER_ARN`].
pub struct FakeKms {
    pub server: SmallServer,
    script: Arc<Mutex<VecDeque<Answer>>>,
    /// The answer to all requests, if there is one.
    always: Arc<Mutex<Option<Answer>>>,
}

impl FakeKms {
    pub fn start() -> Result<Self> {
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let always = Arc::new(Mutex::new(None));
        let answers = (Arc::clone(&script), Arc::clone(&always));
        let wrapped = Mutex::new(HashMap::new());
        let server = SmallServer::start(move |request| {
            let (script, always) = &answers;
            let next = locked(script).pop_front().or_else(|| locked(always).clone());
            next.unwrap_or_else(|| match answer(request, &mut locked(&wrapped)) {
                Ok(body) => Answer(200, Vec::new(), body.to_string()),
                Err(code) => refusal(400, code),
            })
        })?;
        Ok(Self { server, script, always })
    }

    /// Answers the next requests so.
    pub fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        locked(&self.script).extend(answers);
    }

    /// Answers all later requests so, or as usual.
    pub fn always(&self, answer: Option<Answer>) {
        *locked(&self.always) = answer;
    }

    /// The file keys that were to be wrapped, in base64.
    pub fn file_keys(&self) -> Vec<String> {
        let documents =
            self.server.requests().into_iter().flat_map(|request| serde_json::from_str(&request.body));
        documents.filter_map(|document: Value| document["Plaintext"].as_str().map(str::to_owned)).collect()
    }

    /// `AwsKms` for a key of this service.
    pub fn section(&self, key: &str) -> Value {
        json!({"KeyId": key, "Endpoint": self.server.url("")})
    }

    /// A client of a key of this service.
    pub fn client(&self, key: &str) -> Result<Client> {
        Client::open(&self.section(key), &json!({}))
    }

    /// Number of requests for an action since the start.
    pub fn requests(&self, action: &str) -> usize {
        let target = format!("TrentService.{action}");
        self.server.requests().iter().filter(|request| request.has("x-amz-target", &target)).count()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal in the form of AWS KMS.
pub fn refusal(status: u16, code: &str) -> Answer {
    let headers = vec![("x-amzn-RequestId", "2d3f1c5e-request".to_owned())];
    Answer(status, headers, json!({"__type": code, "message": "the words of the service"}).to_string())
}

/// Wrapped file keys: the ARN of the key, and the file key in base64.
type WrappedKeys = HashMap<String, (String, String)>;

fn answer(request: &Request, wrapped: &mut WrappedKeys) -> Result<Value, &'static str> {
    let scope = format!("Credential={ACCESS_KEY}/");
    let is_signed = request.headers.iter().any(|header| {
        header.starts_with("authorization: AWS4-HMAC-SHA256 ")
            && header.contains(&scope)
            && header.contains("/us-east-1/kms/aws4_request, ")
            && ["content-type", "host", "x-amz-content-sha256", "x-amz-target"]
                .iter()
                .all(|name| header.split([';', '=', ',']).any(|signed| signed == *name))
    });
    if !is_signed || request.target != "POST /" {
        return Err("IncompleteSignatureException");
    }
    if !request.has("content-type", "application/x-amz-json-1.1") {
        return Err("UnknownOperationException");
    }
    let document: Value = serde_json::from_str(&request.body).map_err(|_| "SerializationException")?;
    if document["EncryptionContext"] != json!({"orthanc-object-storage": "A2"}) {
        return Err("InvalidCiphertextException");
    }
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let arn = match document["KeyId"].as_str() {
        Some(ALIAS) => Some(ARN),
        Some(ARN) => Some(ARN),
        Some(OTHER_ARN) => Some(OTHER_ARN),
        Some(_) => return Err("NotFoundException"),
        None => None,
    };
    if request.has("x-amz-target", "TrentService.Encrypt") {
        let arn = arn.ok_or("ValidationException")?;
        let plaintext = text("Plaintext").ok_or("ValidationException")?;
        // "wrapped key NUMBER" in base64, as far as it goes into whole groups of letters.
        let blob = format!("d3JhcHBlZCBrZXkg{:04}", wrapped.len());
        wrapped.insert(blob.clone(), (arn.to_owned(), plaintext));
        return Ok(json!({"CiphertextBlob": blob, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}));
    }
    let blob = text("CiphertextBlob").ok_or("ValidationException")?;
    let (of_key, plaintext) = wrapped.get(&blob).ok_or("InvalidCiphertextException")?;
    if arn.is_some_and(|arn| arn != of_key) {
        return Err("IncorrectKeyException");
    }
    Ok(json!({"Plaintext": plaintext, "KeyId": of_key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}))
}
