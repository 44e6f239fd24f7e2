//! A client of Orthanc's REST API.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::Value;
use thiserror::Error;
use ureq::Agent;
use ureq::http::{Method, Request};

/// A client with its own pool of keep-alive connections. Clones share the pool.
///
/// A status that is no success is an answer here, not an error, except where a method's result would be meaningless.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
}

/// Why a request has no usable answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestError {
    /// No answer: the connection failed, broke, or took too long.
    #[error("{method} {path}: {source}")]
    Transport {
        /// The HTTP method.
        method: Method,
        /// The path asked for.
        path: String,
        /// What the HTTP client says.
        source: Box<ureq::Error>,
    },
    /// The answer has another status than 200, where only 200 makes sense.
    #[error("{path}: HTTP status {status}: {body}")]
    Status {
        /// The path asked for.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The answer's body, as text.
        body: String,
    },
    /// The answer is not the JSON that was expected.
    #[error("{path}: unexpected JSON: {body}")]
    Json {
        /// The path asked for.
        path: String,
        /// The answer's body, as text.
        body: String,
    },
    /// A job has not ended in time; the text is its last state.
    #[error("job {id} has not ended in time: {state}")]
    JobTimeout {
        /// The job's id.
        id: String,
        /// The job as Orthanc last described it.
        state: Value,
    },
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The path that was asked for.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, with replacement characters where it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer itself if its status is 200.
    ///
    /// # Errors
    /// [`RestError::Status`] for any other status.
    pub fn ok(self) -> Result<Self, RestError> {
        match self.status {
            200 => Ok(self),
            status => Err(RestError::Status { body: self.text(), path: self.path, status }),
        }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`RestError::Json`] if it is none.
    pub fn json(&self) -> Result<Value, RestError> {
        serde_json::from_slice(&self.body).map_err(|_| self.unexpected())
    }

    fn unexpected(&self) -> RestError {
        RestError::Json { path: self.path.clone(), body: self.text() }
    }
}

/// What Orthanc says of an instance it was given.
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
    /// A client of the Orthanc at `url` (without a slash at the end).
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_timeout(url, Duration::from_secs(120))
    }

    /// A client whose requests fail when they take longer than `timeout` from connecting to the last byte.
    #[must_use]
    pub fn with_timeout(url: impl Into<String>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            // The servers of the tests are on the loopback, whatever the environment says of proxies.
            .proxy(None)
            .build();
        Self { agent: config.into(), url: url.into() }
    }

    /// The URL of a path that begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Stores a DICOM file.
    ///
    /// # Errors
    /// [`RestError`], also if Orthanc refuses it.
    pub fn upload(&self, dicom: &[u8]) -> Result<Uploaded, RestError> {
        let answer = self.post("/instances", dicom)?.ok()?;
        let json = answer.json()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned).ok_or_else(|| answer.unexpected());
        Ok(Uploaded {
            id: text("ID")?,
            status: text("Status")?,
            path: text("Path")?,
            series: text("ParentSeries")?,
            study: text("ParentStudy")?,
        })
    }

    /// The DICOM file of an instance.
    ///
    /// # Errors
    /// [`RestError`], also if the status is not 200.
    pub fn file(&self, instance: &str) -> Result<Vec<u8>, RestError> {
        Ok(self.get(&format!("/instances/{instance}/file"))?.ok()?.body)
    }

    /// Names of an instance's attachments, such as `dicom`.
    ///
    /// # Errors
    /// [`RestError`], also if the status is not 200.
    pub fn attachments(&self, instance: &str) -> Result<Vec<String>, RestError> {
        let answer = self.get(&format!("/instances/{instance}/attachments"))?.ok()?;
        serde_json::from_slice(&answer.body).map_err(|_| answer.unexpected())
    }

    /// GET.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn get(&self, path: &str) -> Result<Answer, RestError> {
        self.send(Method::GET, path, None, &[])
    }

    /// GET of JSON.
    ///
    /// # Errors
    /// [`RestError`], also if the status is not 200.
    pub fn get_json(&self, path: &str) -> Result<Value, RestError> {
        self.get(path)?.ok()?.json()
    }

    /// GET with a `Range` header.
    ///
    /// Orthanc 1.10.1 ignores the header and answers 200 with everything. Its storage area sees ranges all the same:
    /// `/instances/{id}/tags` and `/instances/{id}/header` read the beginning of the DICOM file.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn get_range(&self, path: &str, range: RangeInclusive<u64>) -> Result<Answer, RestError> {
        let value = format!("bytes={}-{}", range.start(), range.end());
        self.send(Method::GET, path, None, &[("Range", &value)])
    }

    /// POST.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer, RestError> {
        self.send(Method::POST, path, Some(body), &[])
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Answer, RestError> {
        self.post(path, body.to_string().as_bytes())
    }

    /// PUT.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn put(&self, path: &str, body: &[u8]) -> Result<Answer, RestError> {
        self.send(Method::PUT, path, Some(body), &[])
    }

    /// DELETE.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn delete(&self, path: &str) -> Result<Answer, RestError> {
        self.send(Method::DELETE, path, None, &[])
    }

    /// Waits until a job has succeeded or failed, and returns what `/jobs/{id}` then says.
    ///
    /// # Errors
    /// [`RestError::JobTimeout`], or any other when the job cannot be asked for.
    pub fn wait_job(&self, id: &str, timeout: Duration) -> Result<Value, RestError> {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.get_json(&format!("/jobs/{id}"))?;
            if matches!(state["State"].as_str(), Some("Success" | "Failure")) {
                return Ok(state);
            }
            if Instant::now() >= deadline {
                return Err(RestError::JobTimeout { id: id.to_owned(), state });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A request with any method, body and headers.
    ///
    /// # Errors
    /// [`RestError::Transport`].
    pub fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, RestError> {
        self.try_send(&method, path, body, headers).map_err(|source| RestError::Transport {
            method,
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    fn try_send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(bytes) => self.agent.run(request.body(bytes)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let status = response.status().as_u16();
        // The client's own limit of 10 MB is meant for unknown servers.
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        Ok(Answer { path: path.to_owned(), status, body })
    }
}
