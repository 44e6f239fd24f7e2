//! REST routes: Orthanc's callback for requests, as calls to closures.
//!
//! The C callback has no user data, and its arguments do not include the pattern that matched (only the
//! path and the groups). So each route gets its own C function, instantiated from one generic function with
//! the route's number, and the crate does not repeat Orthanc's matching.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use crate::abi::{self, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::{Level, Orthanc, c_line, c_string};
use crate::panic::guarded;

/// The plugin's handler of a route.
pub(crate) type Handler = dyn Fn(&RestRequest<'_>) -> Result<RestAnswer, RestFailure> + Send + Sync;

/// The method of a REST request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

/// A REST request, borrowed from Orthanc for the duration of the call.
#[derive(Debug)]
pub struct RestRequest<'a> {
    method: Method,
    path: &'a str,
    groups: Vec<&'a str>,
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    body: &'a [u8],
}

impl<'a> RestRequest<'a> {
    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path, without the query.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The matches of the groups in the route's pattern, in order.
    pub fn groups(&self) -> &[&'a str] {
        &self.groups
    }

    /// The query parameters of a GET, decoded.
    pub fn query(&self) -> &[(&'a str, &'a str)] {
        &self.query
    }

    /// The value of a header, by its name in lower case, with replacement characters where it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The body of a POST or PUT; empty otherwise.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Converts Orthanc's request.
    ///
    /// # Safety
    ///
    /// `raw_path` and `request` must be as Orthanc passes them to a REST callback, and live for `'a`.
    unsafe fn from_raw(raw_path: *const c_char, request: &'a abi::HttpRequest) -> Result<Self, ErrorCode> {
        // SAFETY: passed on from the caller.
        let head = unsafe { Self::head(raw_path, request) }?;
        let body = match (request.body_size, request.body.is_null()) {
            (0, _) => &[],
            (_, true) => return Err(ErrorCode::NULL_POINTER),
            // SAFETY: Orthanc's body has `body_size` bytes and lives for `'a`.
            (len, false) => unsafe { std::slice::from_raw_parts(request.body.cast::<u8>(), len as usize) },
        };
        Ok(Self { body, ..head })
    }

    /// Converts Orthanc's request, except for its body.
    ///
    /// # Safety
    ///
    /// As for [`from_raw`](Self::from_raw); the fields of the body may have any value.
    pub(crate) unsafe fn head(
        raw_path: *const c_char,
        request: &'a abi::HttpRequest,
    ) -> Result<Self, ErrorCode> {
        let method = match request.method {
            abi::http_method::GET => Method::Get,
            abi::http_method::POST => Method::Post,
            abi::http_method::PUT => Method::Put,
            abi::http_method::DELETE => Method::Delete,
            _ => return Err(ErrorCode::PARAMETER_OUT_OF_RANGE),
        };
        // SAFETY: Orthanc's path is a string that lives for `'a`.
        let path = unsafe { text(raw_path) }?.to_str().map_err(|_| ErrorCode::BAD_REQUEST)?;
        // SAFETY: Orthanc's arrays have the given counts.
        let groups = unsafe { strings(request.groups, request.groups_count) }?;
        // SAFETY: as above.
        let keys = unsafe { strings(request.get_keys, request.get_count) }?;
        // SAFETY: as above.
        let values = unsafe { strings(request.get_values, request.get_count) }?;
        // SAFETY: as above.
        let header_keys = unsafe { strings(request.headers_keys, request.headers_count) }?;
        // SAFETY: as above.
        let header_values = unsafe { strings(request.headers_values, request.headers_count) }?;
        let headers = header_keys.into_iter().zip(header_values);
        Ok(Self {
            method,
            path,
            groups: utf8(groups)?,
            query: utf8(keys)?.into_iter().zip(utf8(values)?).collect(),
            headers: headers.map(|(key, value)| (key.to_string_lossy(), value.to_string_lossy())).collect(),
            body: &[],
        })
    }
}

/// # Safety
///
/// `text` must be null or a NUL-terminated string that lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a CStr, ErrorCode> {
    if text.is_null() {
        return Err(ErrorCode::NULL_POINTER);
    }
    // SAFETY: not null, so a string by the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// # Safety
///
/// `array` must be null or have `count` strings that live for `'a`.
unsafe fn strings<'a>(array: *const *const c_char, count: u32) -> Result<Vec<&'a CStr>, ErrorCode> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if array.is_null() {
        return Err(ErrorCode::NULL_POINTER);
    }
    // SAFETY: not null, so `count` pointers by the caller's promise.
    let pointers: &[*const c_char] = unsafe { std::slice::from_raw_parts(array, count as usize) };
    // SAFETY: each is a string by the caller's promise.
    pointers.iter().map(|pointer| unsafe { text(*pointer) }).collect()
}

