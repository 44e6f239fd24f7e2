mod fake;

use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;

use futures_util::future::{join_all, poll_fn, ready};

use self::fake::Fake;
use super::*;
use crate::{A2Header, A2Opener, DecryptError, Encryptor, KeyRing, decrypt, encrypt_a2_with_file_key};

const UUID: &str = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";

#[test]
fn each_wrapped_key_is_judged_once() {
    let service = Fake::new("one");
    let keys = FileKeys::new(Some(Arc::clone(&service) as _), [], FileKeyOptions { decay: 10, pool: 10 });
    let judge = |service, key, wrapped| block(keys.is_current(&ServiceWrap { service, key, wrapped }));
    service.failures.store(1, Ordering::Relaxed);
    assert!(judge(Service::AzureKeyVault, "one", b"old").unwrap_err().is_transient());
    for _ in 0..2 {
        assert_eq!(judge(Service::AzureKeyVault, "one", b"old"), Ok(false));
        assert_eq!(judge(Service::AzureKeyVault, "one", b"new"), Ok(true));
        assert_eq!(judge(Service::AzureKeyVault, "another", b"new"), Ok(false));
        assert_eq!(judge(Service::AwsKms, "", b"new"), Ok(false));
    }
    assert_eq!(service.judged.load(Ordering::Relaxed), 3);
    let previous = FileKeys::new(None, [service as _], FileKeyOptions { decay: 10, pool: 10 });
    let wrap = ServiceWrap { service: Service::AzureKeyVault, key: "one", wrapped: b"new" };
    assert_eq!(block(previous.is_current(&wrap)), Ok(false), "it only unwraps");
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn keys(service: &Arc<Fake>, decay: u64, pool: usize) -> Arc<FileKeys> {
    FileKeys::new(Some(Arc::clone(service) as _), [], FileKeyOptions { decay, pool })
}

fn seal(keys: &Arc<FileKeys>) -> Vec<u8> {
    let key = block(keys.next()).unwrap();
    encrypt_a2_with_file_key(&key.wrap(), key.file_key(), UUID, b"content").unwrap()
}

fn header(envelope: &[u8]) -> A2Header {
    A2Header::parse(envelope).unwrap().unwrap()
}

fn wrap(header: &A2Header) -> ServiceWrap<'_> {
    match header.wrap() {
        KeyWrap::Service(wrap) => wrap,
        other => panic!("{other:?}"),
    }
}

fn open(keys: &Arc<FileKeys>, envelope: &[u8]) -> Result<Vec<u8>, KeyServiceError> {
    let ring = KeyRing::of_service(Arc::clone(keys), []).unwrap();
    let _key = block(keys.unwrap(&wrap(&header(envelope))))?;
    Ok(decrypt(&ring, UUID, envelope).unwrap())
}

#[test]
fn pieces_are_encrypted_with_a_wrapped_key() {
    let keys = keys(&Fake::new("one"), 10, 10);
    let key = block(keys.next()).unwrap();
    let mut envelope = Vec::new();
    let mut encryptor = Encryptor::with_file_key(&key.wrap(), key.file_key(), UUID, &mut envelope).unwrap();
    for piece in [&b"con"[..], b"tent"] {
        encryptor.push(piece, &mut envelope).unwrap();
    }
    encryptor.finish(&mut envelope).unwrap();
    assert_eq!(open(&keys, &envelope), Ok(b"content".to_vec()));
}

#[test]
fn envelopes_with_keys_of_their_own_do_not_wait_for_each_other() {
    for (decay, pool) in [(1, 10), (1000, 0)] {
        let service = Fake::new("key");
        let keys = keys(&service, decay, pool);
        let sealed = block(join_all((0..8).map(|_| keys.next())));
        assert!(sealed.iter().all(Result::is_ok));
        assert_eq!(service.most.load(Ordering::Relaxed), 8, "{decay} {pool}");
        assert_eq!(service.wraps.load(Ordering::Relaxed), 8);
    }
}

#[test]
fn service_is_asked_once_for_each_key_however_many_threads_there_are() {
    for (decay, expected) in [(1, 400), (10, 40), (10_000, 1)] {
        let service = Fake::new("k");
        let keys = keys(&service, decay, 10);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(block(keys.next()).unwrap())));
            }
        });
        assert_eq!(service.wraps.load(Ordering::Relaxed), expected, "{decay}");
    }
}

