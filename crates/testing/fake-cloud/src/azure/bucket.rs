//! A look into Azurite's containers, past the front and its counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, LAST_MODIFIED};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::StdError;
use serde::de::DeserializeOwned;

use crate::azure::forward::forward;
use crate::azure::sign::Signer;
use crate::azure::xml::{BlockList, Containers, Listing, Tags};
use crate::checksum;
use crate::stored::{StoredObject, UnfinishedUpload};

/// Everything but what addresses may hold as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A client of our own, so that the one under test is not used to test itself.
#[derive(Debug)]
pub(crate) struct Inspector {
    port: u16,
    account: String,
    signer: Signer,
}

/// An answer that was read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Itself, if Azurite did as asked.
    fn check(self) -> Result<Self, StdError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(format!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }

    fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    fn xml<T: DeserializeOwned>(&self) -> Result<T, StdError> {
        let text = std::str::from_utf8(&self.body)?;
        Ok(quick_xml::de::from_str(text.trim_start_matches('\u{feff}'))?)
    }
}

impl Inspector {
    pub(crate) fn new(port: u16, account: String, signer: Signer) -> Self {
        Self { port, account, signer }
    }

    /// One request, signed. `path` is that of a container or blob, not yet encoded.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, StdError> {
        let mut uri = format!("/{}/{}", self.account, utf8_percent_encode(path, ENCODED));
        if !query.is_empty() {
            write!(uri, "?{query}")?;
        }
        let mut request =
            Request::builder().method(method).uri(uri).header(HOST, format!("127.0.0.1:{}", self.port));
        request = request.header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let (mut head, body) = request.body(body)?.into_parts();
        self.signer.authorize(&mut head);
        let (head, body) = forward(self.port, Request::from_parts(head, body)).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    async fn get(&self, path: &str, query: &str) -> Result<Answer, StdError> {
        self.send(Method::GET, path, query, &[], Bytes::new()).await
    }

    pub(crate) async fn create_container(&self, name: &str) -> Result<(), StdError> {
        let answer = self.send(Method::PUT, name, "restype=container", &[], Bytes::new()).await?;
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

    /// Names of blobs with `include`; none without the container.
    async fn names(&self, bucket: &str, include: &str) -> Result<Vec<String>, StdError> {
        let (mut names, mut marker) = (Vec::new(), String::new());
        loop {
            let mut query = format!("restype=container&comp=list{include}");
            if !marker.is_empty() {
                write!(query, "&marker={}", utf8_percent_encode(&marker, NON_ALPHANUMERIC))?;
            }
            let answer = self.get(bucket, &query).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(Vec::new());
            }
            let listing: Listing = answer.check()?.xml()?;
            names.extend(listing.blobs.blobs.into_iter().map(|blob| blob.name));
            marker = listing.next_marker.unwrap_or_default();
            if marker.is_empty() {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    pub(crate) async fn keys(&self, bucket: &str) -> Result<Vec<String>, StdError> {
        self.names(bucket, "").await
    }

    pub(crate) async fn object(&self, bucket: &str, key: &str) -> Result<Option<StoredObject>, StdError> {
        let path = format!("{bucket}/{key}");
        // The access tier is told here only.
        let properties = self.send(Method::HEAD, &path, "", &[], Bytes::new()).await?;
        if properties.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let mut answer = properties.check()?;
        let content = self.get(&path, "").await?;
        // An archived blob has properties, but cannot be read.
        if content.status != StatusCode::CONFLICT {
            answer.body = content.check()?.body;
        }
        let tags = match answer.header("x-ms-tag-count") {
            Some(_) => self.get(&path, "comp=tags").await?.check()?.xml::<Tags>()?.into_map(),
            None => BTreeMap::new(),
        };
        let blocks = self.get(&path, "comp=blocklist&blocklisttype=committed").await?.check()?;
        let blocks = blocks.xml::<BlockList>()?.committed.blocks.len();
        Ok(Some(stored(&answer, tags, (blocks > 0).then_some(blocks))))
    }

    pub(crate) async fn remove(&self, bucket: &str, key: &str) -> Result<Option<StoredObject>, StdError> {
        let object = self.object(bucket, key).await?;
        if object.is_some() {
            self.send(Method::DELETE, &format!("{bucket}/{key}"), "", &[], Bytes::new()).await?.check()?;
        }
        Ok(object)
    }

    pub(crate) async fn unfinished_uploads(&self, bucket: &str) -> Result<Vec<UnfinishedUpload>, StdError> {
        let mut uploads = Vec::new();
        for key in self.names(bucket, "&include=uncommittedblobs").await? {
            let query = "comp=blocklist&blocklisttype=uncommitted";
            let list: BlockList = self.get(&format!("{bucket}/{key}"), query).await?.check()?.xml()?;
            let blocks = list.uncommitted.blocks;
            if !blocks.is_empty() {
                let parts = (1..).zip(blocks.iter().map(|block| block.size)).collect();
                uploads.push(UnfinishedUpload { upload_id: String::new(), key, parts });
            }
        }
        Ok(uploads)
    }

    /// Deletes every container and makes it again: so uncommitted blocks go, too.
    pub(crate) async fn clear(&self) -> Result<(), StdError> {
        let containers: Containers = self.get("", "comp=list").await?.check()?.xml()?;
        for container in containers.containers.containers {
            let name = container.name;
            self.send(Method::DELETE, &name, "restype=container", &[], Bytes::new()).await?.check()?;
            self.create_container(&name).await?;
        }
        Ok(())
    }
}

fn stored(answer: &Answer, tags: BTreeMap<String, String>, parts: Option<usize>) -> StoredObject {
    let prefix = "x-ms-meta-";
    let metadata = answer.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(prefix)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    let inferred = answer.header("x-ms-access-tier-inferred").is_some_and(|value| value == "true");
    let modified =
        answer.header(LAST_MODIFIED.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok());
    StoredObject {
        bytes: answer.body.clone(),
        etag: answer.header(ETAG.as_str()).unwrap_or_default().trim_matches('"').to_owned(),
        last_modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        storage_class: answer.header("x-ms-access-tier").filter(|_| !inferred),
        tags,
        server_side_encryption: None,
        kms_key_id: None,
        checksum_crc64nvme: checksum::to_header(checksum::crc64nvme(&answer.body)),
        checksum_crc32c: None,
        checksum_md5: answer.header("content-md5"),
        content_type: answer.header(CONTENT_TYPE.as_str()),
        metadata: metadata.collect(),
        parts,
    }
}