fn utf8(strings: Vec<&CStr>) -> Result<Vec<&str>, ErrorCode> {
    strings.into_iter().map(|string| string.to_str().map_err(|_| ErrorCode::BAD_REQUEST)).collect()
}

/// The answer to a REST request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestAnswer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    mime: Cow<'static, str>,
    body: Vec<u8>,
}

impl RestAnswer {
    /// Creates an answer of indented JSON, with status 200.
    pub fn json(value: &serde_json::Value) -> Self {
        Self::bytes("application/json", format!("{value:#}\n"))
    }

    /// Creates an answer of bytes with their MIME type, with status 200. It can have at most 4 GiB, the limit
    /// of Orthanc's interface.
    pub fn bytes(mime: impl Into<Cow<'static, str>>, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), mime: mime.into(), body: body.into() }
    }

    /// Changes the HTTP status. Orthanc does not accept 301, 401 and 405. It sends the body only if its option
    /// `HttpDescribeErrors` is on, as it is by default, and newer versions (1.12.7 does, 1.10.1 does not) add a
    /// second `Content-Type`, which is `text/plain`.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn send(&self, orthanc: &Orthanc, output: *mut abi::RestOutput) -> Result<(), ErrorCode> {
        let answer_size = u32::try_from(self.body.len()).map_err(|_| ErrorCode::NOT_ENOUGH_MEMORY)?;
        for (name, value) in &self.headers {
            set_header(orthanc, output, name, value)?;
        }
        if self.status != 200 {
            set_header(orthanc, output, "Content-Type", &self.mime)?;
            return send_status(orthanc, output, self.status, &self.body);
        }
        let mime = c_line(&self.mime);
        let params = abi::AnswerBuffer {
            output,
            answer: self.body.as_ptr().cast(),
            answer_size,
            mime_type: mime.as_ptr(),
        };
        // SAFETY: the parameters are those of this service; `output` is that of the current request.
        unsafe { orthanc.invoke("AnswerBuffer", service::ANSWER_BUFFER, &params) }.map_err(|e| e.code())
    }
}

fn set_header(
    orthanc: &Orthanc,
    output: *mut abi::RestOutput,
    name: &str,
    value: &str,
) -> Result<(), ErrorCode> {
    let key = c_line(name);
    let line = c_line(value);
    let params = abi::SetHttpHeader { output, key: key.as_ptr(), value: line.as_ptr() };
    // SAFETY: the parameters are those of this service; `output` is that of the current request.
    unsafe { orthanc.invoke("SetHttpHeader", service::SET_HTTP_HEADER, &params) }.map_err(|e| e.code())
}

fn send_status(
    orthanc: &Orthanc,
    output: *mut abi::RestOutput,
    status: u16,
    body: &[u8],
) -> Result<(), ErrorCode> {
    let body_size = u32::try_from(body.len()).map_err(|_| ErrorCode::NOT_ENOUGH_MEMORY)?;
    let params = abi::SendHttpStatus { output, status, body: body.as_ptr().cast(), body_size };
    // SAFETY: the parameters are those of this service; `output` is that of the current request.
    unsafe { orthanc.invoke("SendHttpStatus", service::SEND_HTTP_STATUS, &params) }.map_err(|e| e.code())
}

/// An answer that reports a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestFailure {
    /// An HTTP status with a text as its body. Orthanc does not accept 200, 301, 401 and 405.
    Status {
        /// HTTP status.
        status: u16,
        /// The body.
        message: String,
    },
    /// 405 with the allowed methods, such as `GET,POST`.
    MethodNotAllowed {
        /// Value of the `Allow` header.
        allow: &'static str,
    },
    /// Orthanc's own error answer (JSON with `HttpStatus`, `OrthancStatus`, `Message`) for this code: 404 for
    /// [`ErrorCode::UNKNOWN_RESOURCE`], 400 for [`ErrorCode::BAD_REQUEST`].
    Code {
        /// The error code.
        code: ErrorCode,
        /// The answer's `Details`; left out if empty.
        details: String,
    },
}

impl RestFailure {
    /// Creates a 400 with an explanation, in Orthanc's error format.
    pub fn bad_request(details: impl Into<String>) -> Self {
        Self::Code { code: ErrorCode::BAD_REQUEST, details: details.into() }
    }

    /// Creates a 404 with an explanation, in Orthanc's error format.
    pub fn not_found(details: impl Into<String>) -> Self {
        Self::Code { code: ErrorCode::UNKNOWN_RESOURCE, details: details.into() }
    }

