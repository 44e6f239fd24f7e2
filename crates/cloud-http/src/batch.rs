//! Several requests in the body of one, as `multipart/mixed` with parts of type `application/http`.
//!
//! - Azure: <https://learn.microsoft.com/rest/api/storageservices/blob-batch>
//! - Google: <https://cloud.google.com/storage/docs/batch>

use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use object_store::client::{HttpError, HttpRequest, HttpResponse};

use crate::document::small_body;
use crate::error_body;
use crate::exchange::Refusal;
use crate::redact::Secrets;

/// The body of a request that contains requests without a body of their own.
#[derive(Default)]
pub struct BatchRequest {
    body: String,
}

impl fmt::Debug for BatchRequest {
    /// Omits the requests, which contain signatures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRequest").finish_non_exhaustive()
    }
}

impl BatchRequest {
    /// The header `Content-Type` of the request.
    ///
    /// The boundary can be constant, because paths and headers cannot contain a line that begins with it.
    pub const CONTENT_TYPE: &str = "multipart/mixed; boundary=orthanc-object-storage-batch";

    /// Adds a request. The server marks its answer with `id`.
    pub fn push(&mut self, id: impl fmt::Display, request: &HttpRequest) {
        // Azure refuses the spelling `Content-Id`.
        self.lines(&[
            BOUNDARY,
            "Content-Type: application/http",
            "Content-Transfer-Encoding: binary",
            &format!("Content-ID: {id}"),
            "",
        ]);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        self.lines(&[&format!("{} {path} HTTP/1.1", request.method())]);
        for (name, value) in request.headers() {
            if let Ok(value) = value.to_str() {
                self.lines(&[&format!("{}: {value}", title_case(name.as_str()))]);
            }
        }
        self.lines(&["", ""]);
    }

    /// Returns the body.
    pub fn into_body(mut self) -> String {
        self.lines(&[&format!("{BOUNDARY}--")]);
        self.body
    }

    fn lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.body.push_str(line);
            self.body.push_str("\r\n");
        }
    }
}

/// The line before each part of a [`BatchRequest`].
const BOUNDARY: &str = "--orthanc-object-storage-batch";

/// Writes the name of a header as it is usually written, for servers that compare it letter by letter.
fn title_case(name: &str) -> String {
    let mut at_start = true;
    let mut letters = String::with_capacity(name.len());
    for letter in name.chars() {
        letters.push(if at_start { letter.to_ascii_uppercase() } else { letter });
        at_start = letter == '-';
    }
    letters
}

/// The answer to one request of a [`BatchRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The number given to [`BatchRequest::push`].
    pub id: Option<usize>,
    /// The HTTP status.
    pub status: u16,
    /// The content of the error body, if there is one.
    pub refusal: Refusal,
}

impl BatchAnswer {
    /// Reads the answers in the response to a batch; `None` if the response is something else.
    ///
    /// # Errors
    ///
    /// Fails if the connection breaks.
    pub async fn read(response: HttpResponse) -> Result<Option<Vec<Self>>, HttpError> {
        let boundary = boundary(response.headers());
        let body = small_body(response).await?;
        let text = String::from_utf8_lossy(&body).replace("\r\n", "\n");
        Ok(boundary.and_then(|boundary| parse(&text, &boundary)))
    }
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (media_type, parameters) = content_type.split_once(';')?;
    if !media_type.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (!boundary.is_empty()).then(|| boundary.to_owned())
}

fn parse(text: &str, boundary: &str) -> Option<Vec<BatchAnswer>> {
    let delimiter = format!("--{boundary}");
    let mut parts = text.split(&delimiter).skip(1);
    let mut answers = Vec::new();
    loop {
        // Without the last boundary, the body is not complete.
        let part = parts.next()?;
        if part.starts_with("--") {
            return Some(answers);
        }
        answers.push(answer(part)?);
    }
}

