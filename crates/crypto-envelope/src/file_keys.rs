//! File keys that key services wrap: the one of new envelopes, and those that are kept for reading.
//!
//! A service is asked once, however many threads need the same key: they share the answer, or the failure. All keys are
//! wiped when their last user drops them.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;

use crate::a2::header::{KeyWrap, Service, ServiceWrap};
use crate::a2::opener::FileKey;
use crate::service::{KeyService, KeyServiceError, Wrapped};

/// How long the current file key is used before another is wrapped, so that a new version of the service's key comes
/// into use within an hour. The rest of the hour is for clients that remember which version is the newest.
const LIFETIME: Duration = Duration::from_mins(50);
/// The pause between attempts to replace a current key that is older.
const PAUSE: Duration = Duration::from_secs(60);
/// The next file key is wrapped when one tenth of the envelopes of the current one is left. With fewer envelopes than this
/// for each key, the time would not suffice.
const FEWEST_FOR_SPARE: u64 = 100;
/// Number of wrapped file keys of which it is remembered whether they are under the current key.
const JUDGED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How often services are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKeyOptions {
    /// Number of envelopes that share a file key (`KeyDecayCount`), at least 1.
    pub decay: u64,
    /// Number of file keys that are kept for reading (`KeyPoolSize`). With 0, no key is kept after its use, and each new
    /// envelope has a file key of its own.
    pub pool: usize,
}

/// The file keys of all key services that are configured.
pub struct FileKeys {
    /// Wraps the file keys of new envelopes; `None` if the current master key is in no service.
    writer: Option<Arc<dyn KeyService>>,
    /// Unwrap file keys, in this order.
    services: Vec<Arc<dyn KeyService>>,
    options: FileKeyOptions,
    state: Mutex<State>,
}

struct State {
    current: Option<Current>,
    /// Follows the current key.
    spare: Option<Current>,
    /// When a spare key may be asked for.
    ask_for_spare: Instant,
    /// Least recently used keys go first; `None` if none are kept.
    kept: Option<LruCache<Name, Arc<WrappedFileKey>>>,
    /// All keys that somebody uses.
    used: HashMap<Name, Weak<WrappedFileKey>>,
    wrapping: Option<Request>,
    unwrapping: HashMap<Name, Request>,
    /// Whether wrapped file keys are under the current key, and when that was found out.
    judged: LruCache<Name, (bool, Instant)>,
}

/// The file key of new envelopes.
struct Current {
    key: Arc<WrappedFileKey>,
    /// Number of envelopes that may still use it.
    left: u64,
    /// When another is to be wrapped, if the service answers.
    replace: Instant,
}

impl Current {
    fn new(key: Arc<WrappedFileKey>, left: u64) -> Self {
        Self { key, left, replace: Instant::now() + LIFETIME }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.replace > now
    }
}

/// A request to a service that threads share.
type Request = Shared<BoxFuture<'static, Result<Arc<WrappedFileKey>, KeyServiceError>>>;

/// What identifies a wrapped file key: the service, and the field in the header.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    service: Service,
    field: Arc<[u8]>,
}

/// A file key, and how a service has wrapped it. Wiped on drop.
pub struct WrappedFileKey {
    name: Name,
    file_key: FileKey,
}

impl WrappedFileKey {
    /// The wrapped key, for the header of an envelope.
    pub fn wrap(&self) -> KeyWrap<'_> {
        let Name { service, field } = &self.name;
        // Unreachable, since the field has been parsed. The fallback could not be written to a header.
        let empty = ServiceWrap { service: *service, key: "", wrapped: &[] };
        KeyWrap::Service(ServiceWrap::parse(*service, field).unwrap_or(empty))
    }

    /// The file key itself.
    pub fn file_key(&self) -> &FileKey {
        &self.file_key
    }
}

impl fmt::Debug for WrappedFileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WrappedFileKey").field(&self.name.service).finish()
    }
}