/// An answer may arrive just after a thread has found no key.
#[test]
fn no_key_is_replaced_before_its_time() {
    for (decay, expected) in [(1, 80_000), (2, 40_000)] {
        let service = Arc::new(Fake { key: "k", is_quick: true, ..Fake::default() });
        let keys = keys(&service, decay, 10);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    block(async {
                        for _ in 0..10_000 {
                            keys.next().await.unwrap();
                        }
                    });
                });
            }
        });
        assert_eq!(service.wraps.load(Ordering::Relaxed), expected, "{decay}");
    }
}

#[test]
fn key_that_many_need_is_unwrapped_once() {
    let service = Fake::new("k");
    let envelope = seal(&keys(&service, 1, 10));
    for pool in [0, 10] {
        service.unwraps.store(0, Ordering::Relaxed);
        let keys = keys(&service, 1, pool);
        let header = header(&envelope);
        let all = block(join_all((0..20).map(|_| async { keys.unwrap(&wrap(&header)).await })));
        let all: Vec<_> = all.into_iter().map(|key| key.unwrap()).collect();
        assert_eq!(service.unwraps.load(Ordering::Relaxed), 1);
        assert!(all.iter().all(|key| Arc::ptr_eq(key, &all[0])));
    }
}

#[test]
fn envelopes_open_with_their_keys_and_without_only_fail() {
    let service = Fake::new("k");
    let envelope = seal(&keys(&service, 1, 10));
    let keys = keys(&service, 1, 10);
    let ring = KeyRing::of_service(Arc::clone(&keys), []).unwrap();
    let error = A2Opener::unwrap(&ring, header(&envelope), UUID).unwrap_err();
    assert!(matches!(error, DecryptError::NotUnwrapped { ref key, .. } if key == "k"), "{error}");
    assert_eq!(open(&keys, &envelope).unwrap(), b"content");
    assert!(A2Opener::unwrap(&ring, header(&envelope), UUID).is_ok());
}

#[test]
fn least_recently_used_keys_leave_the_pool_and_are_wiped() {
    let service = Fake::new("k");
    let envelopes: Vec<_> = (0..4).map(|_| seal(&keys(&service, 1, 10))).collect();
    let keys = keys(&service, 1, 2);
    let unwraps = |index: usize| {
        let before = service.unwraps.load(Ordering::Relaxed);
        open(&keys, &envelopes[index]).unwrap();
        service.unwraps.load(Ordering::Relaxed) - before
    };
    assert_eq!([0, 1, 0, 2, 0, 1, 1].map(unwraps), [1, 1, 0, 1, 0, 1, 0]);
    let key = block(keys.unwrap(&wrap(&header(&envelopes[3])))).unwrap();
    let weak = Arc::downgrade(&key);
    drop(key);
    assert!(weak.upgrade().is_some(), "kept");
    assert_eq!([0, 1].map(unwraps), [1, 1]);
    assert!(weak.upgrade().is_none(), "wiped");
}

#[test]
fn without_a_pool_no_key_outlives_its_use() {
    let service = Fake::new("k");
    let keys = keys(&service, 1000, 0);
    assert!(!keys.keeps_keys());
    let key = block(keys.next()).unwrap();
    let envelope = encrypt_a2_with_file_key(&key.wrap(), key.file_key(), UUID, b"content").unwrap();
    let written = Arc::downgrade(&key);
    assert!(keys.known(&wrap(&header(&envelope))).is_some(), "used");
    drop(key);
    assert!(written.upgrade().is_none());
    assert!(keys.try_next().is_none());
    let read = block(keys.unwrap(&wrap(&header(&envelope)))).unwrap();
    let weak = Arc::downgrade(&read);
    drop(read);
    assert!(weak.upgrade().is_none());
    assert!(keys.known(&wrap(&header(&envelope))).is_none());
}

#[test]
fn failure_is_shared_and_the_next_request_asks_again() {
    let service = Fake::new("k");
    let keys = keys(&service, 1000, 10);
    service.failures.store(1, Ordering::Relaxed);
    let all = block(join_all((0..20).map(|_| keys.next())));
    assert!(all.iter().all(|key| key.as_ref().is_err_and(KeyServiceError::is_transient)));
    assert!(block(keys.next()).is_ok());
    let envelope = seal(&keys);

    let other = FileKeys::new(None, [Arc::clone(&service) as _], FileKeyOptions { decay: 1, pool: 10 });
    service.failures.store(1, Ordering::Relaxed);
    let header = header(&envelope);
    let all = block(join_all((0..20).map(|_| async { other.unwrap(&wrap(&header)).await })));
    assert!(all.iter().all(|key| key.as_ref().is_err_and(KeyServiceError::is_transient)));
    assert_eq!(open(&other, &envelope).unwrap(), b"content");
    assert!(!block(other.next()).unwrap_err().is_transient(), "nothing wraps");
}

