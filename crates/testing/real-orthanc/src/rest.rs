//! A client of Orthanc's REST API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ureq::Agent;
pub use ureq::http::Method;
use ureq::http::Request;

/// A client with its own pool of keep-alive connections. Clones share the pool.
///
/// Any HTTP status is an answer, not an error, except where a method's result would be meaningless.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    path: String,
    /// The HTTP status.
    pub status: u16,
    /// The header `ETag`, or an empty text.
    pub etag: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, with replacement characters where it is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer itself if its status is 200, otherwise an error.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.status == 200, "{}: HTTP status {}: {}", self.path, self.status, self.text());
        Ok(self)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {}", self.path, self.text()))
    }
}

impl Uploaded {
    /// Parses Orthanc's answer to an upload.
    pub fn parse(answer: &Answer) -> Result<Self> {
        let json = answer.json()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned).with_context(|| json.to_string());
        Ok(Self {
            id: text("ID")?,
            status: text("Status")?,
            path: text("Path")?,
            series: text("ParentSeries")?,
            study: text("ParentStudy")?,
        })
    }
}

/// Orthanc's answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Orthanc's id of the instance.
    pub id: String,
    /// `Success` or `AlreadyStored`.
    pub status: String,
    /// The instance's path in the REST API.
    pub path: String,
    /// Orthanc's id of the series.
    pub series: String,
    /// Orthanc's id of the study.
    pub study: String,
}

impl Client {
    /// A client of the Orthanc at `url` (without a trailing slash).
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_timeout(url, Duration::from_secs(120))
    }

    /// A client whose requests fail if they take longer than `timeout` from connecting to the last byte.
    pub fn with_timeout(url: impl Into<String>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            // Orthanc closes a connection that was idle for a second.
            .max_idle_age(Duration::from_millis(500))
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            // Orthanc is on the loopback, so proxies of the environment must not be used.
            .proxy(None)
            .build();
        Self { agent: config.into(), url: url.into() }
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Stores a DICOM file. A refusal is an error.
    pub fn upload(&self, dicom: &[u8]) -> Result<Uploaded> {
        Uploaded::parse(&self.post("/instances", dicom)?.ok()?)
    }

    /// The DICOM file of an instance. Any status but 200 is an error.
    pub fn file(&self, instance: &str) -> Result<Vec<u8>> {
        Ok(self.get(&format!("/instances/{instance}/file"))?.ok()?.body)
    }

    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None)
    }

    /// Sends a GET request and parses the answer as JSON. Any status but 200 is an error.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        self.get(path)?.ok()?.json()
    }

    /// Sends a POST request.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.send(Method::POST, path, Some(body))
    }

    /// Sends a POST request with JSON.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post(path, body.to_string().as_bytes())
    }

    /// Sends a PUT request.
    pub fn put(&self, path: &str, body: &[u8]) -> Result<Answer> {
        self.send(Method::PUT, path, Some(body))
    }

    /// Sends a request with headers.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer> {
        let failed = format!("{method} {path}");
        self.try_send(method, path, headers, body).context(failed)
    }

    /// Sends a DELETE request.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None)
    }

    /// Waits until a job has succeeded or failed, and returns what `/jobs/{id}` then says.
    pub fn wait_job(&self, id: &str, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.get_json(&format!("/jobs/{id}"))?;
            if matches!(state["State"].as_str(), Some("Success" | "Failure")) {
                return Ok(state);
            }
            if Instant::now() >= deadline {
                bail!("job {id} has not ended within {timeout:?}: {state}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the plugin has deleted everything that Orthanc has deleted.
    pub fn wait_for_deletions(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.get_json("/object-storage/status")?;
            let pending = &status["Deletions"]["Pending"];
            if *pending == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "deletions pending after {timeout:?}: {pending}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer> {
        self.request(method, path, &[], body)
    }

    fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ureq::Error> {
        let builder = Request::builder().method(method).uri(self.url(path));
        let request = headers.iter().fold(builder, |request, (name, value)| request.header(*name, *value));
        let mut response = match body {
            Some(bytes) => self.agent.run(request.body(bytes)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let status = response.status().as_u16();
        let etag = response
            .headers()
            .get("etag")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        // The client's default limit is 10 MB.
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        Ok(Answer { path: path.to_owned(), status, etag, body })
    }
}