impl FileKeys {
    /// The file keys of `writer`, which wraps those of new envelopes, and of `previous` services, which only unwrap.
    pub fn new(
        writer: Option<Arc<dyn KeyService>>,
        previous: impl IntoIterator<Item = Arc<dyn KeyService>>,
        options: FileKeyOptions,
    ) -> Arc<Self> {
        let kept = NonZeroUsize::new(options.pool).map(LruCache::new);
        let services = writer.iter().cloned().chain(previous).collect();
        let options =
            FileKeyOptions { decay: if kept.is_some() { options.decay.max(1) } else { 1 }, ..options };
        let state = State {
            current: None,
            spare: None,
            ask_for_spare: Instant::now(),
            kept,
            used: HashMap::new(),
            wrapping: None,
            unwrapping: HashMap::new(),
            judged: LruCache::new(JUDGED),
        };
        Arc::new(Self { writer, services, options, state: Mutex::new(state) })
    }

    /// The service that wraps the file keys of new envelopes.
    pub fn writer(&self) -> Option<Service> {
        self.writer.as_ref().map(|writer| writer.service())
    }

    /// Whether keys are kept after their use (`KeyPoolSize`). If not, nothing derived from them may be kept either.
    pub fn keeps_keys(&self) -> bool {
        self.options.pool > 0
    }

    /// The file key for a new envelope, if the service need not be asked. Each call counts as one envelope.
    pub fn try_next(&self) -> Option<Arc<WrappedFileKey>> {
        self.state.lock().next_if_fresh()
    }

    /// The file key for a new envelope. Each call counts as one envelope.
    ///
    /// # Errors
    ///
    /// If the service cannot wrap a key now, unless the current one may be used for more envelopes.
    pub async fn next(self: &Arc<Self>) -> Result<Arc<WrappedFileKey>, KeyServiceError> {
        loop {
            let request = {
                let mut state = self.state.lock();
                if let Some(key) = state.next_if_fresh() {
                    return Ok(key);
                }
                // Each envelope has a key of its own, so callers do not wait for each other's requests.
                let is_shared = self.options.decay > 1;
                is_shared.then(|| state.wrapping.get_or_insert_with(|| self.request_wrap()).clone())
            };
            let Some(request) = request else { return self.wrap_one().await };
            if let Err(error) = request.await {
                return self.state.lock().next_after(error);
            }
        }
    }

    /// A file key for one envelope.
    async fn wrap_one(&self) -> Result<Arc<WrappedFileKey>, KeyServiceError> {
        let wrapped = wrap(self.writer.clone()).await;
        let mut state = self.state.lock();
        match wrapped {
            Ok(key) => Ok(state.keep(key)),
            Err(error) => state.next_after(error),
        }
    }

    /// Whether the next file key should be wrapped now, with [`wrap_spare`](Self::wrap_spare), so that no envelope waits
    /// for it. If so, other callers get `false` until it was wrapped, or for a minute.
    pub fn wants_spare(&self) -> bool {
        let decay = self.options.decay;
        let mut state = self.state.lock();
        let is_low = state.current.as_ref().is_some_and(|current| current.left <= decay / 10);
        let now = Instant::now();
        let is_wanted = decay >= FEWEST_FOR_SPARE
            && is_low
            && !state.spare.as_ref().is_some_and(|spare| spare.is_fresh(now))
            && state.wrapping.is_none()
            && state.ask_for_spare <= now;
        if is_wanted {
            state.ask_for_spare = now + PAUSE;
        }
        is_wanted
    }

    /// Wraps the file key that follows the current one. If the service fails, the envelope that needs the key asks again
    /// and reports the error.
    pub async fn wrap_spare(&self) {
        if let Ok(wrapped) = wrap(self.writer.clone()).await {
            let mut state = self.state.lock();
            let key = state.keep(wrapped);
            state.spare = Some(Current::new(key, self.options.decay));
            state.ask_for_spare = Instant::now();
        }
    }