#[test]
fn key_can_be_prepared() {
    for (pool, kept) in [(10, true), (0, false)] {
        let service = Fake::new("k");
        let keys = keys(&service, 3, pool);
        service.failures.store(1, Ordering::Relaxed);
        assert!(block(keys.prepare()).unwrap_err().is_transient());
        block(keys.prepare()).unwrap();
        assert_eq!(keys.try_next().is_some(), kept);
        let rest = std::iter::from_fn(|| keys.try_next()).count();
        assert_eq!(rest, if kept { 2 } else { 0 }, "it did not count as used");
    }
}

#[test]
fn old_key_is_replaced_and_used_on_while_the_service_is_silent() {
    let service = Fake::new("k");
    let keys = keys(&service, 10, 10);
    let make_old = || {
        let mut state = keys.state.lock();
        state.current.as_mut().unwrap().replace = Instant::now();
    };
    let first = block(keys.next()).unwrap();
    make_old();
    service.failures.store(1, Ordering::Relaxed);
    assert!(Arc::ptr_eq(&block(keys.next()).unwrap(), &first));
    assert_eq!(service.failures.load(Ordering::Relaxed), 0, "was asked");
    // Not for each object.
    service.failures.store(1, Ordering::Relaxed);
    assert!(Arc::ptr_eq(&block(keys.next()).unwrap(), &first));
    assert_eq!(service.failures.load(Ordering::Relaxed), 1);
    make_old();
    service.failures.store(0, Ordering::Relaxed);
    let second = block(keys.next()).unwrap();
    assert!(!Arc::ptr_eq(&second, &first));
    let life = keys.state.lock().current.as_ref().unwrap().replace.duration_since(Instant::now());
    assert!(Duration::from_mins(49) < life && life <= Duration::from_mins(50), "{life:?}");

    // Only the pool keeps the old one.
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_some());
    keys.state.lock().kept.as_mut().unwrap().pop_lru();
    assert!(weak.upgrade().is_none(), "wiped");

    // No key is used more often than `KeyDecayCount` says.
    service.failures.store(usize::MAX, Ordering::Relaxed);
    let uses = std::iter::from_fn(|| block(keys.next()).ok()).count();
    assert_eq!(uses, 9);
}

#[test]
fn next_key_is_wrapped_before_it_is_needed() {
    let service = Fake::new("k");
    let keys = keys(&service, 100, 10);
    let first = block(keys.next()).unwrap();
    let take = |count| (0..count).filter(|_| keys.try_next().is_some()).count();
    assert_eq!(take(88), 88);
    assert!(!keys.wants_spare(), "11 are left");
    assert_eq!(take(1), 1);
    // A failure is not repeated at once.
    service.failures.store(1, Ordering::Relaxed);
    assert!(keys.wants_spare());
    block(keys.wrap_spare());
    assert!(!keys.wants_spare());
    assert_eq!(service.wraps.load(Ordering::Relaxed), 1);

    keys.state.lock().ask_for_spare = Instant::now();
    assert!(keys.wants_spare());
    assert!(!keys.wants_spare(), "another thread has been asked to");
    block(keys.wrap_spare());
    assert!(!keys.wants_spare());
    assert_eq!(take(10), 10);
    assert!(!keys.wants_spare(), "100 are left");
    assert_eq!(take(89), 89);
    let second = keys.try_next().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // The time of a failure long ago does not count.
    assert!(keys.wants_spare());
    block(keys.wrap_spare());
    assert_eq!(take(200), 110);
    assert_eq!(service.wraps.load(Ordering::Relaxed), 3);
}

#[test]
fn old_spare_key_is_replaced_too() {
    let service = Fake::new("k");
    let keys = keys(&service, 100, 10);
    let first = block(keys.next()).unwrap();
    block(keys.wrap_spare());
    // A fresh one follows an old one.
    keys.state.lock().current.as_mut().unwrap().replace = Instant::now();
    let second = keys.try_next().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    block(keys.wrap_spare());
    let age = |key: &mut Option<Current>| key.as_mut().unwrap().replace = Instant::now();
    age(&mut keys.state.lock().current);
    age(&mut keys.state.lock().spare);
    assert!(keys.try_next().is_none());
    // Both may be used while the service is silent.
    service.failures.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(std::iter::from_fn(|| block(keys.next()).ok()).count(), 199);
    service.failures.store(0, Ordering::Relaxed);
    assert!(block(keys.next()).is_ok());
    assert_eq!(service.wraps.load(Ordering::Relaxed), 4);

    // An old spare key, which the new key has not used up, does not prevent another one.
    block(keys.wrap_spare());
    age(&mut keys.state.lock().spare);
    keys.state.lock().current.as_mut().unwrap().left = 10;
    assert!(keys.wants_spare());
}

