//! Keeps the marker of Orthanc's database in the bucket up to date, so that jobs of Orthancs with other databases notice it
//! even if no search for orphans is ever made here.

use std::sync::Arc;
use std::time::Duration;

use bucket::{ObjectStorage, RetryPolicy};
use serde_json::Value;
use storage_layout::AttachmentUuid;

use super::database::{
    Database, MarkerError, Past, SAMPLE, marker_url, off_the_runtime, read_marker, write_marker,
};
use crate::catalog::{Catalog, CatalogError, Level, Resource};

/// How long after the start the marker is written. Nothing waits for it, and a start has other requests.
const AFTER_START: Duration = Duration::from_secs(60);
/// The time until a marker that could not be written is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(600);
/// The time until a marker is written again.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Writes the marker of Orthanc's database some time after the start, and then each day.
pub(crate) async fn keep_marker(database: Arc<dyn Database>, catalog: Catalog, objects: ObjectStorage) {
    tokio::time::sleep(AFTER_START).await;
    loop {
        let pause = match ensure_marker(&database, &catalog, &objects).await {
            Ok(()) => DAY,
            Err(error) => {
                tracing::info!(
                    "cannot write the marker of Orthanc's database into the bucket: {error}; retrying later"
                );
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Writes the marker with the number of the last change, unless the database seems to be an older copy: that is noted.
pub(super) async fn ensure_marker(
    database: &Arc<dyn Database>,
    catalog: &Catalog,
    objects: &ObjectStorage,
) -> Result<(), MarkerError> {
    let asked = Arc::clone(database);
    let id = off_the_runtime(move || asked.id()).await?;
    let mut marker = read_marker(objects, &id, RetryPolicy::default()).await?.unwrap_or_default();
    if marker.is_older {
        return Ok(());
    }
    let (asked, read) = (Arc::clone(database), marker.clone());
    let (past, changes, changed_at) = off_the_runtime(move || {
        let changes = asked.last_change()?;
        let changed_at = changes.map(|number| asked.date_of_change(number)).transpose()?.flatten();
        Ok((read.past(&*asked, changes)?, changes, changed_at))
    })
    .await?;
    if let Past::Other(evidence) = past {
        let url = marker_url(objects, &id);
        tracing::warn!(
            "Orthanc's database seems to be an older copy: {evidence}; orphans are not deleted until {url} is deleted"
        );
        marker.is_older = true;
        return Ok(write_marker(objects, &id, &marker).await?);
    }
    if marker.attachments.is_empty() {
        let catalog = catalog.clone();
        marker.attachments = off_the_runtime(move || first_attachments(&catalog)).await?;
    }
    marker.changes = changes;
    marker.changed_at = changed_at;
    Ok(write_marker(objects, &id, &marker).await?)
}

/// Attachments of the first instances.
fn first_attachments(catalog: &Catalog) -> Result<Vec<AttachmentUuid>, CatalogError> {
    let path = format!("/instances?since=0&limit={SAMPLE}");
    let instances = catalog.get(&path)?.unwrap_or_default();
    let mut attachments = Vec::new();
    for id in instances.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let found = catalog.attachments(&Resource::new(Level::Instance, id))?;
        attachments.extend(found.first().map(|indexed| indexed.attachment.uuid));
    }
    attachments.truncate(SAMPLE);
    Ok(attachments)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bucket::{Bucket, BucketOptions};
    use futures_util::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::multipart::{MultipartStore, PartId};
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
        ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };
    use parking_lot::Mutex;
    use storage_layout::Layout;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::jobs::fake::Fake;
    use crate::orphans::database::Marker;
    use crate::orphans::tests::FakeDatabase;

    const ID: &str = "00000000000000000000000000000001";
    const MOMENT: Duration = Duration::from_secs(1);

    /// A store in memory that cannot be reached at times.
    #[derive(Debug, Default)]
    struct Store {
        memory: InMemory,
        is_away: AtomicBool,
        requests: AtomicUsize,
    }

    impl Store {
        fn request(&self) -> Result<()> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if self.is_away.load(Ordering::Relaxed) {
                let source = io::Error::from(io::ErrorKind::ConnectionRefused).into();
                return Err(object_store::Error::Generic { store: "test", source });
            }
            Ok(())
        }
    }

    impl std::fmt::Display for Store {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("test")
        }
    }

    #[async_trait]
    impl ObjectStore for Store {
        async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.request()?;
            self.memory.put_opts(path, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            path: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.memory.put_multipart_opts(path, options).await
        }

        async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
            self.request()?;
            self.memory.get_opts(path, options).await
        }

        fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.memory.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.memory.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.memory.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.memory.copy_opts(from, to, options).await
        }
    }

    /// Markers are too small for parts.
    #[async_trait]
    impl MultipartStore for Store {
        async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
            self.memory.create_multipart(path).await
        }

        async fn put_part(
            &self,
            path: &Path,
            id: &MultipartId,
            part: usize,
            data: PutPayload,
        ) -> Result<PartId> {
            self.memory.put_part(path, id, part, data).await
        }

        async fn complete_multipart(
            &self,
            path: &Path,
            id: &MultipartId,
            parts: Vec<PartId>,
        ) -> Result<PutResult> {
            self.memory.complete_multipart(path, id, parts).await
        }

        async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
            self.memory.abort_multipart(path, id).await
        }
    }

    /// A bucket whose marker is kept. The clock stands still while there is work, and jumps while there is none.
    struct Kept {
        store: Arc<Store>,
        database: Arc<FakeDatabase>,
        objects: ObjectStorage,
        keeper: JoinHandle<()>,
    }

    impl Kept {
        fn start(is_away: bool) -> Self {
            let store = Arc::new(Store { is_away: is_away.into(), ..Store::default() });
            let bucket = Bucket::new(BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket"));
            let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
            let database = Arc::new(FakeDatabase(Mutex::new("1"), Mutex::new(Some(100)), Mutex::default()));
            let catalog = Fake::new([1, 1, 3]).host.catalog;
            let kept = keep_marker(Arc::<FakeDatabase>::clone(&database), catalog, objects.clone());
            Self { store, database, objects, keeper: tokio::spawn(kept) }
        }

        async fn marker(&self) -> Option<Marker> {
            read_marker(&self.objects, ID, RetryPolicy::default()).await.unwrap()
        }

        /// The number of changes in the marker, and whether the database is an older copy.
        async fn changes(&self) -> (Option<u64>, bool) {
            let marker = self.marker().await.unwrap();
            assert_eq!(marker.attachments.len(), 3);
            (marker.changes, marker.is_older)
        }

        fn requests(&self) -> usize {
            self.store.requests.load(Ordering::Relaxed)
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            self.keeper.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn marker_is_written_each_day() {
        let kept = Kept::start(false);
        sleep(AFTER_START - MOMENT).await;
        assert_eq!(kept.requests(), 0);
        sleep(2 * MOMENT).await;
        assert_eq!(kept.changes().await, (Some(100), false));
        *kept.database.1.lock() = Some(120);
        sleep(DAY).await;
        assert_eq!(kept.changes().await, (Some(120), false));
        // An older copy of the database was restored, in which there are new changes then.
        for changes in [90, 300] {
            *kept.database.1.lock() = Some(changes);
            sleep(DAY).await;
            assert_eq!(kept.changes().await, (Some(120), true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unreachable_bucket_is_tried_again() {
        let kept = Kept::start(true);
        sleep(AFTER_FAILURE).await;
        let requests = kept.requests();
        assert!(requests > 0);
        kept.store.is_away.store(false, Ordering::Relaxed);
        assert_eq!(kept.marker().await, None);
        sleep(AFTER_FAILURE).await;
        assert_eq!(kept.changes().await, (Some(100), false));
        assert_eq!(
            kept.requests(),
            requests + 4,
            "a read and a write of the keeper, and two reads of the test"
        );
    }
}
