//! The request `ListObjectsV2`.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>

use async_trait::async_trait;
use bucket::{ListObjects, ListPage, ListRequest};
use object_store::Result;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};

use crate::deletion::failed;
use crate::request::S3Http;

/// Lists the objects of one bucket.
pub(crate) struct ObjectListing {
    url: String,
    http: S3Http,
}

impl ObjectListing {
    /// Lists objects of the bucket at `url`.
    pub(crate) fn new(url: &str, http: S3Http) -> Self {
        Self { url: url.to_owned(), http }
    }
}

#[async_trait]
impl ListObjects for ObjectListing {
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let url = format!("{}?{}", self.url, request.s3_query());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().map_err(|error| failed(Box::new(error)))?;
        let response = self.http.call(request).await.map_err(|error| failed(Box::new(error)))?;
        if !response.status().is_success() {
            return Err(failed(Box::from("the server refused")));
        }
        ListPage::read(response).await.map_err(|error| failed(Box::new(error)))
    }
}
