//! Routes for chunked requests, called as Orthanc's HTTP server calls them.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;

use orthanc_ffi::abi;
use parking_lot::Mutex;

use crate::FakeOrthanc;
use crate::state::{code, result};

/// The callbacks of a registered route.
#[derive(Clone, Copy)]
pub(crate) struct ChunkedRoute {
    post: Option<abi::RequestReaderFactory>,
    add_chunk: Option<abi::RequestReaderAddChunk>,
    execute: Option<abi::RequestReaderExecute>,
    finalize: Option<abi::RequestReaderFinalize>,
}

impl From<abi::ChunkedRestCallback> for ChunkedRoute {
    fn from(route: abi::ChunkedRestCallback) -> Self {
        Self {
            post: route.post_handler,
            add_chunk: route.add_chunk,
            execute: route.execute,
            finalize: route.finalize,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status; 0 before the answer is sent.
    pub status: u16,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Returns false if the answer has already been sent.
    pub(crate) fn add_header(&mut self, name: String, value: String) -> bool {
        self.headers.insert(name, value);
        self.status == 0
    }

    /// Returns false if the answer has already been sent.
    pub(crate) fn send(&mut self, status: u16, body: Vec<u8>) -> bool {
        let first = self.status == 0;
        self.status = status;
        self.body = body;
        first
    }
}

/// A POST request whose body is being sent. Dropping it is what Orthanc does at the end of a request, or when
/// the client disappears.
pub struct ChunkedRequest<'a> {
    orthanc: &'a FakeOrthanc,
    route: ChunkedRoute,
    reader: *mut abi::RequestReader,
}

// SAFETY: Orthanc may call a reader from any thread, one at a time.
unsafe impl Send for ChunkedRequest<'_> {}

impl FakeOrthanc {
    /// Begins a POST request to the route that was registered with this pattern, which is not evaluated:
    /// `groups` are its matches.
    ///
    /// # Errors
    ///
    /// The plugin's error code, or 17 if there is no such route.
    pub fn chunked_post(
        &self,
        pattern: &str,
        path: &str,
        groups: &[&str],
        headers: &[(&str, &str)],
    ) -> Result<ChunkedRequest<'_>, i32> {
        let route = self.state.chunked_routes.lock().get(pattern).copied().ok_or(code::UNKNOWN_RESOURCE)?;
        let post = route.post.ok_or(code::UNKNOWN_RESOURCE)?;
        let c_path = strings([path])?;
        let c_groups = strings(groups.iter().copied())?;
        let keys = strings(headers.iter().map(|header| header.0))?;
        let values = strings(headers.iter().map(|header| header.1))?;
        let group_pointers = pointers(&c_groups);
        let key_pointers = pointers(&keys);
        let value_pointers = pointers(&values);
        let request = abi::HttpRequest {
            method: abi::http_method::POST,
            groups_count: count(&c_groups),
            groups: group_pointers.as_ptr(),
            get_count: 0,
            get_keys: ptr::null(),
            get_values: ptr::null(),
            // "Not used", so that nothing may rely on them.
            body: ptr::null(),
            body_size: u32::MAX,
            headers_count: count(&keys),
            headers_keys: key_pointers.as_ptr(),
            headers_values: value_pointers.as_ptr(),
        };
        let mut reader = ptr::null_mut();
        // SAFETY: all arguments live until the callback returns.
        result(unsafe { post(&raw mut reader, c_path[0].as_ptr(), &raw const request) })?;
        Ok(ChunkedRequest { orthanc: self, route, reader })
    }
}

fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<CString>, i32> {
    let owned = texts.into_iter().map(CString::new).collect::<Result<_, _>>();
    owned.map_err(|_| code::PARAMETER_OUT_OF_RANGE)
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

fn count(strings: &[CString]) -> u32 {
    u32::try_from(strings.len()).unwrap_or(u32::MAX)
}

impl ChunkedRequest<'_> {
    /// Sends a part of the body, whose memory is overwritten afterwards.
    ///
    /// # Errors
    ///
    /// The plugin's error code. Orthanc ignores it.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), i32> {
        let add_chunk = self.route.add_chunk.ok_or(code::NULL_POINTER)?;
        let mut copy = bytes.to_vec();
        let size = u32::try_from(copy.len()).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: the reader is the plugin's, and the data live until the callback returns.
        let returned = unsafe { add_chunk(self.reader, copy.as_ptr().cast(), size) };
        copy.fill(0xA5);
        result(returned)
    }

    /// Marks the end of the body, and returns the answer.
    ///
    /// # Errors
    ///
    /// The plugin's error code, for which Orthanc sends an answer of its own.
    pub fn execute(&mut self) -> Result<HttpAnswer, i32> {
        let execute = self.route.execute.ok_or(code::NULL_POINTER)?;
        let answer = Mutex::new(HttpAnswer::default());
        // SAFETY: the reader is the plugin's, and the answer lives until the callback returns.
        result(unsafe { execute(self.reader, (&raw const answer).cast_mut().cast()) })?;
        let answer = answer.into_inner();
        if answer.status == 0 {
            self.orthanc.state.violation("a request succeeded without an answer");
        }
        Ok(answer)
    }
}

impl Drop for ChunkedRequest<'_> {
    fn drop(&mut self) {
        if let Some(finalize) = self.route.finalize {
            // SAFETY: the reader is the plugin's, and is not used any more.
            unsafe { finalize(self.reader) };
        }
    }
}

impl std::fmt::Debug for ChunkedRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkedRequest").field("reader", &self.reader).finish_non_exhaustive()
    }
}
