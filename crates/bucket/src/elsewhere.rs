//! Looks for a missing attachment under the names that other configurations give to its object.
//!
//! An administrator who switches encryption on, changes `RootPath`, … would otherwise take the archive for lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use storage_layout::{Attachment, Difference, Structure};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::object_storage::ObjectStorage;
use crate::retry::RetryPolicy;

/// Someone waits for the answer, so a slow server must not delay it for long.
const IMPATIENT: RetryPolicy = RetryPolicy {
    max_retries: 0,
    deadline: Duration::from_secs(3),
    patience: Duration::MAX,
    first_pause: Duration::ZERO,
    longest_pause: Duration::ZERO,
};
/// The time from one search to the next: many objects are usually missing for one reason.
const INTERVAL: Duration = Duration::from_secs(60);

/// Who misses an attachment. Searches for one do not delay those for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeker {
    /// A read of Orthanc.
    Read,
    /// A move.
    Move,
    /// A request for the locations of attachments.
    Locations,
    /// A verification.
    Verification,
}

/// The last search of each [`Seeker`].
pub(crate) type Searches = Arc<[Mutex<Option<Search>>; 4]>;

/// A search that has been made.
#[derive(Debug)]
pub(crate) struct Search {
    begun: Instant,
    attachment: Attachment,
    found: Option<Elsewhere>,
}

/// An object that another configuration would read.
#[derive(Debug, Clone)]
struct Elsewhere {
    url: String,
    remedy: String,
}

impl ObjectStorage {
    /// Says where an attachment is that was not found, if it is in the bucket under a name that another configuration
    /// gives it, and which option to change.
    ///
    /// Searches at most once a minute for each `seeker`; until then, the result for another attachment is returned.
    /// Requests are sent at once, and not repeated. A failure is taken as a missing object.
    pub async fn hint(&self, attachment: &Attachment, seeker: Seeker) -> Option<String> {
        let mut last = self.searches[seeker as usize].lock().await;
        let search = match last.take().filter(|search| search.begun.elapsed() < INTERVAL) {
            Some(search) => search,
            None => {
                let begun = Instant::now();
                Search { begun, attachment: *attachment, found: self.search(attachment).await }
            }
        };
        let whose = if search.attachment == *attachment { "" } else { " of another attachment" };
        let hint =
            search.found.as_ref().map(|Elsewhere { url, remedy }| format!("{url}{whose} exists: {remedy}"));
        *last = Some(search);
        hint
    }

    async fn search(&self, attachment: &Attachment) -> Option<Elsewhere> {
        let bucket = self.bucket.clone().with_retry(IMPATIENT);
        let own: Vec<_> = self.names(attachment).into_iter().map(|(name, _)| name).collect();
        let can_have_backslashes = bucket.options.backslash_names == Some(false);
        let names = self.layout.names_elsewhere(attachment).into_iter().filter(|(name, differences)| {
            !own.contains(name) && (can_have_backslashes || !differences.contains(&Difference::Backslashes))
        });
        let requests = names.map(|(name, differences)| {
            let bucket = bucket.clone();
            async move { bucket.head(&name).await.is_ok().then_some((name, differences)) }
        });
        let (name, differences) = join_all(requests).await.into_iter().flatten().next()?;
        let remedies: Vec<_> = differences.into_iter().map(remedy).collect();
        Some(Elsewhere { url: self.bucket.object_url(&name), remedy: remedies.join(", and ") })
    }
}

