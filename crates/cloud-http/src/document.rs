//! Reads responses that are documents, not objects.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use object_store::client::{HttpError, HttpResponse};

use crate::client::protocol;

/// Maximum number of bytes to read of a document, such as the answer to the deletion of 1,000 objects.
const MAX_DOCUMENT: usize = 8 * 1024 * 1024;
/// Maximum number of bytes to read of the answer of a key service. Answers have about 500.
const MAX_KEY_SERVICE_ANSWER: usize = 64 * 1024;

/// Reads the body of a response that is a document.
///
/// # Errors
///
/// Fails if the connection breaks, or the body is larger than any document of the clouds.
pub async fn small_body(response: HttpResponse) -> Result<Bytes, HttpError> {
    limited_body(response, MAX_DOCUMENT).await
}

/// Reads the answer of a key service.
///
/// # Errors
///
/// Fails if the connection breaks, or the answer has more than 64 KiB.
pub async fn key_service_answer(response: HttpResponse) -> Result<Bytes, HttpError> {
    limited_body(response, MAX_KEY_SERVICE_ANSWER).await
}

async fn limited_body(response: HttpResponse, limit: usize) -> Result<Bytes, HttpError> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => {
            Err(error.downcast().map_or_else(|_| protocol("the answer is too large"), |error| *error))
        }
    }
}
