//! Set Blob Tier, which moves archived blobs to a tier that can be read (Microsoft calls this rehydration).
//!
//! <https://learn.microsoft.com/rest/api/storageservices/set-blob-tier>

use async_trait::async_trait;
use bucket::{Cause, RestoreArchived, StorageError};
use http::{HeaderName, Method};
use object_store::Result;
use object_store::path::Path;

use crate::container::{ACCESS_TIER, Container, has_code};

const STANDARD: &str = "Standard";
const HIGH: &str = "High";
const PRIORITY: HeaderName = HeaderName::from_static("x-ms-rehydrate-priority");
/// The error code for a blob that is already being restored.
const IN_PROGRESS: &str = "BlobBeingRehydrated";
const ARCHIVE: &str = "Archive";
/// The tier that blobs are moved to, unless new blobs have another one.
const HOT: &str = "Hot";

#[async_trait]
impl RestoreArchived for Container {
    /// The priorities of a rehydration.
    fn tiers(&self) -> &'static [&'static str] {
        &[STANDARD, HIGH]
    }

    fn makes_copies(&self) -> bool {
        false
    }

    fn advice(&self, error: &StorageError) -> Option<&'static str> {
        (error.cause == Cause::Denied).then_some(
            "restoring requires the role Storage Blob Data Contributor, or the permission to write (w) in the shared \
             access signature",
        )
    }

    /// Moves the blob to the access tier of new blobs, or to the hot one if new blobs are archived.
    async fn restore(&self, path: &Path, tier: &str, _days: Option<u32>) -> Result<()> {
        let mut url = self.blob_url(path);
        url.set_query(Some("comp=tier"));
        let target = self.access_tier.filter(|tier| *tier != ARCHIVE).unwrap_or(HOT);
        let priority = if tier == HIGH { HIGH } else { STANDARD };
        let headers = [(ACCESS_TIER, target), (PRIORITY, priority)];
        match self.send(Method::PUT, &url, &headers, String::new()).await {
            Err(object_store::Error::Generic { source, .. }) if has_code(&*source, IN_PROGRESS) => Ok(()),
            result => result.map(|_| ()),
        }
    }
}
