//! Blob Batch: deletes several blobs with one request. `object_store` also makes it, but without the header that deletes
//! snapshots, and takes a blob that the answer does not mention as deleted.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/blob-batch>

use async_trait::async_trait;
use bucket::{BulkDelete, Deletion};
use cloud_http::{BatchAnswer, BatchRequest, Refusal};
use http::Method;
use http::header::CONTENT_TYPE;
use object_store::Result;
use object_store::azure::AzureAuthorizer;
use object_store::path::Path;

use crate::container::{Container, failed};

/// Maximum number of blobs in one request.
const LIMIT: usize = 256;
/// The error code for a missing blob, as opposed to a missing container.
const BLOB_MISSING: &str = "BlobNotFound";

#[async_trait]
impl BulkDelete for Container {
    fn limit(&self) -> usize {
        LIMIT
    }

    /// Sends a batch of the container, which a signature of the container may send.
    async fn delete_many(&self, names: &[Path]) -> Result<Vec<Deletion>> {
        let credential = self.credentials.get_credential().await?;
        let mut batch = BatchRequest::default();
        for (id, name) in names.iter().enumerate() {
            let mut request = self.deletion(name)?;
            AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
            self.http.correct(&mut request);
            batch.push(id, &request);
        }
        let mut url = self.url.clone();
        url.set_query(Some("restype=container&comp=batch"));
        let headers = [(CONTENT_TYPE, BatchRequest::CONTENT_TYPE)];
        let response = self.send(Method::POST, &url, &headers, batch.into_body()).await?;
        let answers = BatchAnswer::read(response).await.map_err(|error| failed(Box::new(error)))?;
        Ok(Deletion::of_batch(names.len(), answers.unwrap_or_default(), is_missing))
    }
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.code.as_deref() == Some(BLOB_MISSING)
}
