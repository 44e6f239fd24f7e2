//! The plugin's REST routes, called as Orthanc calls them.

use std::ffi::{CString, c_char, c_void};

use orthanc_ffi::abi::{self, http_method, service};

use crate::FakeOrthanc;
use crate::state::{bytes, code, read, text};

/// What a route has answered.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RestReply {
    /// The HTTP status, or 0 where the route returned an error code, from which Orthanc would make an answer.
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
    /// The body as JSON; null where it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Does what the services on an answer do.
    ///
    /// # Safety
    ///
    /// `params` must be what the service expects, with the output that the route was given.
    pub(crate) unsafe fn service(number: i32, params: *const c_void) -> i32 {
        // SAFETY: each of these parameters begins with the output.
        let output = unsafe { read::<*mut Self>(params) };
        // SAFETY: null or the reply of the request that is being answered, which one thread does at a time.
        let Some(reply) = (unsafe { output.as_mut() }) else { return code::NULL_POINTER };
        match number {
            service::ANSWER_BUFFER => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::AnswerBuffer>(params) };
                reply.status = 200;
                reply.mime = text(params.mime_type);
                // SAFETY: the plugin's answer has this size.
                reply.body = unsafe { bytes(params.answer, params.answer_size as usize) };
            }
            service::SEND_HTTP_STATUS => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::SendHttpStatus>(params) };
                if matches!(params.status, 200 | 301 | 401 | 405) {
                    return code::BAD_HTTP_STATUS;
                }
                reply.status = params.status;
                // SAFETY: the plugin's body has this size.
                reply.body = unsafe { bytes(params.body.cast(), params.body_size as usize) };
            }
            service::SEND_METHOD_NOT_ALLOWED => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::OutputPlusArgument>(params) };
                reply.status = 405;
                reply.allow = text(params.argument);
            }
            service::SET_HTTP_ERROR_DETAILS => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::SetHttpErrorDetails>(params) };
                reply.details = text(params.details);
            }
            _ => return code::UNKNOWN_SERVICE,
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
    /// Calls the first route that matches the path of `uri`. Query parameters are passed as they are, without decoding.
    /// Without a matching route: code 17.
    pub fn rest(&self, method: &str, uri: &str, body: &[u8]) -> RestReply {
        self.rest_with_headers(method, uri, &[], body)
    }

    /// As [`rest`](Self::rest), with headers (names in lower case).
    pub fn rest_with_headers(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> RestReply {
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
        let query: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect();
        let get_keys = Strings::new(query.iter().map(|pair| pair.0));
        let get_values = Strings::new(query.iter().map(|pair| pair.1));
        let headers_keys = Strings::new(headers.iter().map(|pair| pair.0));
        let headers_values = Strings::new(headers.iter().map(|pair| pair.1));
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
        let path = CString::new(path).unwrap_or_default();
        // SAFETY: the plugin's callback gets a reply, a string and a request that live until it returns.
        reply.code = unsafe { callback((&raw mut reply).cast(), path.as_ptr(), &raw const request) };
        if reply.code != code::SUCCESS {
            reply.status = 0;
        }
        reply
    }
}
