//! Lists the objects of an Orthanc in the bucket, page by page.

use std::fmt;
use std::vec;

use async_trait::async_trait;
use cloud_http::{ListPage, ListRequest, ListedObject, NextPage, in_background};
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use storage_layout::NamePrefix;

use crate::bucket::Bucket;
use crate::error::{Cause, Operation, StorageError, found};
use crate::object_storage::ObjectStorage;

/// Number of objects in a page. No cloud returns more than 1,000 (S3, Google).
pub(crate) const PAGE: usize = 1000;

/// A client that can list objects.
#[async_trait]
pub trait ListObjects: Send + Sync {
    /// Sends one request for a page. Objects with the same prefix are in some fixed order.
    ///
    /// # Errors
    ///
    /// If the request fails, or the answer is not a complete page.
    async fn list(&self, request: &ListRequest) -> object_store::Result<ListPage>;
}

impl fmt::Debug for dyn ListObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListObjects")
    }
}

/// A list of objects, of which only one page is in memory.
#[derive(Debug)]
pub struct Listing {
    bucket: Bucket,
    /// What is left to list after the present prefix.
    prefixes: vec::IntoIter<NamePrefix>,
    /// The request for the next page.
    request: Option<ListRequest>,
    /// The beginnings of the names that are left out: of the plugin's own objects, and of those that were listed before.
    without: Vec<String>,
}

impl Listing {
    fn new(bucket: Bucket, prefixes: Vec<NamePrefix>, without: Vec<String>) -> Self {
        let mut listing = Self { bucket, prefixes: prefixes.into_iter(), request: None, without };
        listing.next_prefix();
        listing
    }

    fn next_prefix(&mut self) {
        let limit = self.bucket.options.list_page;
        self.request = self.prefixes.next().map(|NamePrefix { prefix, folders }| ListRequest {
            prefix,
            folders,
            next: None,
            limit,
        });
    }

    /// Returns the next page, which may be empty; `None` at the end. The request waits while others need the connections.
    /// After an error, another call asks for the same page again.
    ///
    /// # Errors
    ///
    /// If the server does not return the page within the limits of the retry policy.
    pub async fn next_page(&mut self) -> Result<Option<ListPage>, StorageError> {
        let Some(request) = &self.request else { return Ok(None) };
        let mut page = self.bucket.list_page(request).await?;
        let mut finished = false;
        match page.next.take() {
            None => finished = true,
            next if next == request.next => {
                let cause = Cause::Other("the server returns the same page again and again".to_owned());
                let object = self.bucket.object_url(&request.prefix);
                return Err(StorageError::new(Operation::List, object, cause));
            }
            next => self.request = Some(ListRequest { next, ..request.clone() }),
        }
        let is_left_out =
            |name: &str| self.without.iter().any(|beginning| name.starts_with(beginning.as_str()));
        page.objects.retain(|object| !is_left_out(&object.name));
        if finished {
            self.without.extend(self.request.take().map(|request| request.prefix));
            self.next_prefix();
        }
        Ok(Some(page))
    }
}

impl ObjectStorage {
    /// Lists the objects below the root path and all others whose names may be those of attachments. The plugin's own
    /// objects are left out.
    pub fn list(&self) -> Listing {
        let prefixes = self.object_names().prefixes();
        Listing::new(self.bucket.clone(), prefixes, vec![self.own_name("")])
    }

    /// Returns the name of an attachment below the root path; `None` if it is not among the first objects that the server
    /// lists, in one page. Other objects may have UIDs in their names.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn any_attachment(&self) -> Result<Option<String>, StorageError> {
        let prefix = self.layout.root.join("");
        let request = ListRequest { prefix, folders: true, next: None, limit: self.bucket.options.list_page };
        let page = self.bucket.list_page(&request).await?;
        let names = self.object_names();
        let mut listed = page.objects.into_iter().map(|object| object.name);
        Ok(listed.find(|name| names.attachment_of(name).is_some()))
    }

    /// Lists the plugin's own objects in `folder`.
    pub(crate) fn list_own(&self, folder: &str) -> Listing {
        let prefix = NamePrefix { prefix: self.own_name(&format!("{folder}/")), folders: true };
        Listing::new(self.bucket.clone(), vec![prefix], Vec::new())
    }

    /// Returns what a list says about the object `name` now; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn inspect(&self, name: &str) -> Result<Option<ListedObject>, StorageError> {
        let path = self.bucket.path(Operation::Read, name)?;
        let mut attempts = self.bucket.attempts(Operation::Read, name);
        let head = attempts.run(|| self.bucket.store().head(&path));
        let object = found(in_background(head).await)?.map(|(object, _)| object);
        Ok(object.map(|object| ListedObject {
            name: name.to_owned(),
            size: object.size,
            modified: object.last_modified.into(),
        }))
    }

    /// Deletes objects by their names; see [`Bucket::delete_many`].
    pub async fn delete_objects(&self, names: &[String]) -> Vec<Result<(), StorageError>> {
        self.bucket.delete_many(names).await
    }
}

impl Bucket {
    async fn list_page(&self, request: &ListRequest) -> Result<ListPage, StorageError> {
        let mut attempts = self.attempts(Operation::List, &request.prefix);
        let page = match &self.options.list {
            Some(list) => in_background(attempts.run(|| list.list(request))).await,
            None => attempts.run(|| self.list_store(request)).await,
        };
        page.map(|(page, _)| page)
    }

