//! List Blobs.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/list-blobs>

use async_trait::async_trait;
use bucket::{ListObjects, ListPage, ListRequest};
use http::Method;
use object_store::Result;

use crate::container::{Container, failed};

#[async_trait]
impl ListObjects for Container {
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let mut url = self.url.clone();
        url.set_query(Some(&request.azure_query()));
        let response = self.send(Method::GET, &url, &[], String::new()).await?;
        ListPage::read(response).await.map_err(|error| failed(Box::new(error)))
    }
}