#[test]
fn panic_of_a_client_is_an_error() {
    #[derive(Debug)]
    struct Panics;
    impl KeyService for Panics {
        fn service(&self) -> Service {
            Service::AwsKms
        }
        fn has_key(&self, _: &str) -> bool {
            true
        }
        fn wrap<'a>(&'a self, _: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
            async { panic!("wrap") }.boxed()
        }
        fn unwrap<'a>(&'a self, _: &'a str, _: &'a [u8]) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
            async { panic!("unwrap") }.boxed()
        }
    }
    let keys = FileKeys::new(Some(Arc::new(Panics)), [], FileKeyOptions { decay: 10, pool: 10 });
    let wrap = ServiceWrap { service: Service::AwsKms, key: "", wrapped: b"wrapped" };
    for _ in 0..2 {
        assert!(block(keys.next()).unwrap_err().is_transient());
        assert!(block(keys.unwrap(&wrap)).unwrap_err().is_transient());
    }
}

#[test]
fn few_envelopes_need_no_spare_key() {
    for (decay, pool) in [(99, 10), (1000, 0), (1, 10)] {
        let service = Fake::new("k");
        let keys = keys(&service, decay, pool);
        for _ in 0..200 {
            block(keys.next()).unwrap();
            assert!(!keys.wants_spare());
        }
    }
}

#[test]
fn only_services_that_have_the_key_are_asked() {
    let [first, second, third] = ["a", "b", "b"].map(Fake::new);
    let envelope = seal(&keys(&third, 1, 10));
    let options = FileKeyOptions { decay: 1, pool: 10 };
    let of = |services: &[&Arc<Fake>]| {
        let services: Vec<_> =
            services.iter().map(|service| Arc::clone(service) as Arc<dyn KeyService>).collect();
        FileKeys::new(None, services, options)
    };
    let error = open(&of(&[&first]), &envelope).unwrap_err();
    assert_eq!(error.to_string().split(',').next(), Some("the file key is wrapped by Azure Key Vault (b)"));
    assert_eq!(first.unwraps.load(Ordering::Relaxed), 0, "an altered header must not send keys elsewhere");

    // Another may have it, and the failure of one that does not answer says more.
    let refusing = Arc::new(Fake { key: "b", refuses: true, ..Fake::default() });
    assert_eq!(open(&of(&[&first, &refusing, &second]), &envelope).unwrap(), b"content");
    second.failures.store(2, Ordering::Relaxed);
    for services in [[&refusing, &second], [&second, &refusing]] {
        assert!(open(&of(&services), &envelope).unwrap_err().is_transient());
    }
}

#[test]
fn wrapped_key_that_does_not_fit_is_refused() {
    #[derive(Debug)]
    struct Bad(Wrapped);
    impl KeyService for Bad {
        fn service(&self) -> Service {
            Service::AwsKms
        }
        fn has_key(&self, _: &str) -> bool {
            true
        }
        fn wrap<'a>(&'a self, _: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
            ready(Ok(self.0.clone())).boxed()
        }
        fn unwrap<'a>(&'a self, _: &'a str, _: &'a [u8]) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
            ready(Err(KeyServiceError::Unusable(Service::AwsKms))).boxed()
        }
    }
    for len in [0, 65_536] {
        let bad = Bad(Wrapped { key: String::new(), wrapped: vec![1; len] });
        let keys = FileKeys::new(Some(Arc::new(bad)), [], FileKeyOptions { decay: 1, pool: 1 });
        assert_eq!(block(keys.next()).unwrap_err(), KeyServiceError::Unusable(Service::AwsKms));
    }
}

#[test]
fn nothing_keeps_the_keys_alive() {
    let service = Fake::new("k");
    let envelope = seal(&keys(&service, 1, 10));
    let keys = keys(&service, 10, 10);
    let weak = Arc::downgrade(&keys);
    block(async {
        // A request that nobody waits for any more.
        let mut request = Box::pin(keys.next());
        assert!(poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending())).await);
        drop(request);
        assert!(keys.next().await.is_ok(), "it goes on if somebody needs it");
        let old = header(&envelope);
        let mut request = Box::pin(async { keys.unwrap(&wrap(&old)).await });
        assert!(poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending())).await);
    });
    drop(keys);
    assert!(weak.upgrade().is_none());
    assert_eq!(Arc::strong_count(&service), 1);
}
