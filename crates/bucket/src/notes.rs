//! Notes in folders, which are listed and replaced.

use bytes::Bytes;
use object_store::PutOptions;

use crate::error::{Cause, Operation, StorageError};
use crate::object_storage::ObjectStorage;
use crate::retry::RetryPolicy;

impl ObjectStorage {
    /// Writes a note, in place of the one that there may be.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn replace_note(
        &self,
        note: &str,
        content: Bytes,
        policy: RetryPolicy,
    ) -> Result<(), StorageError> {
        self.bucket.put_once(&self.own_name(note), content, PutOptions::default(), policy).await
    }

    /// Returns the names of the notes in `folder`, without the folder.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses, or there are more than `most` notes.
    pub async fn notes(&self, folder: &str, most: usize) -> Result<Vec<String>, StorageError> {
        let prefix = self.own_name(&format!("{folder}/"));
        let mut listing = self.list_own(folder);
        let mut names = Vec::new();
        while let Some(page) = listing.next_page().await? {
            let in_folder = page.objects.iter().filter_map(|object| object.name.strip_prefix(&prefix));
            names.extend(in_folder.map(str::to_owned));
            if names.len() > most {
                let cause = Cause::Other(format!("there are more than {most}"));
                return Err(StorageError::new(Operation::List, self.bucket.object_url(&prefix), cause));
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use storage_layout::{Layout, RootPath};

    use super::*;
    use crate::bucket::Bucket;
    use crate::options::BucketOptions;

    #[tokio::test]
    async fn notes_are_listed_and_replaced() {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let layout = Layout { root: RootPath::new("a/b").unwrap(), ..Layout::default() };
        let objects = ObjectStorage::new(bucket, layout, false, false);
        let policy = RetryPolicy::default();
        for (note, content) in [("f/one", "1"), ("f/two", "2"), ("f/one", "3"), ("g/x", "4"), ("key-1", "5")]
        {
            objects.replace_note(note, content.into(), policy).await.unwrap();
        }
        assert_eq!(objects.notes("f", 2).await.unwrap(), ["one", "two"]);
        assert!(objects.notes("f", 1).await.is_err());
        assert_eq!(objects.notes("none", 1).await.unwrap(), Vec::<String>::new());
        assert_eq!(objects.read_note("f/one", policy).await.unwrap().as_deref(), Some(&b"3"[..]));
    }
}
