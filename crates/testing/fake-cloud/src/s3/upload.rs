//! Reading the body of a `PUT` once, into one buffer, with its checksums.

use bytes::BytesMut;
use futures_util::StreamExt;
use s3s::dto::StreamingBlob;
use s3s::stream::ByteStream;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};

use crate::checksum::{Claimed, Crc64Nvme, Mismatch};
use crate::s3::object::Content;

/// Collects `body` and holds it against the checksums that the client claims.
///
/// The SHA-256 of a signed payload and the signatures of its chunks are checked by `s3s` as the stream is read.
pub(crate) async fn collect(
    body: Option<StreamingBlob>,
    mut claimed: Claimed,
    trailer: Option<TrailingHeaders>,
    limit: u64,
) -> S3Result<Content> {
    let mut crc = Crc64Nvme::new();
    let mut content = BytesMut::new();
    if let Some(mut body) = body {
        let expected = body.remaining_length().exact();
        let too_large = || s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size");
        if expected.is_some_and(|length| length as u64 > limit) {
            return Err(too_large());
        }
        content.reserve(expected.unwrap_or(0));
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(body_error)?;
            if (content.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            // While the chunk is in the cache.
            crc.update(&chunk);
            content.extend_from_slice(&chunk);
        }
    }
    if let Some(trailer) = trailer {
        trailer.read(|trailer| claimed.add_trailer(trailer));
    }
    claimed.check(&content, crc.finish()).map_err(|mismatch| {
        let code = match mismatch {
            Mismatch::Differs(_) => S3ErrorCode::BadDigest,
            Mismatch::Malformed(_) => S3ErrorCode::InvalidDigest,
        };
        S3Error::with_message(code, mismatch.to_string())
    })?;
    Ok(Content::new(content.freeze(), crc.finish()))
}

/// `s3s` keeps the types of these errors to itself; their text is all there is to tell them apart.
fn body_error(error: StdError) -> S3Error {
    let text = error.to_string();
    let code = if text.contains("Sha256Mismatch") {
        S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into())
    } else if text.contains("SignatureMismatch") {
        S3ErrorCode::SignatureDoesNotMatch
    } else {
        S3ErrorCode::IncompleteBody
    };
    let mut answer = S3Error::with_message(code, text);
    answer.set_status_code(if matches!(answer.code(), S3ErrorCode::SignatureDoesNotMatch) {
        http::StatusCode::FORBIDDEN
    } else {
        http::StatusCode::BAD_REQUEST
    });
    answer.set_source(error);
    answer
}