    /// Lists a store in memory, which returns names in order.
    async fn list_store(&self, request: &ListRequest) -> object_store::Result<ListPage> {
        let after = match &request.next {
            Some(NextPage::After(name) | NextPage::Token(name)) => Path::parse(name)?,
            None => Path::default(),
        };
        let mut stream = self.store().list_with_offset(None, &after);
        let mut page = ListPage::default();
        let mut last = None;
        let mut seen = 0;
        while seen < request.limit {
            let Some(object) = stream.try_next().await? else { return Ok(page) };
            seen += 1;
            let name = String::from(object.location);
            let is_listed = name
                .strip_prefix(request.prefix.as_str())
                .is_some_and(|rest| request.folders || !rest.contains('/'));
            if is_listed {
                let modified = object.last_modified.into();
                page.objects.push(ListedObject { name: name.clone(), size: object.size, modified });
            }
            last = Some(name);
        }
        page.next = last.map(NextPage::After);
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::memory::InMemory;
    use storage_layout::{Layout, RootPath};

    use super::*;
    use crate::content::Payload;
    use crate::options::BucketOptions;

    async fn objects(names: &[&str], page: usize) -> ObjectStorage {
        let options = BucketOptions {
            backslash_names: Some(false),
            list_page: page,
            ..BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket")
        };
        let layout = Layout { root: RootPath::new("a/b").unwrap(), ..Layout::default() };
        let objects = ObjectStorage::new(Bucket::new(options), layout, false, false).with_key_vault_blobs();
        for name in names {
            objects.bucket.put(name, Payload::Owned("x".into())).await.unwrap();
        }
        objects
    }

    #[tokio::test]
    async fn each_object_is_in_one_page() {
        let below = ["a/b/c", "a/b/c/d", "a/b/~# %é", r"a/b\x", r"a\b\y", "top"];
        let others = ["a/bc", "a/c", "a/b/.orthanc-object-storage/key-1"];
        for page in [1, 2, 1000] {
            let objects = objects(&[&below[..], &others].concat(), page).await;
            let mut listing = objects.list();
            let mut names = Vec::new();
            while let Some(page) = listing.next_page().await.unwrap() {
                names.extend(page.objects.into_iter().map(|object| (object.name, object.size)));
            }
            names.sort();
            // Blobs of the earlier plugin for Azure Key Vault are in the root of the container.
            let mut expected: Vec<_> = [&below[..], &[]].concat();
            expected.sort_unstable();
            assert_eq!(
                names,
                expected.iter().map(|name| ((*name).to_owned(), 1)).collect::<Vec<_>>(),
                "{page}"
            );
        }
    }

    /// Fails each second time.
    struct Flaky(AtomicUsize, fn(usize) -> Option<NextPage>);

    #[async_trait]
    impl ListObjects for Flaky {
        async fn list(&self, request: &ListRequest) -> object_store::Result<ListPage> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(2) {
                return Err(object_store::Error::NotImplemented {
                    operation: "list".to_owned(),
                    implementer: "test".to_owned(),
                });
            }
            let name = format!("{:?}", request.next);
            let object = ListedObject { name, size: 1, modified: std::time::UNIX_EPOCH };
            Ok(ListPage { objects: vec![object], next: (self.1)(number), server_time: None })
        }
    }

    fn flaky(next: fn(usize) -> Option<NextPage>) -> Listing {
        let options = BucketOptions {
            list: Some(Arc::new(Flaky(AtomicUsize::new(0), next))),
            ..BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket")
        };
        ObjectStorage::new(Bucket::new(options), Layout::default(), false, false).list()
    }

    #[tokio::test]
    async fn any_attachment_is_below_the_root_path() {
        const UUID: &str = "7f3b1a52-6a0e-4c1b-9d2f-0123456789ab.dcm";
        let foreign = ["a/b/.orthanc-object-storage/key-1", "a/b/1.2/1.2.3/1.2.3.4.dcm"];
        let [outside, inside] = ["a", "a/b"].map(|root| format!("{root}/{UUID}"));
        let found = async |name: &str, page| {
            Box::pin(objects(&[&foreign[..], &[name]].concat(), page)).await.any_attachment().await.unwrap()
        };
        assert_eq!(found(&outside, 1000).await, None);
        assert_eq!(found(&inside, 1000).await.as_deref(), Some(inside.as_str()));
        // With one request.
        assert_eq!(found(&inside, 2).await, None);
    }

    #[tokio::test]
    async fn list_continues_where_a_page_failed() {
        let mut listing = flaky(|number| (number < 4).then(|| NextPage::Token(number.to_string())));
        let mut names = Vec::new();
        let mut failures = 0;
        loop {
            match listing.next_page().await {
                Ok(Some(page)) => names.extend(page.objects.into_iter().map(|object| object.name)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.operation, Operation::List);
                    failures += 1;
                }
            }
        }
        assert_eq!(names, ["None", "Some(Token(\"1\"))", "Some(Token(\"3\"))"]);
        assert_eq!(failures, 3);
    }

    #[tokio::test]
    async fn list_that_does_not_advance_is_an_error() {
        let mut listing = flaky(|_| Some(NextPage::Token("same".to_owned())));
        assert!(listing.next_page().await.is_err());
        assert!(listing.next_page().await.unwrap().is_some());
        assert!(listing.next_page().await.is_err());
        let error = listing.next_page().await.unwrap_err();
        assert!(error.to_string().contains("the same page again"), "{error}");
    }
}
