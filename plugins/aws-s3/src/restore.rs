//! The request `RestoreObject`, which `object_store` does not make.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html>

use async_trait::async_trait;
use bucket::{Cause, RestoreArchived, StorageError};
use cloud_http::observe_nested;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use object_store::Result;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::deletion::failed;
use crate::request::S3Http;

/// `Bulk` takes longer than `Standard` and costs less.
const TIERS: [&str; 3] = ["Standard", "Bulk", "Expedited"];
/// The error code for an object that is already being restored.
const IN_PROGRESS: &str = "RestoreAlreadyInProgress";
/// The characters that are encoded in the path of an object.
pub(crate) const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Restores the objects of one bucket.
pub(crate) struct ObjectRestore {
    /// The bucket's URL without a slash at the end.
    url: String,
    http: S3Http,
}

impl ObjectRestore {
    /// Restores objects of the bucket at `url`.
    pub(crate) fn new(url: &str, http: S3Http) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), http }
    }

    fn request(&self, path: &Path, tier: &str, days: Option<u32>) -> Result<HttpRequest> {
        let url = format!("{}/{}?restore", self.url, utf8_percent_encode(path.as_ref(), ENCODED));
        let mut request = HttpRequest::new(HttpRequestBody::from(document(tier, days)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.parse().map_err(|error| failed(Box::new(error)))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Ok(request)
    }
}

/// Returns the body of a request. S3 refuses days for objects that it moves to another tier.
fn document(tier: &str, days: Option<u32>) -> String {
    let days = days.map(|days| format!("<Days>{days}</Days>")).unwrap_or_default();
    format!(
        "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{days}<GlacierJobParameters>\
         <Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
    )
}

#[async_trait]
impl RestoreArchived for ObjectRestore {
    fn tiers(&self) -> &'static [&'static str] {
        &TIERS
    }

    fn makes_copies(&self) -> bool {
        true
    }

    fn advice(&self, error: &StorageError) -> Option<&'static str> {
        match error.cause {
            Cause::Denied => Some("restoring requires s3:RestoreObject on the objects"),
            Cause::Refused => Some(
                "choose another Tier if the answer is about that: Expedited is not possible for DEEP_ARCHIVE, and not at \
                 all times for GLACIER",
            ),
            _ => None,
        }
    }

    async fn restore(&self, path: &Path, tier: &str, days: Option<u32>) -> Result<()> {
        let request = self.request(path, tier, days)?;
        let (answer, exchange) = observe_nested(self.http.call(request)).await;
        let answer = answer.map_err(|error| failed(Box::new(error)))?;
        if answer.status().is_success() || exchange.code.as_deref() == Some(IN_PROGRESS) {
            return Ok(());
        }
        Err(failed(Box::from("the server refused")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_is_exact() {
        assert_eq!(
            document("Bulk", Some(7)),
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>7</Days>\
             <GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters></RestoreRequest>"
        );
        assert_eq!(
            document("Standard", None),
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><GlacierJobParameters>\
             <Tier>Standard</Tier></GlacierJobParameters></RestoreRequest>"
        );
    }
}
