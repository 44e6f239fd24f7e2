//! Batches of the JSON interface, which delete several objects with one request. `object_store` uses the XML interface,
//! which has no such request.
//!
//! <https://cloud.google.com/storage/docs/batch>

use async_trait::async_trait;
use bucket::{BulkDelete, Deletion};
use cloud_http::{BatchAnswer, BatchRequest, CloudHttp, Refusal};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method};
use object_store::Result;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::gcp::GcpCredentialProvider;
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

const STORE: &str = "GCS";
/// Maximum number of objects in one request.
const LIMIT: usize = 100;
/// The characters that are encoded in the name of an object.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Deletes the objects of one bucket.
pub(crate) struct ObjectDeletion {
    credentials: GcpCredentialProvider,
    /// The address without a slash at the end.
    endpoint: String,
    bucket: String,
    http: CloudHttp,
}

impl ObjectDeletion {
    pub(crate) fn new(
        endpoint: &Url,
        bucket: &str,
        credentials: GcpCredentialProvider,
        http: &CloudHttp,
    ) -> Self {
        let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
        Self { credentials, endpoint, bucket: bucket.to_owned(), http: http.clone() }
    }
}

#[async_trait]
impl BulkDelete for ObjectDeletion {
    fn limit(&self) -> usize {
        LIMIT
    }

    async fn delete_many(&self, names: &[Path]) -> Result<Vec<Deletion>> {
        let body = body(&self.bucket, names)?;
        let length = HeaderValue::from(body.len());
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = Method::POST;
        let url = format!("{}/batch/storage/v1", self.endpoint);
        *request.uri_mut() = url.parse().map_err(|error| failed(Box::new(error)))?;
        // The server applies the token to each request of the batch.
        let bearer = bearer(&self.credentials).await?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(BatchRequest::CONTENT_TYPE));
        let response = self.http.call(request).await.map_err(|error| failed(Box::new(error)))?;
        if !response.status().is_success() {
            return Err(failed(Box::from("the server refused")));
        }
        let answers = BatchAnswer::read(response).await.map_err(|error| failed(Box::new(error)))?;
        Ok(Deletion::of_batch(names.len(), numbered(answers.unwrap_or_default(), names.len()), is_missing))
    }
}

/// Returns the value of `Authorization`.
pub(crate) async fn bearer(credentials: &GcpCredentialProvider) -> Result<HeaderValue> {
    let credential = credentials.get_credential().await?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", credential.bearer))
        .map_err(|_| failed(Box::from("the access token is not valid")))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

pub(crate) fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source }
}

/// Returns the requests that delete the objects.
fn body(bucket: &str, names: &[Path]) -> Result<String> {
    let mut batch = BatchRequest::default();
    for (id, name) in names.iter().enumerate() {
        let name = utf8_percent_encode(name.as_ref(), ENCODED);
        let path = format!("/storage/v1/b/{bucket}/o/{name}");
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = path.parse().map_err(|error| failed(Box::new(error)))?;
        batch.push(format_args!("<{id}>"), &request);
    }
    Ok(batch.into_body())
}

/// Numbers answers without a number, which are in the order of the requests.
fn numbered(mut answers: Vec<BatchAnswer>, requests: usize) -> Vec<BatchAnswer> {
    if answers.len() == requests && answers.iter().all(|answer| answer.id.is_none()) {
        for (number, answer) in answers.iter_mut().enumerate() {
            answer.id = Some(number);
        }
    }
    answers
}

/// Whether the object is missing. The code for a missing bucket is the same.
fn is_missing(refusal: &Refusal) -> bool {
    refusal.message.as_ref().is_some_and(|message| message.starts_with("No such object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        let names = ["a/b.dcm", "50% #1?", "a+b&c=d", "Röntgen~-_."].map(|name| Path::parse(name).unwrap());
        let body = body("bucket", &names).unwrap();
        let lines: Vec<_> = body.lines().filter(|line| line.starts_with("DELETE")).collect();
        assert_eq!(
            lines,
            [
                "DELETE /storage/v1/b/bucket/o/a%2Fb.dcm HTTP/1.1",
                "DELETE /storage/v1/b/bucket/o/50%25%20%231%3F HTTP/1.1",
                "DELETE /storage/v1/b/bucket/o/a%2Bb%26c%3Dd HTTP/1.1",
                "DELETE /storage/v1/b/bucket/o/R%C3%B6ntgen~-_. HTTP/1.1",
            ]
        );
        assert!(body.contains("\r\nContent-ID: <3>\r\n"), "{body}");
    }

    #[test]
    fn answers_without_numbers_are_in_order() {
        let answer = |id, status| BatchAnswer { id, status, refusal: Refusal::default() };
        let unnumbered = vec![answer(None, 204), answer(None, 403)];
        assert_eq!(numbered(unnumbered.clone(), 2), [answer(Some(0), 204), answer(Some(1), 403)]);
        assert_eq!(numbered(unnumbered.clone(), 3), unnumbered);
        let partly = vec![answer(Some(1), 204), answer(None, 403)];
        assert_eq!(numbered(partly.clone(), 2), partly);
    }

    #[test]
    fn missing_object_differs_from_missing_bucket() {
        for (message, expected) in [
            ("No such object: bucket/a.dcm", true),
            ("The specified bucket does not exist.", false),
            ("Not Found", false),
        ] {
            let refusal = Refusal { message: Some(message.to_owned()), ..Refusal::default() };
            assert_eq!(is_missing(&refusal), expected, "{message}");
        }
        assert!(!is_missing(&Refusal::default()));
    }
}
