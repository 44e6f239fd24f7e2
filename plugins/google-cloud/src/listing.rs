//! Lists of the XML interface, which are those of S3.
//!
//! <https://cloud.google.com/storage/docs/xml-api/get-bucket-list>

use async_trait::async_trait;
use bucket::{ListObjects, ListPage, ListRequest};
use cloud_http::CloudHttp;
use http::header::AUTHORIZATION;
use object_store::Result;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::gcp::GcpCredentialProvider;
use url::Url;

use crate::deletion::{bearer, failed};

/// Lists the objects of one bucket.
pub(crate) struct ObjectListing {
    credentials: GcpCredentialProvider,
    url: String,
    http: CloudHttp,
}

impl ObjectListing {
    pub(crate) fn new(
        endpoint: &Url,
        bucket: &str,
        credentials: GcpCredentialProvider,
        http: &CloudHttp,
    ) -> Self {
        let url = format!("{}/{bucket}", endpoint.as_str().trim_end_matches('/'));
        Self { credentials, url, http: http.clone() }
    }
}

#[async_trait]
impl ListObjects for ObjectListing {
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let url = format!("{}?{}", self.url, request.s3_query());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().map_err(|error| failed(Box::new(error)))?;
        request.headers_mut().insert(AUTHORIZATION, bearer(&self.credentials).await?);
        let response = self.http.call(request).await.map_err(|error| failed(Box::new(error)))?;
        if !response.status().is_success() {
            return Err(failed(Box::from("the server refused")));
        }
        ListPage::read(response).await.map_err(|error| failed(Box::new(error)))
    }
}
