//! Deletes many objects, with as few requests as the server accepts.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloud_http::TransportError;
use cloud_http::in_background;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use parking_lot::Mutex;

use crate::bucket::Bucket;
use crate::bulk::Deletion;
use crate::classify::refusal;
use crate::error::{Cause, Operation, StorageError};
use crate::retry::{Attempts, RetryPolicy};

/// Maximum number of simultaneous requests for single objects.
const CONNECTIONS: usize = 4;
/// Maximum number of retries of one request. Callers that must delete an object try again later.
const RETRIES: u32 = 2;
/// Time limit for one request and its retries.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Number of failed single requests, one after the other, after which the server is taken as unavailable.
const OUTAGE: usize = 8;

type Results = Vec<Result<(), StorageError>>;

impl Bucket {
    /// Deletes objects with bulk requests, or with single requests if the server does not support bulk
    /// requests. Returns a result for each name, in their order; a missing object is a success.
    ///
    /// Makes few retries, so that an unavailable server ends the call soon. The results of objects whose
    /// request failed for that reason are `transient`. Dropping the future ends its requests, which begin only
    /// when no other request waits for a connection.
    pub async fn delete_many(&self, names: &[String]) -> Vec<Result<(), StorageError>> {
        in_background(Box::pin(self.delete_all(names))).await
    }

    async fn delete_all(&self, names: &[String]) -> Results {
        let parsed: Vec<_> = names.iter().map(|name| self.path(Operation::Remove, name)).collect();
        // A server may answer only once for a name that it was given twice.
        let mut seen = HashSet::new();
        let paths: Vec<Path> = parsed.iter().flatten().filter(|path| seen.insert(*path)).cloned().collect();
        let bulk = self.options.bulk_delete.as_ref();
        let limit = bulk.map_or(paths.len().max(1), |bulk| self.learnt.bulk_support.size(bulk.limit()));
        let outage = Outage::default();
        let mut results = HashMap::new();
        for some in paths.chunks(limit) {
            results.extend(some.iter().zip(self.delete_some(some, &outage).await));
        }
        let result = |path| results.get(&path).cloned().unwrap_or_else(|| Err(self.unclear()));
        parsed.into_iter().map(|path| path.and_then(result)).collect()
    }

    /// Deletes objects that fit in one bulk request.
    async fn delete_some(&self, paths: &[Path], outage: &Outage) -> Results {
        let bulk = self.options.bulk_delete.as_ref().filter(|_| paths.len() > 1 && outage.error().is_none());
        let Some(bulk) = bulk.filter(|_| !self.learnt.bulk_support.replaces_next()) else {
            return self.delete_each(paths, outage).await;
        };
        let objects = format!("{} objects in {}", paths.len(), self.options.url);
        let mut attempts = Attempts::new(self.quick(), Operation::Remove, objects);
        let stalled = AtomicBool::new(false);
        let delete = async || {
            bulk.delete_many(paths).await.inspect_err(|error| {
                let stalls = matches!(TransportError::find(error), Some(TransportError::Stalled { .. }));
                stalled.store(stalls, Ordering::Relaxed);
            })
        };
        let result = attempts.run(delete).await;
        let times_out = |error: &StorageError| matches!(error.cause, Cause::TimedOut(_));
        let is_late = |error| times_out(error) || stalled.load(Ordering::Relaxed);
        self.learnt.bulk_support.note_pace(result.as_ref().is_err_and(is_late));
        let fails_always = self.learnt.bulk_support.fails_always(result.as_ref().err());
        match result {
            Ok((deletions, _)) if deletions.iter().any(|deletion| *deletion != Deletion::Unclear) => {
                self.complete(paths, deletions, outage).await
            }
            Ok(_) => self.try_singly(paths, self.unclear(), true, outage).await,
            Err(error) if fails_always || may_be_unsupported(&error) => {
                let is_unknown = fails_always || is_unknown_operation(&error);
                self.try_singly(paths, error, is_unknown, outage).await
            }
            Err(error) => {
                if is_outage(&error) {
                    outage.begin(&error);
                }
                paths.iter().map(|path| Err(self.failed(path, &error))).collect()
            }
        }
    }