    /// Asks the service for a file key, so that a mistake in its configuration or permissions is known early, and the
    /// first envelope does not wait. The key does not count as used.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn prepare(&self) -> Result<(), KeyServiceError> {
        let wrapped = wrap(self.writer.clone()).await?;
        if self.keeps_keys() {
            let mut state = self.state.lock();
            if state.current.is_none() {
                let key = state.keep(wrapped);
                state.current = Some(Current::new(key, self.options.decay));
            }
        }
        Ok(())
    }

    /// A file key, if it is kept or used by somebody.
    pub fn known(&self, wrap: &ServiceWrap<'_>) -> Option<Arc<WrappedFileKey>> {
        self.state.lock().known(&Name::of(wrap)?)
    }

    /// Unwraps a file key. Keep it until the envelope is decrypted with a [`KeyRing`](crate::KeyRing) that has these file
    /// keys.
    ///
    /// # Errors
    ///
    /// If no service unwraps it.
    pub async fn unwrap(
        self: &Arc<Self>,
        wrap: &ServiceWrap<'_>,
    ) -> Result<Arc<WrappedFileKey>, KeyServiceError> {
        let other = || KeyServiceError::NotConfigured { service: wrap.service, key: wrap.key.to_owned() };
        let name = Name::of(wrap).ok_or_else(other)?;
        let request = {
            let mut state = self.state.lock();
            if let Some(key) = state.known(&name) {
                return Ok(key);
            }
            let new = || self.request_unwrap(name.clone(), wrap.key.to_owned());
            state.unwrapping.entry(name.clone()).or_insert_with(new).clone()
        };
        request.await
    }

    /// Whether a file key was wrapped with the key, and the version of it, that wraps those of new envelopes. A new version
    /// is noticed within an hour.
    ///
    /// # Errors
    ///
    /// If the service must be asked, and does not answer.
    pub async fn is_current(&self, wrap: &ServiceWrap<'_>) -> Result<bool, KeyServiceError> {
        let writer = self.writer.as_ref().filter(|writer| writer.service() == wrap.service);
        let Some(writer) = writer.filter(|writer| writer.has_key(wrap.key)) else { return Ok(false) };
        let Some(name) = Name::of(wrap) else { return Ok(false) };
        let judged = self.state.lock().judged.get(&name).copied();
        if let Some((is_current, _)) = judged.filter(|(_, since)| since.elapsed() < LIFETIME) {
            return Ok(is_current);
        }
        let is_current = writer.is_current(wrap.key, wrap.wrapped).await?;
        self.state.lock().judged.put(name, (is_current, Instant::now()));
        Ok(is_current)
    }

    fn request_wrap(self: &Arc<Self>) -> Request {
        // A strong reference would be a cycle, since the state has the request.
        let this = Arc::downgrade(self);
        let writer = self.writer.clone();
        let request = async move {
            let wrapped = caught(wrap(writer)).await;
            let this = this.upgrade().ok_or_else(abandoned)?;
            let mut state = this.state.lock();
            state.wrapping = None;
            let key = state.keep(wrapped?);
            state.current = Some(Current::new(Arc::clone(&key), this.options.decay));
            Ok(key)
        };
        request.boxed().shared()
    }

    fn request_unwrap(self: &Arc<Self>, name: Name, key: String) -> Request {
        let this = Arc::downgrade(self);
        let candidates = self.services.iter();
        let candidates =
            candidates.filter(|service| service.service() == name.service && service.has_key(&key));
        let candidates: Vec<_> = candidates.cloned().collect();
        let request = async move {
            let unwrapped = caught(unwrap(&candidates, &name, key)).await;
            let this = this.upgrade().ok_or_else(abandoned)?;
            let mut state = this.state.lock();
            state.unwrapping.remove(&name);
            Ok(state.keep(WrappedFileKey { name, file_key: unwrapped? }))
        };
        request.boxed().shared()
    }
}

