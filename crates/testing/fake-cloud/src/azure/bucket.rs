//! Direct access to Azurite's containers, which the counters do not see.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::StdError;
use serde::Deserialize;

use crate::azure::forward::forward;
use crate::azure::options::{AzureOptions, Sas};
use crate::azure::sas::VERSION;
use crate::dialect::full;
use crate::stored::StoredObject;

/// The characters that are encoded in the path of a URL.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Life of the signature for the requests of one server.
const SIGNATURE_LIFE: Duration = Duration::from_hours(24 * 7);

/// A minimal client, because tests must not check the client under test with itself.
#[derive(Debug)]
pub(crate) struct Inspector {
    port: u16,
    account: String,
    signature: String,
}

/// A complete answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A page of a list of blobs or containers.
#[derive(Debug, Deserialize)]
struct Listing {
    #[serde(rename = "Blobs", alias = "Containers")]
    entries: Entries,
    #[serde(rename = "NextMarker", default)]
    next_marker: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entries {
    #[serde(rename = "Blob", alias = "Container")]
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "Name")]
    name: String,
}

impl Answer {
    /// Fails unless the status means success.
    fn check(self) -> Result<Self, StdError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(format!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Inspector {
    pub(crate) fn new(port: u16, options: &AzureOptions) -> Self {
        let signature = options.account_sas(&Sas::until(SystemTime::now() + SIGNATURE_LIFE));
        Self { port, account: options.account.clone(), signature }
    }

    /// Sends one request. `path` is that of a container or blob, unencoded; `query` starts with `&` unless
    /// empty.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, StdError> {
        let path = utf8_percent_encode(path, ENCODED);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/{}/{path}?{}{query}", self.account, self.signature))
            .header(HOST, format!("127.0.0.1:{}", self.port))
            .header("x-ms-version", VERSION)
            .header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = forward(self.port, request.body(full(body))?).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    async fn get(&self, path: &str, query: &str) -> Result<Answer, StdError> {
        self.send(Method::GET, path, query, &[], Bytes::new()).await
    }

    pub(crate) async fn create_container(&self, name: &str) -> Result<(), StdError> {
        let answer = self.send(Method::PUT, name, "&restype=container", &[], Bytes::new()).await?;
        if answer.status != StatusCode::CONFLICT {
            answer.check()?;
        }
        Ok(())
    }

    pub(crate) async fn put(&self, bucket: &str, key: &str, content: Bytes) -> Result<(), StdError> {
        let headers = [("x-ms-blob-type", "BlockBlob")];
        self.send(Method::PUT, &format!("{bucket}/{key}"), "", &headers, content).await?.check()?;
        Ok(())
    }

    /// Returns the names in a list in order; none if the container does not exist.
    async fn names(&self, path: &str, query: &str) -> Result<Vec<String>, StdError> {
        let mut names = Vec::new();
        let mut marker = String::new();
        loop {
            let mut page = format!("&comp=list{query}");
            if !marker.is_empty() {
                write!(page, "&marker={}", utf8_percent_encode(&marker, NON_ALPHANUMERIC))?;
            }
            let answer = self.get(path, &page).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(Vec::new());
            }
            let body = answer.check()?.body;
            let text = std::str::from_utf8(&body)?;
            let listing: Listing = quick_xml::de::from_str(text.trim_start_matches('\u{feff}'))?;
            names.extend(listing.entries.entries.into_iter().map(|entry| entry.name));
            marker = listing.next_marker;
            if marker.is_empty() {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    pub(crate) async fn keys(&self, bucket: &str) -> Result<Vec<String>, StdError> {
        self.names(bucket, "&restype=container").await
    }

    pub(crate) async fn object(&self, bucket: &str, key: &str) -> Result<Option<StoredObject>, StdError> {
        let path = format!("{bucket}/{key}");
        // Azurite reports the access tier only here.
        let properties = self.send(Method::HEAD, &path, "", &[], Bytes::new()).await?;
        if properties.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let properties = properties.check()?;
        let is_inferred = properties.header("x-ms-access-tier-inferred") == Some("true");
        let tier = properties.header("x-ms-access-tier").filter(|_| !is_inferred);
        let content = self.get(&path, "").await?;
        // Archived blobs have properties but cannot be read.
        let is_archived = content.status == StatusCode::CONFLICT;
        let bytes = if is_archived { Bytes::new() } else { content.check()?.body };
        Ok(Some(StoredObject { bytes, storage_class: tier.map(str::to_owned), ..StoredObject::default() }))
    }

    pub(crate) async fn remove(&self, bucket: &str, key: &str) -> Result<Option<StoredObject>, StdError> {
        let object = self.object(bucket, key).await?;
        if object.is_some() {
            self.send(Method::DELETE, &format!("{bucket}/{key}"), "", &[], Bytes::new()).await?.check()?;
        }
        Ok(object)
    }

    /// Leases a blob for ever, so that nobody else can delete it.
    pub(crate) async fn lease(&self, bucket: &str, key: &str) -> Result<(), StdError> {
        let headers = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1")];
        let path = format!("{bucket}/{key}");
        self.send(Method::PUT, &path, "&comp=lease", &headers, Bytes::new()).await?.check()?;
        Ok(())
    }

    pub(crate) async fn archive(&self, bucket: &str, key: &str) -> Result<(), StdError> {
        self.set_tier(bucket, key, "Archive").await
    }

    pub(crate) async fn set_tier(&self, bucket: &str, key: &str, tier: &str) -> Result<(), StdError> {
        let headers = [("x-ms-access-tier", tier)];
        let path = format!("{bucket}/{key}");
        self.send(Method::PUT, &path, "&comp=tier", &headers, Bytes::new()).await?.check()?;
        Ok(())
    }

    pub(crate) async fn unfinished_uploads(&self, bucket: &str) -> Result<Vec<String>, StdError> {
        let mut unfinished = Vec::new();
        for key in self.names(bucket, "&restype=container&include=uncommittedblobs").await? {
            let query = "&comp=blocklist&blocklisttype=uncommitted";
            let list = self.get(&format!("{bucket}/{key}"), query).await?.check()?.body;
            if String::from_utf8_lossy(&list).contains("<Block>") {
                unfinished.push(key);
            }
        }
        Ok(unfinished)
    }

    /// Deletes every container and creates it again, which also removes uncommitted blocks.
    pub(crate) async fn clear(&self) -> Result<(), StdError> {
        for name in self.names("", "").await? {
            self.send(Method::DELETE, &name, "&restype=container", &[], Bytes::new()).await?.check()?;
            self.create_container(&name).await?;
        }
        Ok(())
    }
}