    /// Converts the answer to a bulk request, and deletes the objects singly that it does not mention.
    async fn complete(&self, paths: &[Path], deletions: Vec<Deletion>, outage: &Outage) -> Results {
        let is_unclear =
            |deletion: Option<&Deletion>| deletion.is_none_or(|found| *found == Deletion::Unclear);
        let unclear = paths.iter().enumerate().filter(|(index, _)| is_unclear(deletions.get(*index)));
        let unclear: Vec<_> = unclear.map(|(_, path)| path.clone()).collect();
        let mut singly = self.delete_each(&unclear, outage).await.into_iter();
        let mut deletions = deletions.into_iter();
        let result = |path: &Path| match deletions.next() {
            Some(Deletion::Done) => Ok(()),
            Some(Deletion::Refused(answer)) => match refusal(self.object_url(path.as_ref()), answer) {
                error if error.cause == Cause::NotFound => Ok(()),
                error => Err(error),
            },
            Some(Deletion::Unclear) | None => singly.next().unwrap_or_else(|| Err(self.unclear())),
        };
        paths.iter().map(result).collect()
    }

    /// Deletes objects singly after a bulk request failed with `error`. If that works, single requests replace the next
    /// bulk requests, or all if the server does not know these. If it fails in the same way, the reason is another one.
    async fn try_singly(
        &self,
        paths: &[Path],
        error: StorageError,
        is_unknown: bool,
        outage: &Outage,
    ) -> Results {
        let (first, rest) = paths.split_at(CONNECTIONS.min(paths.len()));
        let mut results = self.delete_each(first, outage).await;
        let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        let is_about_all = |single: &&StorageError| is_same(single, &error) || is_outage(single);
        if failures.len() < results.len() {
            if self.learnt.bulk_support.replace(is_unknown) {
                let until = if is_unknown { "from now on" } else { "for a while" };
                tracing::warn!("{error}; deleting objects one by one {until}");
            }
        } else if let Some(single) = failures.first().filter(|_| failures.iter().all(is_about_all)) {
            outage.begin(single);
        }
        results.extend(self.delete_each(rest, outage).await);
        results
    }

    /// Deletes each object with a request of its own.
    async fn delete_each(&self, paths: &[Path], outage: &Outage) -> Results {
        let delete = |path| self.delete_unless(outage, path);
        stream::iter(paths.to_vec()).map(delete).buffered(CONNECTIONS).collect().await
    }

    async fn delete_unless(&self, outage: &Outage, path: Path) -> Result<(), StorageError> {
        if let Some(error) = outage.error() {
            return Err(self.failed(&path, &error));
        }
        let result = self.delete_path(&path, self.quick()).await.map_err(without_option);
        outage.note(&result);
        result
    }

    /// The error of one object, whose request failed for all.
    fn failed(&self, path: &Path, error: &StorageError) -> StorageError {
        StorageError { object: self.object_url(path.as_ref()), ..without_option(error.clone()) }
    }

    fn unclear(&self) -> StorageError {
        let cause = Cause::Other("the server's answer does not say which objects it has deleted".to_owned());
        StorageError {
            transient: true,
            ..StorageError::new(Operation::Remove, self.options.url.clone(), cause)
        }
    }

    fn quick(&self) -> RetryPolicy {
        let retry = self.retry();
        RetryPolicy {
            max_retries: retry.max_retries.min(RETRIES),
            deadline: retry.deadline.min(REQUEST_LIMIT),
            ..retry.patient()
        }
    }
}

/// Whether a bulk request that failed so may work as single requests. Servers use many codes for requests that
/// they do not know or do not permit.
fn may_be_unsupported(error: &StorageError) -> bool {
    error.cause == Cause::Foreign
        || !error.transient
            && matches!(error.cause, Cause::NotFound | Cause::Denied | Cause::Refused | Cause::Other(_))
}

/// Whether the server does not know bulk requests. Other refusals may end: permissions change.
fn is_unknown_operation(error: &StorageError) -> bool {
    let code = error.answer.as_ref().and_then(|answer| answer.code.as_deref());
    matches!(error.status(), Some(405 | 501)) || matches!(code, Some("NotImplemented" | "MethodNotAllowed"))
}

/// Whether a single request failed as the bulk request did.
fn is_same(single: &StorageError, bulk: &StorageError) -> bool {
    single.cause == bulk.cause && single.status() == bulk.status()
}

/// Replaces the message that names the option `RequestTimeout`, which is not the limit here.
fn without_option(error: StorageError) -> StorageError {
    let Cause::TimedOut(limit) = error.cause else { return error };
    let cause = Cause::Network(format!("the server did not answer within {} s", limit.as_secs_f32()));
    StorageError { cause, ..error }
}

/// The reason why the rest of the requests of one call would fail as well.
#[derive(Default)]
struct Outage(Mutex<(usize, Option<StorageError>)>);

