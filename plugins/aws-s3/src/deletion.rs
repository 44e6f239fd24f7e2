//! The request `DeleteObjects`. `object_store` also makes it, but panics if the answer names another object, and
//! takes an object that the answer does not name as deleted.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>

use std::collections::HashMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bucket::{Answer, BulkDelete, Deletion};
use cloud_http::small_body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use md5::{Digest as _, Md5};
use object_store::Result;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::path::Path;
use quick_xml::escape::escape;
use serde::Deserialize;

use crate::request::{CONTENT_MD5, S3Http};

const STORE: &str = "S3";
/// Maximum number of objects in one request.
const LIMIT: usize = 1000;
/// Statuses that S3 documents for error codes of single objects.
const STATUSES: [(&str, u16); 7] = [
    ("AccessDenied", 403),
    ("NoSuchKey", 404),
    ("NoSuchVersion", 404),
    ("NoSuchBucket", 404),
    ("InternalError", 500),
    ("SlowDown", 503),
    ("ServiceUnavailable", 503),
];
/// The status of all other codes.
const REFUSED: u16 = 400;

/// Deletes the objects of one bucket.
pub(crate) struct ObjectDeletion {
    url: String,
    http: S3Http,
}

/// The document of an answer.
#[derive(Debug, Deserialize)]
enum Document {
    DeleteResult(DeleteResult),
    /// An error with status 200.
    Error(Failure),
}

#[derive(Debug, Deserialize)]
struct DeleteResult {
    #[serde(rename = "Deleted", default)]
    deleted: Vec<Deleted>,
    #[serde(rename = "Error", default)]
    errors: Vec<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deleted {
    key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    key: String,
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

impl ObjectDeletion {
    /// Deletes objects of the bucket at `url`.
    pub(crate) fn new(url: &str, http: S3Http) -> Self {
        Self { url: format!("{url}?delete"), http }
    }

    fn request(&self, names: &[Path]) -> Result<HttpRequest> {
        let body = document(names);
        // The only checksum that every server accepts for this request; many demand it.
        let md5 = BASE64.encode(Md5::digest(&body));
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.parse().map_err(|error| failed(Box::new(error)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        headers.insert(CONTENT_MD5, HeaderValue::from_str(&md5).map_err(|error| failed(Box::new(error)))?);
        Ok(request)
    }
}

#[async_trait]
impl BulkDelete for ObjectDeletion {
    fn limit(&self) -> usize {
        LIMIT
    }

    async fn delete_many(&self, names: &[Path]) -> Result<Vec<Deletion>> {
        let request = self.request(names)?;
        let response = self.http.call(request).await.map_err(|error| failed(Box::new(error)))?;
        if !response.status().is_success() {
            return Err(failed(Box::from("the server refused")));
        }
        let body = small_body(response).await.map_err(|error| failed(Box::new(error)))?;
        Ok(deletions(names, &body, &|text| self.http.http.one_line(text)))
    }
}

/// Returns the status that S3 documents for an error code.
pub(crate) fn status_of(code: &str) -> Option<u16> {
    STATUSES.iter().find(|(known, _)| *known == code).map(|(_, status)| *status)
}

pub(crate) fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source }
}

/// Returns the list of objects to delete.
fn document(names: &[Path]) -> String {
    let mut document = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for name in names {
        document.push_str("<Object><Key>");
        document.push_str(&escape(name.as_ref()));
        document.push_str("</Key></Object>");
    }
    document.push_str("</Delete>");
    document
}

/// Reads the answer to the deletion of `names`, whose texts `clean` shortens for messages.
fn deletions(names: &[Path], answer: &[u8], clean: &dyn Fn(&str) -> String) -> Vec<Deletion> {
    let results = match quick_xml::de::from_reader(answer) {
        Ok(Document::DeleteResult(results)) => results,
        Ok(Document::Error(failure)) => {
            let refused = Deletion::Refused(failure.into_answer(clean));
            return vec![refused; names.len()];
        }
        Err(_) => return vec![Deletion::Unclear; names.len()],
    };
    let deleted = results.deleted.into_iter().map(|deleted| (deleted.key, Deletion::Done));
    let errors = results
        .errors
        .into_iter()
        .map(|mut failure| (std::mem::take(&mut failure.key), Deletion::Refused(failure.into_answer(clean))));
    let by_name: HashMap<_, _> = deleted.chain(errors).collect();
    names.iter().map(|name| by_name.get(name.as_ref()).cloned().unwrap_or(Deletion::Unclear)).collect()
}

impl Failure {
    fn into_answer(self, clean: &dyn Fn(&str) -> String) -> Answer {
        let Self { code, message, request_id, .. } = self;
        let status = code.as_deref().and_then(status_of);
        let text = |text: Option<String>| text.as_deref().map(clean);
        Answer {
            status: status.unwrap_or(REFUSED),
            code: text(code),
            message: text(message),
            request_id: text(request_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use cloud_http::one_line;

    use super::*;

    fn paths(names: &[&str]) -> Vec<Path> {
        names.iter().map(|name| Path::parse(name).unwrap()).collect()
    }

    fn refused(status: u16, code: &str, message: &str) -> Deletion {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Deletion::Refused(Answer { status, code: text(code), message: text(message), request_id: None })
    }

    #[test]
    fn document_is_exact() {
        assert_eq!(
            document(&paths(&["a/b.dcm", "50% #1 &<>\"'", "Röntgen 東京"])),
            "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>a/b.dcm</Key></Object>\
             <Object><Key>50% #1 &amp;&lt;&gt;&quot;&apos;</Key></Object>\
             <Object><Key>Röntgen 東京</Key></Object></Delete>"
        );
    }

    #[test]
    fn answer_names_each_object() {
        let names = paths(&["a", "b & c", "d", "e", "f"]);
        let answer = "<?xml version=\"1.0\"?>\n<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                      <Error><Key>d</Key><Code>AccessDenied</Code><Message>No &amp; no</Message></Error>\
                      <Deleted><Key>b &amp; c</Key><DeleteMarker>true</DeleteMarker></Deleted>\
                      <Error><Key>e</Key><Code>InternalError</Code></Error>\
                      <Deleted><Key>a</Key></Deleted><Deleted><Key>another</Key></Deleted></DeleteResult>";
        let expected = [
            Deletion::Done,
            Deletion::Done,
            refused(403, "AccessDenied", "No & no"),
            refused(500, "InternalError", ""),
            Deletion::Unclear,
        ];
        assert_eq!(deletions(&names, answer.as_bytes(), &one_line), expected);
    }

    #[test]
    fn error_with_status_200_refuses_all() {
        let answer = b"<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>";
        assert_eq!(
            deletions(&paths(&["a", "b"]), answer, &one_line),
            vec![refused(503, "SlowDown", "Reduce"); 2]
        );
    }

    #[test]
    fn other_answers_leave_it_open() {
        for answer in ["", "<html><body>Welcome</body></html>", "<DeleteResult>", "<DeleteResult/>", "{}"] {
            assert_eq!(
                deletions(&paths(&["a"]), answer.as_bytes(), &one_line),
                [Deletion::Unclear],
                "{answer}"
            );
        }
    }
}
