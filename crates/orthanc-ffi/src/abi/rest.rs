//! Parameters of the services for REST routes.

use std::ffi::{c_char, c_void};

#[cfg(doc)]
use super::service;
use super::{HttpRequest, RawErrorCode, RestCallback, RestOutput};

/// Parameters of [`service::REGISTER_REST_CALLBACK_NO_LOCK`].
#[repr(C)]
#[derive(Debug)]
pub struct RestCallbackRegistration {
    /// Regular expression for the whole path.
    pub path_regular_expression: *const c_char,
    /// Answers requests to the path.
    pub callback: Option<RestCallback>,
}

/// Parameters of [`service::ANSWER_BUFFER`].
#[repr(C)]
#[derive(Debug)]
pub struct AnswerBuffer {
    /// The request's output.
    pub output: *mut RestOutput,
    /// The body.
    pub answer: *const c_void,
    /// Length of the body in bytes.
    pub answer_size: u32,
    /// Its MIME type.
    pub mime_type: *const c_char,
}

/// Parameters of services that take an output and one string.
#[repr(C)]
#[derive(Debug)]
pub struct OutputPlusArgument {
    /// The request's output.
    pub output: *mut RestOutput,
    /// The string.
    pub argument: *const c_char,
}

/// Parameters of [`service::SEND_HTTP_STATUS`].
#[repr(C)]
#[derive(Debug)]
pub struct SendHttpStatus {
    /// The request's output.
    pub output: *mut RestOutput,
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: *const c_char,
    /// Length of the body in bytes.
    pub body_size: u32,
}

/// Parameters of [`service::SET_HTTP_ERROR_DETAILS`].
#[repr(C)]
#[derive(Debug)]
pub struct SetHttpErrorDetails {
    /// The request's output.
    pub output: *mut RestOutput,
    /// Text for the `Details` field of Orthanc's error answer.
    pub details: *const c_char,
    /// 1: also write it to Orthanc's log.
    pub log: u8,
}

/// Parameters of [`service::SET_HTTP_HEADER`].
#[repr(C)]
#[derive(Debug)]
pub struct SetHttpHeader {
    /// The request's output.
    pub output: *mut RestOutput,
    /// Name of the header.
    pub key: *const c_char,
    /// Value of the header.
    pub value: *const c_char,
}

/// The opaque handle of a request whose body is being received.
#[repr(C)]
#[derive(Debug)]
pub struct RequestReader {
    _opaque: [u8; 0],
}

/// Reader to set, path, request without a body.
pub type RequestReaderFactory =
    unsafe extern "C" fn(*mut *mut RequestReader, *const c_char, *const HttpRequest) -> RawErrorCode;
/// Reader, bytes of the body, their number.
pub type RequestReaderAddChunk = unsafe extern "C" fn(*mut RequestReader, *const c_void, u32) -> RawErrorCode;
/// Reader, output: answers the request.
pub type RequestReaderExecute = unsafe extern "C" fn(*mut RequestReader, *mut RestOutput) -> RawErrorCode;
/// Ends the reader, also if the body was not received completely.
pub type RequestReaderFinalize = unsafe extern "C" fn(*mut RequestReader);

/// Parameters of [`service::REGISTER_CHUNKED_REST_CALLBACK`].
#[repr(C)]
#[derive(Debug)]
pub struct ChunkedRestCallback {
    /// Regular expression for the whole path.
    pub path_regular_expression: *const c_char,
    /// Answers GET requests.
    pub get_handler: Option<RestCallback>,
    /// Begins a POST request.
    pub post_handler: Option<RequestReaderFactory>,
    /// Answers DELETE requests.
    pub delete_handler: Option<RestCallback>,
    /// Begins a PUT request.
    pub put_handler: Option<RequestReaderFactory>,
    /// Passes on a part of the body.
    pub add_chunk: Option<RequestReaderAddChunk>,
    /// Marks the end of the body.
    pub execute: Option<RequestReaderExecute>,
    /// Ends the reader.
    pub finalize: Option<RequestReaderFinalize>,
}