impl Outage {
    fn begin(&self, error: &StorageError) {
        *self.0.lock() = (OUTAGE, Some(error.clone()));
    }

    /// Records the result of a single request.
    fn note(&self, result: &Result<(), StorageError>) {
        let mut state = self.0.lock();
        match result {
            Err(error) if is_outage(error) => *state = (state.0 + 1, Some(error.clone())),
            _ => *state = (0, None),
        }
    }

    fn error(&self) -> Option<StorageError> {
        let state = self.0.lock();
        state.1.clone().filter(|_| state.0 >= OUTAGE)
    }
}

/// Whether the failure is not about one object. Servers can fail with 500 for one object only.
fn is_outage(error: &StorageError) -> bool {
    match error.cause {
        Cause::BucketMissing | Cause::NoCredentials(_) | Cause::Certificate(_) | Cause::WrongScheme(_) => {
            true
        }
        _ => error.transient && error.status() != Some(500),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};
    use storage_layout::{Attachment, ContentType, Layout, RootPath, Structure};

    use super::*;
    use crate::bulk::BulkDelete;
    use crate::error::Answer;
    use crate::object_storage::ObjectStorage;
    use crate::options::BucketOptions;

    /// Deletes nothing, and answers as the function says.
    struct Server {
        answer: fn(usize) -> Vec<Deletion>,
        requests: Mutex<Vec<Vec<String>>>,
    }

    impl Server {
        fn count(&self) -> usize {
            self.requests.lock().len()
        }
    }

    #[async_trait]
    impl BulkDelete for Server {
        fn limit(&self) -> usize {
            3
        }

        async fn delete_many(&self, names: &[Path]) -> object_store::Result<Vec<Deletion>> {
            self.requests.lock().push(names.iter().map(ToString::to_string).collect());
            Ok((self.answer)(names.len()))
        }
    }

    /// Returns a bucket with the objects 0 to 9, of which `server` knows nothing.
    async fn bucket(answer: fn(usize) -> Vec<Deletion>) -> (Bucket, Arc<Server>, Arc<InMemory>) {
        let server = Arc::new(Server { answer, requests: Mutex::default() });
        let (bucket, store) = with(Arc::<Server>::clone(&server)).await;
        (bucket, server, store)
    }

    async fn with(bulk_delete: Arc<dyn BulkDelete>) -> (Bucket, Arc<InMemory>) {
        let store = Arc::new(InMemory::new());
        for number in 0..10 {
            store.put(&Path::from(number.to_string()), "content".into()).await.unwrap();
        }
        let bucket = Bucket::new(BucketOptions {
            bulk_delete: Some(bulk_delete),
            ..BucketOptions::new(Arc::<InMemory>::clone(&store), "memory://bucket")
        });
        (bucket, store)
    }

    async fn left(store: &InMemory) -> usize {
        store.list(None).count().await
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn requests_have_at_most_the_limit_and_each_name_once() {
        let (bucket, server, store) = bucket(|count| vec![Deletion::Done; count]).await;
        let results =
            bucket.delete_many(&names(&["0", "1", "0", "2", "3", "a//b", "1", "4", "5", "6"])).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
        assert_eq!(results[5].as_ref().unwrap_err().object, "memory://bucket/a//b");
        assert_eq!(*server.requests.lock(), [names(&["0", "1", "2"]), names(&["3", "4", "5"])]);
        assert_eq!(left(&store).await, 9, "the last name takes a single request");
        assert_eq!(bucket.delete_many(&[]).await, []);
        assert_eq!(server.count(), 2);
    }

    #[tokio::test]
    async fn unclear_objects_are_deleted_singly() {
        let answer = |_| vec![Deletion::Done, Deletion::Unclear];
        let (bucket, server, store) = bucket(answer).await;
        for _ in 0..2 {
            assert_eq!(bucket.delete_many(&names(&["0", "1", "2"])).await, [Ok(()), Ok(()), Ok(())]);
        }
        assert_eq!((server.count(), left(&store).await), (2, 8));
    }

    #[tokio::test]
    async fn answer_without_any_object_is_no_support() {
        for answer in [|count| vec![Deletion::Unclear; count], |_| Vec::new()] {
            let (bucket, server, store) = bucket(answer).await;
            for some in [["0", "1", "2"], ["3", "4", "missing"]] {
                assert_eq!(bucket.delete_many(&names(&some)).await, [Ok(()), Ok(()), Ok(())]);
            }
            assert_eq!((server.count(), left(&store).await), (1, 5));
        }
    }

    /// Counts the warnings of a test.
    #[derive(Default)]
    struct Warnings(AtomicUsize);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn event(&self, _event: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
        fn enter(&self, _span: &tracing::span::Id) {}
        fn exit(&self, _span: &tracing::span::Id) {}
    }

    #[tokio::test]
    async fn missing_support_is_one_warning() {
        let warnings = Arc::new(Warnings::default());
        let subscribed = tracing::subscriber::set_default(Arc::clone(&warnings));
        for (answer, expected) in
            [((|count| vec![Deletion::Done; count]) as fn(usize) -> _, 0), (|_| Vec::new(), 1)]
        {
            let (bucket, _, _) = bucket(answer).await;
            let all: Vec<_> = (0..10).map(|number| number.to_string()).collect();
            tokio::join!(bucket.delete_many(&all), bucket.delete_many(&all));
            bucket.delete_many(&all).await;
            assert_eq!(warnings.0.load(Ordering::Relaxed), expected);
        }
        drop(subscribed);
    }

    /// Answers requests for at most this many objects.
    struct SlowServer(AtomicUsize);

    #[async_trait]
    impl BulkDelete for SlowServer {
        fn limit(&self) -> usize {
            100
        }

        async fn delete_many(&self, names: &[Path]) -> object_store::Result<Vec<Deletion>> {
            if names.len() > self.0.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(vec![Deletion::Done; names.len()])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_server_gets_smaller_requests() {
        let server = Arc::new(SlowServer(AtomicUsize::new(30)));
        let (bucket, _) = with(Arc::<SlowServer>::clone(&server)).await;
        let all: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let delete = async || bucket.delete_many(&all).await;
        for _ in 0..2 {
            let results = delete().await;
            let error = results[99].as_ref().unwrap_err();
            assert!(error.transient && matches!(error.cause, Cause::Network(_)), "{error}");
            assert!(error.to_string().contains("memory://bucket/99: the server did not answer within 60 s"));
        }
        assert!(delete().await.iter().all(Result::is_ok));
        // The four requests of 25 objects were answered, so that the next ones are larger, which is too much.
        assert_eq!(delete().await.iter().filter(|result| result.is_ok()).count(), 0);
        server.0.store(100, Ordering::Relaxed);
        for size in [25, 50, 50, 100] {
            assert_eq!(bucket.learnt.bulk_support.size(100), size);
            assert!(delete().await.iter().all(Result::is_ok));
        }
    }

    #[tokio::test]
    async fn refusal_is_the_error_of_one_object() {
        let (bucket, _, _) = bucket(|_| {
            let refused = |status: u16, code: &str| {
                Deletion::Refused(Answer { status, code: Some(code.to_owned()), ..Answer::default() })
            };
            vec![refused(403, "AccessDenied"), refused(503, "SlowDown"), refused(404, "NoSuchKey")]
        })
        .await;
        let results = bucket.delete_many(&names(&["0", "1", "2"])).await;
        let denied = results[0].as_ref().unwrap_err();
        assert_eq!((&denied.cause, denied.transient), (&Cause::Denied, false));
        assert!(denied.to_string().contains("memory://bucket/0"), "{denied}");
        let busy = results[1].as_ref().unwrap_err();
        assert_eq!((&busy.cause, busy.transient), (&Cause::Busy, true));
        assert_eq!(results[2], Ok(()));
    }

    #[tokio::test]
    async fn attachment_is_removed_with_all_its_names() {
        let (bucket, server, _) = bucket(|count| match count {
            2 => vec![Deletion::Refused(Answer { status: 403, ..Answer::default() }), Deletion::Done],
            _ => vec![Deletion::Done; count],
        })
        .await;
        let layout = Layout { root: RootPath::new("").unwrap(), structure: Structure::Flat, encrypted: true };
        let storage = ObjectStorage::new(bucket, layout, true, true);
        let uuid = |number| format!("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1{number}");
        let attachments = [0, 1].map(|number| Attachment::new(&uuid(number), ContentType(3)).unwrap());
        let results = storage.remove_many(&attachments).await;
        assert_eq!(results[0], Ok(()));
        let name = uuid(1) + ".dcm.head";
        assert_eq!(results[1].as_ref().unwrap_err().object, format!("memory://bucket/{name}"));
        let requests = server.requests.lock().clone();
        assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(requests[2], [name, uuid(1) + ".unk"]);
        assert_eq!(storage.remove_many(&[]).await, []);
    }
}