    fn send(&self, orthanc: &Orthanc, output: *mut abi::RestOutput) -> Result<(), ErrorCode> {
        match self {
            Self::Status { status, message } => send_status(orthanc, output, *status, message.as_bytes()),
            Self::MethodNotAllowed { allow } => {
                let list = c_line(allow);
                let params = abi::OutputPlusArgument { output, argument: list.as_ptr() };
                // SAFETY: as above.
                unsafe { orthanc.invoke("SendMethodNotAllowed", service::SEND_METHOD_NOT_ALLOWED, &params) }
                    .map_err(|error| error.code())
            }
            Self::Code { code, details } => {
                if !details.is_empty() {
                    let line = c_line(details);
                    let params = abi::SetHttpErrorDetails { output, details: line.as_ptr(), log: 0 };
                    // The result is ignored: without details, the code still identifies the error.
                    // SAFETY: as above.
                    let _ = unsafe {
                        orthanc.invoke("SetHttpErrorDetails", service::SET_HTTP_ERROR_DETAILS, &params)
                    };
                }
                Err(*code)
            }
        }
    }
}

impl From<ErrorCode> for RestFailure {
    fn from(code: ErrorCode) -> Self {
        Self::Code { code, details: String::new() }
    }
}

impl From<OrthancError> for RestFailure {
    fn from(error: OrthancError) -> Self {
        Self::Code { code: error.code(), details: error.to_string() }
    }
}

/// Maximum number of routes of a plugin.
const MAX_ROUTES: usize = 16;

/// One C function for each route.
const CALLBACKS: [abi::RestCallback; MAX_ROUTES] = [
    route::<0>,
    route::<1>,
    route::<2>,
    route::<3>,
    route::<4>,
    route::<5>,
    route::<6>,
    route::<7>,
    route::<8>,
    route::<9>,
    route::<10>,
    route::<11>,
    route::<12>,
    route::<13>,
    route::<14>,
    route::<15>,
];

impl Orthanc {
    /// Registers `handler` for the paths that match `pattern`, a regular expression for the whole path.
    /// Call it during `initialize` only.
    ///
    /// Orthanc calls the handler without a lock, from several threads at once.
    ///
    /// # Errors
    ///
    /// [`OrthancError::TooManyRoutes`] for the seventeenth route, a NUL character in the pattern, or
    /// Orthanc's error code.
    pub fn register_rest(
        &self,
        pattern: &str,
        handler: impl Fn(&RestRequest<'_>) -> Result<RestAnswer, RestFailure> + Send + Sync + 'static,
    ) -> Result<(), OrthancError> {
        let expression = c_string("the pattern of a REST route", pattern)?;
        let index = {
            let routes = &mut self.registrations().routes;
            if routes.len() == MAX_ROUTES {
                return Err(OrthancError::TooManyRoutes { max: MAX_ROUTES });
            }
            routes.push(std::sync::Arc::new(handler));
            routes.len() - 1
        };
        let params = abi::RestCallbackRegistration {
            path_regular_expression: expression.as_ptr(),
            callback: Some(CALLBACKS[index]),
        };
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterRestCallback", service::REGISTER_REST_CALLBACK_NO_LOCK, &params) }
    }
}

unsafe extern "C" fn route<const INDEX: usize>(
    output: *mut abi::RestOutput,
    path: *const c_char,
    request: *const abi::HttpRequest,
) -> abi::RawErrorCode {
    guarded("a REST route", ErrorCode::PLUGIN.as_raw(), || {
        // SAFETY: Orthanc's arguments live until the callback returns.
        to_raw(unsafe { answer(INDEX, output, path, request) })
    })
}

/// # Safety
///
/// `output`, `path` and `raw_request` must be as Orthanc passes them to a REST callback.
unsafe fn answer(
    index: usize,
    output: *mut abi::RestOutput,
    path: *const c_char,
    raw_request: *const abi::HttpRequest,
) -> Result<(), ErrorCode> {
    let orthanc = entry::current().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    let handler =
        orthanc.registrations().routes.get(index).cloned().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    // SAFETY: null or Orthanc's own request.
    let borrowed = unsafe { raw_request.as_ref() }.ok_or(ErrorCode::NULL_POINTER)?;
    // SAFETY: Orthanc's arguments live until the callback returns.
    let request = unsafe { RestRequest::from_raw(path, borrowed) }?;
    send(&orthanc, output, &handler(&request))
}

/// Sends what a handler returned.
pub(crate) fn send(
    orthanc: &Orthanc,
    output: *mut abi::RestOutput,
    result: &Result<RestAnswer, RestFailure>,
) -> Result<(), ErrorCode> {
    let sent = match result {
        Ok(answer) => answer.send(orthanc, output),
        // Orthanc sends the answer for a code.
        Err(failure @ RestFailure::Code { .. }) => return failure.send(orthanc, output),
        Err(failure) => failure.send(orthanc, output),
    };
    sent.inspect_err(|code| {
        orthanc.log(Level::Error, &format!("cannot send the answer of a REST route: {code}"));
    })
}
