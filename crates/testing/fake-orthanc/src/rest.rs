//! The plugin's REST routes, called as Orthanc calls them.

use std::ffi::{CString, c_char, c_void};

use orthanc_ffi::abi::{self, http_method, service};

use crate::FakeOrthanc;
use crate::state::{bytes, code, params, text};

/// The answer of a route.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RestReply {
    /// The HTTP status, or 0 where the route returned an error code, which Orthanc would turn into an answer.
    pub status: u16,
    /// The error code that the route returned; 0 for success.
    pub code: i32,
    /// MIME type of the body; empty where only a status was sent.
    pub mime: String,
    /// The body.
    pub body: Vec<u8>,
    /// The `Allow` list of a 405.
    pub allow: String,
    /// Details for Orthanc's error answer.
    pub details: String,
}

impl RestReply {
    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Handles the services that answer a request.
    ///
    /// # Safety
    ///
    /// `params` must be the service's parameters, with the output that the route was given.
    pub(crate) unsafe fn service(number: i32, params: *const c_void) -> i32 {
        // Each of these parameters begins with the output.
        let output = params!(*mut Self, params);
        // SAFETY: null or the reply to the current request, which one thread handles at a time.
        let Some(reply) = (unsafe { output.as_mut() }) else { return code::NULL_POINTER };
        match number {
            service::ANSWER_BUFFER => {
                let answer = params!(abi::AnswerBuffer, params);
                reply.status = 200;
                reply.mime = text(answer.mime_type);
                // SAFETY: the plugin's answer has this size.
                reply.body = unsafe { bytes(answer.answer, answer.answer_size as usize) };
            }
            service::SEND_HTTP_STATUS => {
                let answer = params!(abi::SendHttpStatus, params);
                if matches!(answer.status, 200 | 301 | 401 | 405) {
                    return code::BAD_HTTP_STATUS;
                }
                reply.status = answer.status;
                // SAFETY: the plugin's body has this size.
                reply.body = unsafe { bytes(answer.body.cast(), answer.body_size as usize) };
            }
            service::SEND_METHOD_NOT_ALLOWED => {
                reply.status = 405;
                reply.allow = text(params!(abi::OutputPlusArgument, params).argument);
            }
            _ => reply.details = text(params!(abi::SetHttpErrorDetails, params).details),
        }
        code::SUCCESS
    }
}

/// C strings with the array of pointers to them.
struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    fn new<'a>(strings: impl Iterator<Item = &'a str>) -> Self {
        let owned: Vec<CString> = strings.map(|string| CString::new(string).unwrap_or_default()).collect();
        let pointers = owned.iter().map(|string| string.as_ptr()).collect();
        Self { _owned: owned, pointers }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.pointers.len()).unwrap_or(u32::MAX)
    }
}

impl FakeOrthanc {
    /// Calls the first route that matches the path of `uri`, with the header `x-test: yes`. Query parameters are not
    /// decoded. Without a matching route: code 17.
    pub fn rest(&self, method: &str, uri: &str, body: &[u8]) -> RestReply {
        let mut reply = RestReply::default();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let matched = self.state.routes.lock().iter().find_map(|(pattern, callback)| {
            let captures = pattern.captures(path)?;
            let groups = captures.iter().skip(1).map(|group| group.map_or("", |group| group.as_str()));
            Some((*callback, Strings::new(groups)))
        });
        let Some((callback, groups)) = matched else {
            reply.code = code::UNKNOWN_RESOURCE;
            return reply;
        };
        let pairs: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let get_keys = Strings::new(pairs.iter().map(|pair| pair.0));
        let get_values = Strings::new(pairs.iter().map(|pair| pair.1));
        let headers_keys = Strings::new(["x-test"].into_iter());
        let headers_values = Strings::new(["yes"].into_iter());
        let request = abi::HttpRequest {
            method: match method {
                "GET" => http_method::GET,
                "POST" => http_method::POST,
                "PUT" => http_method::PUT,
                "DELETE" => http_method::DELETE,
                _ => 0,
            },
            groups_count: groups.count(),
            groups: groups.pointers.as_ptr(),
            get_count: get_keys.count(),
            get_keys: get_keys.pointers.as_ptr(),
            get_values: get_values.pointers.as_ptr(),
            body: body.as_ptr().cast(),
            body_size: u32::try_from(body.len()).unwrap_or(u32::MAX),
            headers_count: headers_keys.count(),
            headers_keys: headers_keys.pointers.as_ptr(),
            headers_values: headers_values.pointers.as_ptr(),
        };
        let path_text = CString::new(path).unwrap_or_default();
        // SAFETY: the reply, the string and the request live until the plugin's callback returns.
        reply.code = unsafe { callback((&raw mut reply).cast(), path_text.as_ptr(), &raw const request) };
        if reply.code != code::SUCCESS {
            reply.status = 0;
        }
        reply
    }
}
