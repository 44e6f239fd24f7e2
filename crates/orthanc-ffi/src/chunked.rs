//! REST routes for bodies of any size, which arrive in chunks.
//!
//! Orthanc gets a number instead of an address for each request, so a callback for a request that has ended
//! finds nothing instead of reading freed memory.
//!
//! Orthanc passes on a body as it arrives, in chunks of up to 1 MiB, only if the client sends it with
//! `Transfer-Encoding: chunked`. A body with a `Content-Length` is read into memory first, and is one chunk.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::abi::{self, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::{Orthanc, c_string};
use crate::panic::guarded;
use crate::rest::{self, RestAnswer, RestFailure, RestRequest};

/// Receives the body of one POST request, on one of Orthanc's HTTP threads.
///
/// If the client disappears, Orthanc stops, or a call returns an error or panics, the reader is dropped
/// without [`answer`](Self::answer).
pub trait BodyReader: Send + 'static {
    /// Adds the next bytes. The client is slowed down while this blocks.
    ///
    /// # Errors
    ///
    /// Orthanc sends its own answer for the code after it has received the rest of the body, which is ignored.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), ErrorCode>;

    /// Marks the end of the body, and answers the request.
    ///
    /// # Errors
    ///
    /// An answer that reports a failure.
    fn answer(self: Box<Self>) -> Result<RestAnswer, RestFailure>;
}

