//! A container, with the requests that `object_store` does not make or makes differently.
//!
//! - A blob is deleted with its snapshots. `object_store` does not send the header for that, and Azure refuses without it.
//! - The list of a blob's blocks sets its access tier. `object_store` does not support a tier there.
//! - The container can be created.

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bucket::CreateBucket;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Method};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider, MicrosoftAzure};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse, HttpService};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use crate::options::Account;
use crate::shared_key::AzureHttp;

pub(crate) const ACCESS_TIER: HeaderName = HeaderName::from_static("x-ms-access-tier");
/// The headers of Delete Blob.
const DELETION: [(HeaderName, &str); 1] = [(HeaderName::from_static("x-ms-delete-snapshots"), "include")];
/// The error code for a container that another client has created.
const EXISTS: &str = "ContainerAlreadyExists";
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const STORE: &str = "MicrosoftAzure";

/// A container of Azure Blob Storage; cheap to clone.
#[derive(Clone)]
pub(crate) struct Container {
    store: MicrosoftAzure,
    pub(crate) credentials: AzureCredentialProvider,
    pub(crate) account: String,
    pub(crate) url: Url,
    /// The access tier of new blobs.
    pub(crate) access_tier: Option<&'static str>,
    pub(crate) http: AzureHttp,
}

/// The server refused a request. `cloud-http` has recorded its answer.
#[derive(Debug, thiserror::Error)]
#[error("the server refused")]
struct Refused {
    code: Option<HeaderValue>,
}

impl Container {
    /// Returns the container `name` of `account`, whose blobs `store` reads and writes.
    pub(crate) fn new(
        store: MicrosoftAzure,
        credentials: AzureCredentialProvider,
        account: &Account,
        name: &str,
        access_tier: Option<&'static str>,
        http: AzureHttp,
    ) -> Self {
        let mut url = account.endpoint.clone();
        // Never fails: HTTP URLs have a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(name);
        }
        Self { store, credentials, account: account.name.clone(), url, access_tier, http }
    }

    pub(crate) fn blob_url(&self, path: &Path) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.parts());
        }
        url
    }

    /// Signs and sends a request. Every status but success is an error.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, &'static str)],
        body: String,
    ) -> Result<HttpResponse> {
        let mut request = request(method, url, headers, body)?;
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        let answer = self.http.call(request).await.map_err(|error| failed(Box::new(error)))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(failed(Box::new(Refused { code: answer.headers().get(ERROR_CODE).cloned() })))
    }

    /// Returns Delete Blob, not yet signed, which also deletes the blob's snapshots, so that nothing of it remains.
    pub(crate) fn deletion(&self, path: &Path) -> Result<HttpRequest> {
        request(Method::DELETE, &self.blob_url(path), &DELETION, String::new())
    }

    async fn delete_blob(&self, path: &Path) -> Result<()> {
        self.send(Method::DELETE, &self.blob_url(path), &DELETION, String::new()).await.map(|_| ())
    }
}

/// Returns a request that is not yet signed.
pub(crate) fn request(
    method: Method,
    url: &Url,
    headers: &[(HeaderName, &'static str)],
    body: String,
) -> Result<HttpRequest> {
    let length = HeaderValue::from(body.len());
    let mut request = HttpRequest::new(HttpRequestBody::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.as_str().parse().map_err(|error| failed(Box::new(error)))?;
    request.headers_mut().insert(CONTENT_LENGTH, length);
    for (name, value) in headers {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(request)
}

pub(crate) fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source }
}

#[async_trait]
impl CreateBucket for Container {
    /// Sends Create Container without the header `x-ms-blob-public-access`, so that the container is private.
    async fn create_bucket(&self) -> Result<()> {
        let mut url = self.url.clone();
        url.set_query(Some("restype=container"));
        match self.send(Method::PUT, &url, &[], String::new()).await {
            // Another client was faster.
            Err(object_store::Error::Generic { source, .. }) if has_code(&*source, EXISTS) => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

/// Whether `error` is a refusal of [`Container::send`] with this code.
pub(crate) fn has_code(error: &(dyn std::error::Error + 'static), expected: &str) -> bool {
    let code = error.downcast_ref().and_then(|refused: &Refused| refused.code.as_ref());
    code.is_some_and(|code| code == expected)
}

#[async_trait]
impl MultipartStore for Container {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.store.create_multipart(path).await
    }

    /// Sends nothing: blocks need no preparation, and the options are sent with the list of blocks.
    async fn create_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<MultipartId> {
        // This plugin sets no other attribute, and `complete_multipart` knows its value.
        debug_assert!(options.attributes.iter().all(|(name, _)| *name == Attribute::StorageClass));
        self.store.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        payload: PutPayload,
    ) -> Result<PartId> {
        self.store.put_part(path, id, index, payload).await
    }

    /// Sends Put Block List.
    async fn complete_multipart(
        &self,
        path: &Path,
        _id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let mut url = self.blob_url(path);
        url.set_query(Some("comp=blocklist"));
        let mut headers = vec![(CONTENT_TYPE, "application/xml")];
        headers.extend(self.access_tier.map(|tier| (ACCESS_TIER, tier)));
        let answer = self.send(Method::PUT, &url, &headers, block_list(&parts)).await?;
        let e_tag = answer.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(PutResult { e_tag, version: None, extensions: http::Extensions::default() })
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.store.abort_multipart(path, id).await
    }
}

/// Returns the list of a blob's blocks in order, by the base64 of the names that `object_store` gave them.
fn block_list(parts: &[PartId]) -> String {
    let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for part in parts {
        list.push_str("<Uncommitted>");
        list.push_str(&BASE64.encode(&part.content_id));
        list.push_str("</Uncommitted>");
    }
    list.push_str("</BlockList>");
    list
}

#[async_trait]
impl ObjectStore for Container {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let container = self.clone();
        paths
            .then(move |path| {
                let container = container.clone();
                async move {
                    let path = path?;
                    container.delete_blob(&path).await.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Azure container {}", self.url)
    }
}

impl fmt::Debug for Container {
    /// Omits the credentials, including those in `store`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("url", &self.url.as_str())
            .field("access_tier", &self.access_tier)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_list_is_in_order() {
        let parts = ["b", "a"].map(|name| PartId { content_id: name.to_owned() });
        assert_eq!(
            block_list(&parts),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Uncommitted>Yg==</Uncommitted>\
             <Uncommitted>YQ==</Uncommitted></BlockList>"
        );
    }
}
