//! What answers about objects have in common: headers, ranges, conditions, listings, bodies.

use std::collections::VecDeque;
use std::ops::Range as Span;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    ChecksumType, CommonPrefix, ETag, ETagCondition, EncodingType, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object as ListedObject, ObjectStorageClass, Range, ServerSideEncryption,
    StorageClass, Timestamp,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Result, StdError, s3_error};

use crate::s3::object::{Attributes, Object};
use crate::s3::store::{Entry, Store};

/// Bytes that are handed to the connection at a time.
pub(crate) const SLICE: usize = 1024 * 1024;

/// What S3 leaves as it is in a listing with `encoding-type=url`.
const UNENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// The encryption that S3 names in its answers: its own where none was asked for.
pub(crate) fn encryption(attributes: &Attributes) -> ServerSideEncryption {
    let asked = attributes.server_side_encryption.clone();
    asked.map_or_else(|| ServerSideEncryption::from_static(ServerSideEncryption::AES256), Into::into)
}

/// The headers of an object, without its length.
pub(crate) fn head(object: &Object, with_checksum: bool) -> HeadObjectOutput {
    let attributes = &object.attributes;
    // S3 names every class but this one.
    let class = attributes.storage_class.clone().filter(|class| class != StorageClass::STANDARD);
    let metadata = attributes.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        checksum_crc64nvme: with_checksum.then(|| object.content.checksum()),
        checksum_type: with_checksum.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        content_type: Some(
            attributes.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()),
        ),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(object.last_modified.into()),
        metadata: Some(metadata),
        server_side_encryption: Some(encryption(attributes)),
        ssekms_key_id: attributes.kms_key_id.clone(),
        storage_class: class.map(Into::into),
        ..HeadObjectOutput::default()
    }
}

/// The bytes that a range means, which is an error for every range of an empty object.
pub(crate) fn resolve(range: Range, length: u64) -> S3Result<Span<u64>> {
    let span = range.check(length).ok().filter(|span| span.start < span.end);
    span.ok_or_else(|| s3_error!(InvalidRange, "The requested range is not satisfiable"))
}

/// Lengths are far below 2^63.
pub(crate) fn to_i64(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The conditional headers of a read.
#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// 412 or 304 where a condition does not hold; ETags prevail over times, as RFC 9110 has it.
    pub(crate) fn check(self, object: &Object) -> S3Result<()> {
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == object.etag,
        };
        // HTTP dates have whole seconds.
        let since_epoch = object.last_modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs()));
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(time)) => modified > *time,
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        let unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(time)) => modified <= *time,
            (None, None) => false,
        };
        if unchanged { Err(s3_error!(NotModified, "Not Modified")) } else { Ok(()) }
    }
}

/// One page of a bucket.
pub(crate) fn list(store: &Store, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let limit = usize::try_from(input.max_keys.unwrap_or(1000).clamp(0, 1000)).unwrap_or(0);
    let after = match &input.continuation_token {
        Some(token) => percent_encoding::percent_decode_str(token)
            .decode_utf8()
            .map_err(|_| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?
            .into_owned(),
        None => input.start_after.clone().unwrap_or_default(),
    };
    let (entries, more) = store.list(&input.bucket, &prefix, &delimiter, &after, limit)?;
    let url = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    let write =
        |name: &str| if url { utf8_percent_encode(name, UNENCODED).to_string() } else { name.to_owned() };
    // S3 calls a page of no keys complete.
    let more = more && limit > 0;
    let next = entries
        .last()
        .filter(|_| more)
        .map(|last| utf8_percent_encode(last.name(), NON_ALPHANUMERIC).to_string());
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &entries {
        match entry {
            Entry::Object(key, object) => contents.push(listed(write(key), object)),
            Entry::Prefix(name) => prefixes.push(CommonPrefix { prefix: Some(write(name)) }),
        }
    }
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(write(&prefix)),
        delimiter: input.delimiter.as_deref().map(write),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(entries.len()).ok(),
        is_truncated: Some(more),
        continuation_token: input.continuation_token,
        next_continuation_token: next,
        start_after: input.start_after,
        encoding_type: input.encoding_type,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        ..ListObjectsV2Output::default()
    })
}

fn listed(key: String, object: &Object) -> ListedObject {
    let class = object.attributes.storage_class.clone();
    ListedObject {
        key: Some(key),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(object.last_modified.into()),
        size: Some(to_i64(object.content.length())),
        storage_class: Some(ObjectStorageClass::from(class.unwrap_or_else(|| "STANDARD".to_owned()))),
        ..ListedObject::default()
    }
}

/// A body of slices that are handed on as they are.
#[derive(Debug)]
pub(crate) struct Slices {
    slices: VecDeque<Bytes>,
    length: usize,
}

impl Slices {
    pub(crate) fn new(slices: Vec<Bytes>) -> Self {
        Self { length: slices.iter().map(Bytes::len).sum(), slices: slices.into() }
    }
}

impl Stream for Slices {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let slice = self.slices.pop_front();
        self.length -= slice.as_ref().map_or(0, Bytes::len);
        Poll::Ready(slice.map(Ok))
    }
}

impl ByteStream for Slices {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.length)
    }
}