/// The plugin's function that begins a request.
pub(crate) type OpenBody = dyn Fn(&RestRequest<'_>) -> Result<Box<dyn BodyReader>, ErrorCode> + Send + Sync;

/// A request that Orthanc knows by its number.
pub(crate) struct BodySlot(Mutex<Body>);

enum Body {
    Open(Box<dyn BodyReader>),
    /// The reader has been dropped. Orthanc ignores errors of chunks, so that the last call repeats them.
    Failed(ErrorCode),
}

impl BodySlot {
    /// Takes the reader for a call. If the call fails or panics, the reader is dropped and not called again.
    fn take(&self) -> Result<Box<dyn BodyReader>, ErrorCode> {
        let mut body = self.0.lock();
        match std::mem::replace(&mut *body, Body::Failed(ErrorCode::PLUGIN)) {
            Body::Open(reader) => Ok(reader),
            Body::Failed(code) => {
                *body = Body::Failed(code);
                Err(code)
            }
        }
    }

    fn put(&self, body: Body) {
        *self.0.lock() = body;
    }
}

/// The next request's number. Numbers are never reused, not even after the plugin is initialized again.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// Maximum number of chunked routes of a plugin.
const MAX_ROUTES: usize = 4;

/// One C function for each route, as in [`rest`].
const FACTORIES: [abi::RequestReaderFactory; MAX_ROUTES] = [post::<0>, post::<1>, post::<2>, post::<3>];

impl Orthanc {
    /// Registers `open` for POST requests to the paths that match `pattern`, a regular expression for the
    /// whole path. Call it during `initialize` only. Orthanc answers other methods with 405.
    ///
    /// `open` gets the request without its body, borrowed until it returns. Orthanc sends its own answer for
    /// an error. Orthanc calls `open` without a lock, from several threads at once.
    ///
    /// # Errors
    ///
    /// [`OrthancError::TooManyRoutes`] for the fifth route, a NUL character in the pattern, or Orthanc's error
    /// code.
    pub fn register_chunked_post(
        &self,
        pattern: &str,
        open: impl Fn(&RestRequest<'_>) -> Result<Box<dyn BodyReader>, ErrorCode> + Send + Sync + 'static,
    ) -> Result<(), OrthancError> {
        let expression = c_string("the pattern of a REST route", pattern)?;
        let index = {
            let routes = &mut self.registrations().chunked_routes;
            if routes.len() == MAX_ROUTES {
                return Err(OrthancError::TooManyRoutes { max: MAX_ROUTES });
            }
            routes.push(Arc::new(open));
            routes.len() - 1
        };
        let params = abi::ChunkedRestCallback {
            path_regular_expression: expression.as_ptr(),
            get_handler: None,
            post_handler: Some(FACTORIES[index]),
            delete_handler: None,
            put_handler: None,
            add_chunk: Some(add_chunk),
            execute: Some(execute),
            finalize: Some(finalize),
        };
        // SAFETY: the parameters are those of this service; the functions live as long as the library.
        unsafe {
            self.invoke("RegisterChunkedRestCallback", service::REGISTER_CHUNKED_REST_CALLBACK, &params)
        }
    }
}

unsafe extern "C" fn post<const INDEX: usize>(
    reader: *mut *mut abi::RequestReader,
    path: *const c_char,
    request: *const abi::HttpRequest,
) -> abi::RawErrorCode {
    guarded("a chunked REST route", ErrorCode::PLUGIN.as_raw(), || {
        // SAFETY: Orthanc's arguments live until the callback returns.
        to_raw(unsafe { open(INDEX, reader, path, request) })
    })
}

/// # Safety
///
/// The arguments must be as Orthanc passes them to the factory of a reader.
unsafe fn open(
    index: usize,
    reader: *mut *mut abi::RequestReader,
    path: *const c_char,
    raw_request: *const abi::HttpRequest,
) -> Result<(), ErrorCode> {
    let orthanc = entry::current().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    let routes = orthanc.registrations().chunked_routes.clone();
    let open = routes.get(index).ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    // SAFETY: null or Orthanc's own request.
    let borrowed = unsafe { raw_request.as_ref() }.ok_or(ErrorCode::NULL_POINTER)?;
    // SAFETY: Orthanc's arguments live until the callback returns.
    let request = unsafe { RestRequest::head(path, borrowed) }?;
    // SAFETY: null or Orthanc's own variable.
    let target = unsafe { reader.as_mut() }.ok_or(ErrorCode::NULL_POINTER)?;
    let body = open(&request)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let slot = Arc::new(BodySlot(Mutex::new(Body::Open(body))));
    orthanc.registrations().bodies.insert(number, slot);
    *target = ptr::without_provenance_mut(number);
    Ok(())
}

/// The request with this number, if it has not ended.
fn slot(reader: *mut abi::RequestReader) -> Result<Arc<BodySlot>, ErrorCode> {
    let orthanc = entry::current().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    let found = orthanc.registrations().bodies.get(&reader.addr()).cloned();
    found.ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)
}

unsafe extern "C" fn add_chunk(
    reader: *mut abi::RequestReader,
    data: *const c_void,
    size: u32,
) -> abi::RawErrorCode {
    guarded("a chunk of a request", ErrorCode::PLUGIN.as_raw(), || {
        // SAFETY: Orthanc's data have `size` bytes and live until the callback returns.
        to_raw(unsafe { bytes(data, size) }.and_then(|bytes| {
            let slot = slot(reader)?;
            let mut reader = slot.take()?;
            let result = reader.chunk(bytes);
            slot.put(match result {
                Ok(()) => Body::Open(reader),
                Err(code) => Body::Failed(code),
            });
            result
        }))
    })
}

/// # Safety
///
/// `data` must have `size` bytes that live for `'a`, or be null.
unsafe fn bytes<'a>(data: *const c_void, size: u32) -> Result<&'a [u8], ErrorCode> {
    match (size, data.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(ErrorCode::NULL_POINTER),
        // SAFETY: passed on from the caller.
        (size, false) => Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) }),
    }
}

unsafe extern "C" fn execute(
    reader: *mut abi::RequestReader,
    output: *mut abi::RestOutput,
) -> abi::RawErrorCode {
    guarded("the answer of a chunked request", ErrorCode::PLUGIN.as_raw(), || {
        to_raw(slot(reader).and_then(|slot| {
            let reader = slot.take()?;
            slot.put(Body::Failed(ErrorCode::BAD_SEQUENCE_OF_CALLS));
            let result = reader.answer();
            let orthanc = entry::current().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
            rest::send(&orthanc, output, &result)
        }))
    })
}

unsafe extern "C" fn finalize(reader: *mut abi::RequestReader) {
    guarded("the end of a chunked request", (), || {
        let Some(orthanc) = entry::current() else { return };
        // Dropped after the lock has been released.
        let ended = orthanc.registrations().bodies.remove(&reader.addr());
        drop(ended);
    });
}
