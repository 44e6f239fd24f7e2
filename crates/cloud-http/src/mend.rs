//! Completes answers to reads that are right, but not as `object_store` demands.
//!
//! | answer | is completed by |
//! | --- | --- |
//! | without `ETag` or `Last-Modified` | [`NO_ETAG`]; the epoch |
//! | part of an object, without `Content-Length` (chunked) | its length, from `Content-Range` |
//! | 200 with `Content-Range`, for a range | the status 206 |
//! | 200 with the whole object, for a range | the range, cut out |
//! | fewer bytes of a range than the object has | the whole range, so that the answer seems to end early |
//!
//! A whole object without any length cannot be completed. [`Exchange::no_length`](crate::Exchange::no_length) says
//! so, and the caller can ask for a range, whose answer contains the size.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequest, HttpResponseBody};

use crate::download::DownloadBody;
use crate::exchange::note;

/// The `ETag` of answers that have none. `object_store` demands one, also where nothing depends on it.
pub const NO_ETAG: &str = "\"no-etag\"";
/// The size of an object in Google, which says it also in chunked answers.
const GOOGLE_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");

/// What the answer depends on.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// First byte, and last one if the request names it.
    range: Option<(u64, Option<u64>)>,
}

impl Asked {
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
        Self {
            method: request.method().clone(),
            range: range.and_then(|range| parse_range(range.strip_prefix("bytes=")?)),
        }
    }

    /// Completes a successful answer to a read. That to an upload without an `ETag` stays as it is: it may come from
    /// anywhere, so that `bucket` looks for the object.
    pub(crate) fn mend(&self, head: &mut Parts, body: DownloadBody) -> HttpResponseBody {
        if !matches!(self.method, Method::GET | Method::HEAD) {
            return HttpResponseBody::new(body);
        }
        let date = head.headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
        if date.is_none_or(|date| httpdate::parse_http_date(date).is_err()) {
            head.headers.insert(LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        }
        head.headers.entry(ETAG).or_insert(HeaderValue::from_static(NO_ETAG));
        if let Some(range) = self.range.filter(|_| head.status == StatusCode::OK)
            && let Some(window) = partial(head, range)
        {
            return HttpResponseBody::new(Window { inner: body, window });
        }
        if let Some(range) = self.range.filter(|_| head.status == StatusCode::PARTIAL_CONTENT) {
            complete(head, range);
        }
        if !head.headers.contains_key(CONTENT_LENGTH) {
            let part = content_range(&head.headers).map(|(first, last, _)| last - first + 1);
            match part.or_else(|| number(&head.headers, &GOOGLE_LENGTH)) {
                Some(length) => drop(head.headers.insert(CONTENT_LENGTH, length.into())),
                None => note(|exchange| exchange.no_length = true),
            }
        }
        HttpResponseBody::new(body)
    }
}

/// Makes the answer 200 for a range one with 206. Returns the bytes to skip and those to keep if the body is the whole
/// object.
fn partial(head: &mut Parts, (first, last): (u64, Option<u64>)) -> Option<(u64, u64)> {
    let length = number(&head.headers, &CONTENT_LENGTH);
    if let Some((first, last, _)) = content_range(&head.headers)
        && length.is_none_or(|length| length == last - first + 1)
    {
        head.status = StatusCode::PARTIAL_CONTENT;
        return None;
    }
    let size = length?;
    if first >= size {
        head.status = StatusCode::RANGE_NOT_SATISFIABLE;
        note(|exchange| exchange.status = Some(head.status.as_u16()));
        return Some((0, 0));
    }
    let last = last.unwrap_or(u64::MAX).min(size - 1);
    head.status = StatusCode::PARTIAL_CONTENT;
    head.headers.insert(CONTENT_LENGTH, (last - first + 1).into());
    let range = HeaderValue::from_str(&format!("bytes {first}-{last}/{size}")).ok()?;
    head.headers.insert(CONTENT_RANGE, range);
    note(|exchange| exchange.ignores_ranges = true);
    Some((first, last - first + 1))
}