/// Wraps a new file key.
async fn wrap(writer: Option<Arc<dyn KeyService>>) -> Result<WrappedFileKey, KeyServiceError> {
    let no_writer = || KeyServiceError::Refused("no key service is configured to wrap file keys".to_owned());
    let writer = writer.ok_or_else(no_writer)?;
    let service = writer.service();
    let file_key = FileKey::random()?;
    let Wrapped { key, wrapped } = writer.wrap(&file_key).await?;
    let name = Name::of(&ServiceWrap { service, key: &key, wrapped: &wrapped });
    Ok(WrappedFileKey { name: name.ok_or(KeyServiceError::Unusable(service))?, file_key })
}

/// Turns a panic into an error, since otherwise nobody could ask for the key any more.
async fn caught<T>(request: impl Future<Output = Result<T, KeyServiceError>>) -> Result<T, KeyServiceError> {
    const PANICKED: &str =
        "the request to the key service failed: an internal error occurred, which the log describes";
    let panicked = || KeyServiceError::Unavailable(PANICKED.to_owned());
    AssertUnwindSafe(request).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
}

/// Asks the services that may have the key, until one unwraps it.
async fn unwrap(
    candidates: &[Arc<dyn KeyService>],
    Name { service, field }: &Name,
    key: String,
) -> Result<FileKey, KeyServiceError> {
    let wrapped = ServiceWrap::parse(*service, field).map_or(&[][..], |wrap| wrap.wrapped);
    let mut failure = None;
    for candidate in candidates {
        match candidate.unwrap(&key, wrapped).await {
            Ok(file_key) => return Ok(file_key),
            // One that does not answer may have the key.
            Err(error) if error.is_transient() || failure.is_none() => failure = Some(error),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or(KeyServiceError::NotConfigured { service: *service, key }))
}

/// Nobody waits for the answer any more.
fn abandoned() -> KeyServiceError {
    KeyServiceError::Unavailable("Orthanc is shutting down".to_owned())
}

impl State {
    /// The current key, unless it should be replaced.
    fn next_if_fresh(&mut self) -> Option<Arc<WrappedFileKey>> {
        let now = Instant::now();
        if !self.current.as_ref().is_some_and(|current| current.is_fresh(now)) {
            self.current = Some(self.spare.take_if(|spare| spare.is_fresh(now))?);
        }
        self.next()
    }

    /// The current key, whatever its age.
    fn next(&mut self) -> Option<Arc<WrappedFileKey>> {
        if self.current.is_none() {
            self.current = self.spare.take();
        }
        let current = self.current.as_mut()?;
        current.left -= 1;
        let key = Arc::clone(&current.key);
        if current.left == 0 {
            self.current = None;
        }
        Some(key)
    }

    /// The current key in spite of its age, after the service failed to wrap another, or this error.
    fn next_after(&mut self, error: KeyServiceError) -> Result<Arc<WrappedFileKey>, KeyServiceError> {
        let now = Instant::now();
        if let Some(current) = self.current.as_mut().filter(|current| !current.is_fresh(now)) {
            current.replace = now + PAUSE;
        }
        self.next().ok_or(error)
    }

    fn known(&mut self, name: &Name) -> Option<Arc<WrappedFileKey>> {
        let kept = self.kept.as_mut().and_then(|kept| kept.get(name).cloned());
        kept.or_else(|| self.used.get(name)?.upgrade())
    }

    fn keep(&mut self, key: WrappedFileKey) -> Arc<WrappedFileKey> {
        let key = Arc::new(key);
        self.used.retain(|_, used| used.strong_count() > 0);
        self.used.insert(key.name.clone(), Arc::downgrade(&key));
        if let Some(kept) = &mut self.kept {
            kept.put(key.name.clone(), Arc::clone(&key));
        }
        key
    }
}

impl Name {
    /// `None` if the wrapped key would not fit in a header.
    fn of(wrap: &ServiceWrap<'_>) -> Option<Self> {
        let field = wrap.field().ok().filter(|field| field.len() <= usize::from(u16::MAX))?;
        // What could not be read again must not be written.
        ServiceWrap::parse(wrap.service, &field).filter(|parsed| parsed == wrap)?;
        Some(Self { service: wrap.service, field: field.into() })
    }
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeys")
            .field("services", &self.services)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