fn answer(part: &str) -> Option<BatchAnswer> {
    // There should be an empty line before, which an emulator of Google leaves out.
    let (part_head, response) = part.split_once("\nHTTP/")?;
    let (head, body) = response.split_once("\n\n").unwrap_or((response, ""));
    let (status_line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let status = status_line.split(' ').nth(1)?.parse().ok()?;
    let refusal = error_body::parse(body.trim().as_bytes(), &Secrets::default());
    let refusal = Refusal {
        code: header(headers, "x-ms-error-code").and_then(error_body::name).or(refusal.code),
        request_id: header(headers, "x-ms-request-id").and_then(error_body::name).or(refusal.request_id),
        message: refusal.message,
    };
    Some(BatchAnswer { id: header(part_head, "content-id").and_then(id), status, refusal })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(found, _)| found.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Parses `3`, `<3>` and `<response-3>`.
fn id(content_id: &str) -> Option<usize> {
    content_id.trim_matches(['<', '>']).rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn request_is_exact() {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = "https://host/bucket/a%20%26%23?sv=1&sig=a%2Bb".parse().unwrap();
        request.headers_mut().insert("x-ms-version", HeaderValue::from_static("2023-11-03"));
        let mut batch = BatchRequest::default();
        batch.push(7, &request);
        assert_eq!(
            batch.into_body(),
            "--orthanc-object-storage-batch\r\nContent-Type: application/http\r\n\
             Content-Transfer-Encoding: binary\r\nContent-ID: 7\r\n\r\n\
             DELETE /bucket/a%20%26%23?sv=1&sig=a%2Bb HTTP/1.1\r\nX-Ms-Version: 2023-11-03\r\n\r\n\r\n\
             --orthanc-object-storage-batch--\r\n"
        );
        assert!(BatchRequest::CONTENT_TYPE.ends_with(&BOUNDARY[2..]));
    }

    #[test]
    fn answers_of_azure_and_google_are_parsed() {
        let text = "ignored\n--b\nContent-Type: application/http\nContent-ID: 1\n\nHTTP/1.1 202 Accepted\n\
                    x-ms-request-id: 11\n\n--b\nContent-Type: application/http\nContent-ID: 0\n\n\
                    HTTP/1.1 404 The blob does not exist.\nx-ms-error-code: BlobNotFound\n\
                    x-ms-request-id: 12\nContent-Type: application/xml\n\n<?xml version=\"1.0\"?>\n<Error>\
                    <Code>BlobNotFound</Code><Message>The blob\nTime:1</Message></Error>\n--b\n\
                    Content-Type: application/http\nContent-ID: <response-2>\n\nHTTP/1.1 403 Forbidden\n\
                    Content-Type: application/json\n\n{\"error\": {\"code\": 403, \"message\": \"No access\",\n\n\
                    \"errors\": [{\"reason\": \"forbidden\"}]}}\n--b--\n";
        let refusal = |code: &str, message: &str, id: Option<&str>| Refusal {
            code: Some(code.to_owned()),
            message: Some(message.to_owned()),
            request_id: id.map(str::to_owned),
        };
        let accepted = Refusal { request_id: Some("11".to_owned()), ..Refusal::default() };
        let expected = [
            (Some(1), 202, accepted),
            (Some(0), 404, refusal("BlobNotFound", "The blob", Some("12"))),
            (Some(2), 403, refusal("forbidden", "No access", None)),
        ];
        let expected = expected.map(|(id, status, refusal)| BatchAnswer { id, status, refusal });
        assert_eq!(parse(text, "b").unwrap(), expected);
    }

    #[test]
    fn other_texts_are_no_answers() {
        for text in [
            "",
            "--b--x",
            "--b\nContent-ID: 1\n\nHTTP/1.1 202 Accepted\n\n",
            "--b\nContent-ID: 1\n\nhtml\n--b--\n",
            "--b\nContent-ID: 1\n\nHTTP/1.1 two\n--b--\n",
        ] {
            assert!(parse(text, "b").is_none_or(|answers| answers.is_empty()), "{text}");
        }
    }

    #[test]
    fn boundary_may_be_quoted() {
        for (content_type, expected) in [
            ("multipart/mixed; boundary=a_b", Some("a_b")),
            ("Multipart/Mixed; charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/mixed", None),
            ("multipart/mixed; boundary=", None),
            ("text/html; boundary=a", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(boundary(&headers).as_deref(), expected, "{content_type}");
        }
    }
}