/// Changes an answer that has fewer bytes of a range than the object: it seems to end early, so that the rest is asked for.
fn complete(head: &mut Parts, (first, last): (u64, Option<u64>)) {
    let Some((start, end, size)) = content_range(&head.headers) else { return };
    let wanted = last.unwrap_or(u64::MAX).min(size.saturating_sub(1));
    if start != first || end >= wanted {
        return;
    }
    let range = HeaderValue::from_str(&format!("bytes {first}-{wanted}/{size}"));
    range.into_iter().for_each(|range| drop(head.headers.insert(CONTENT_RANGE, range)));
}

/// Parses `FIRST-LAST` and `FIRST-`.
fn parse_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = range.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    let first = first.parse().ok()?;
    last.is_none_or(|last| first <= last).then_some((first, last))
}

/// Parses `Content-Range: bytes FIRST-LAST/SIZE`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = parse_range(range)?;
    Some((first, last?, size.parse().ok()?))
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

pin_project_lite::pin_project! {
    /// Some of the bytes of a body.
    struct Window {
        #[pin]
        inner: DownloadBody,
        // Bytes to skip, and to keep after them.
        window: (u64, u64),
    }
}

impl Body for Window {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let mut this = self.project();
        let (skip, keep) = this.window;
        while *keep > 0 {
            let frame = match this.inner.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            let Ok(mut bytes) = frame.into_data() else { continue };
            let skipped = bytes.split_to(within(*skip, &bytes));
            *skip -= skipped.len() as u64;
            bytes.truncate(within(*keep, &bytes));
            *keep -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.window.1 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.window.1)
    }
}

/// At most `count`, but not more than there are.
fn within(count: u64, bytes: &Bytes) -> usize {
    usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(HeaderName, &str)]) -> Parts {
        let mut head = http::Response::new(()).into_parts().0;
        head.status = StatusCode::from_u16(status).unwrap();
        head.headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        head
    }

    #[test]
    fn ranges_are_parsed() {
        for (text, expected) in [
            ("0-9", Some((0, Some(9)))),
            ("5-", Some((5, None))),
            ("5-5", Some((5, Some(5)))),
            ("5-4", None),
            ("-5", None),
            ("a-b", None),
            ("0-1,3-4", None),
            ("", None),
        ] {
            assert_eq!(parse_range(text), expected, "{text}");
        }
        for (text, expected) in [
            ("bytes 0-9/10", Some((0, 9, 10))),
            ("bytes 0-9/*", None),
            ("bytes */10", None),
            ("lines 0-9/10", None),
        ] {
            assert_eq!(content_range(&answer(206, &[(CONTENT_RANGE, text)]).headers), expected, "{text}");
        }
    }

    #[test]
    fn whole_object_in_place_of_a_range_is_cut() {
        let length = |length| (CONTENT_LENGTH, length);
        let range = |range| (CONTENT_RANGE, range);
        for (fields, asked, status, cut) in [
            // `rclone serve s3`.
            (vec![length("10"), range("bytes 5-14/20")], (5, Some(14)), 206, None),
            (vec![range("bytes 5-14/20")], (5, Some(14)), 206, None),
            // A range for the wrong body: the length decides.
            (vec![length("20"), range("bytes 5-14/20")], (5, Some(14)), 206, Some((5, 10))),
            (vec![length("20")], (5, Some(14)), 206, Some((5, 10))),
            (vec![length("20")], (5, Some(99)), 206, Some((5, 15))),
            (vec![length("20")], (0, None), 206, Some((0, 20))),
            (vec![length("20")], (20, Some(21)), 416, Some((0, 0))),
            (vec![length("0")], (0, None), 416, Some((0, 0))),
            // `object_store` refuses an answer without any length.
            (vec![], (5, Some(14)), 200, None),
        ] {
            let mut head = answer(200, &fields);
            assert_eq!(partial(&mut head, asked), cut, "{fields:?} {asked:?}");
            assert_eq!(head.status, status, "{fields:?} {asked:?}");
        }
    }
}