/// What to change, so that the object is read.
fn remedy(difference: Difference) -> &'static str {
    match difference {
        Difference::Clear => "it is not encrypted, so set \"ReadUnencrypted\": true in StorageEncryption",
        Difference::Encrypted => "it is encrypted, so configure StorageEncryption with its key",
        Difference::NoRoot => "it is outside RootPath, so correct RootPath",
        Difference::Structure(Structure::Flat) => "set \"StorageStructure\": \"flat\"",
        Difference::Structure(Structure::Legacy) => "set \"StorageStructure\": \"legacy\"",
        Difference::Unknown => "set \"EnableLegacyUnknownFiles\": true",
        Difference::Backslashes => "set \"EnableLegacyBackslashNames\": true",
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use storage_layout::{ContentType, Layout, RootPath};

    use super::*;
    use crate::bucket::Bucket;
    use crate::options::BucketOptions;

    const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

    fn attachment(content_type: ContentType) -> Attachment {
        Attachment::new(UUID, content_type).unwrap()
    }

    fn objects(store: &Arc<InMemory>, layout: Layout) -> ObjectStorage {
        let options = BucketOptions {
            backslash_names: Some(false),
            ..BucketOptions::new(Arc::clone(store), "memory://bucket")
        };
        ObjectStorage::new(Bucket::new(options), layout, false, false)
    }

    fn layout(root: &str, structure: Structure, encrypted: bool) -> Layout {
        Layout { root: RootPath::new(root).unwrap(), structure, encrypted }
    }

    #[tokio::test]
    async fn hidden_object_is_named_with_its_option() {
        let (flat, legacy) = (Structure::Flat, Structure::Legacy);
        for (was, is, options) in [
            (layout("", flat, false), layout("", flat, true), vec!["ReadUnencrypted"]),
            (layout("", flat, true), layout("", flat, false), vec!["StorageEncryption"]),
            (layout("", flat, false), layout("a/b", flat, false), vec!["RootPath"]),
            (layout("", flat, false), layout("", legacy, false), vec!["\"flat\""]),
            (layout("a", legacy, true), layout("a", flat, true), vec!["\"legacy\""]),
            (layout("a", flat, false), layout("a", legacy, true), vec!["ReadUnencrypted", "\"flat\""]),
            (layout("", legacy, true), layout("a", flat, true), vec!["\"legacy\"", "RootPath"]),
        ] {
            let store = Arc::new(InMemory::new());
            let attachment = attachment(ContentType::DICOM);
            let name = was.object_name(&attachment);
            store.put(&Path::parse(&name).unwrap(), "x".into()).await.unwrap();
            let hint = objects(&store, is).hint(&attachment, Seeker::Read).await.unwrap();
            assert!(hint.starts_with(&format!("memory://bucket/{name} exists: ")), "{hint}");
            assert!(options.iter().all(|option| hint.contains(option)), "{options:?} {hint}");
            assert_eq!(
                hint.matches(" set \"").count()
                    + hint.matches(" correct ").count()
                    + hint.matches(" configure ").count(),
                options.len(),
                "{hint}"
            );
        }
    }

    #[tokio::test]
    async fn names_of_old_releases_are_searched_for() {
        let store = Arc::new(InMemory::new());
        for (name, content_type, option) in [
            (format!("{UUID}.unk"), ContentType::DICOM_UNTIL_PIXEL_DATA, "EnableLegacyUnknownFiles"),
            (format!("a\\{UUID}.dcm"), ContentType::DICOM, "EnableLegacyBackslashNames"),
        ] {
            let root = if name.contains('\\') { "a" } else { "" };
            store.put(&Path::parse(&name).unwrap(), "x".into()).await.unwrap();
            let objects = objects(&store, layout(root, Structure::Flat, false));
            let hint = objects.hint(&attachment(content_type), Seeker::Read).await.unwrap();
            assert!(hint.contains(option), "{hint}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn search_is_made_once_a_minute() {
        let store = Arc::new(InMemory::new());
        let objects = objects(&store, layout("", Structure::Flat, true));
        let first = attachment(ContentType::DICOM);
        let other = Attachment::new("00000000-0000-4000-8000-000000000000", ContentType::DICOM).unwrap();
        assert_eq!(objects.hint(&first, Seeker::Read).await, None);
        store.put(&Path::parse(format!("{UUID}.dcm")).unwrap(), "x".into()).await.unwrap();
        assert_eq!(objects.hint(&first, Seeker::Read).await, None, "the last search has found nothing");
        // Another seeker has its own searches, and clients of the bucket share them.
        let same = objects.clone().with_retry(RetryPolicy::default());
        let found = same.hint(&first, Seeker::Locations).await.unwrap();
        store.delete(&Path::parse(format!("{UUID}.dcm")).unwrap()).await.unwrap();
        assert_eq!(objects.hint(&first, Seeker::Locations).await.as_deref(), Some(&*found));
        let hint = objects.hint(&other, Seeker::Locations).await.unwrap();
        assert!(hint.contains(UUID) && hint.contains("of another attachment"), "{hint}");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(objects.hint(&other, Seeker::Locations).await, None);
    }
}
