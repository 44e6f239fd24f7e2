//! The S3 operations, which `s3s` calls after checking signatures and parsing headers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag,
    ETagCondition, GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectOutput,
    GetPublicAccessBlockInput, GetPublicAccessBlockOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput, RestoreObjectInput,
    RestoreObjectOutput, ServerSideEncryption, StorageClass, StreamingBlob, UploadPartInput,
    UploadPartOutput,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use crate::checksum;
use crate::s3::archive::Archived;
use crate::s3::store::{Object, Page, Store};
use crate::s3::{Quirks, settings};
use crate::settings::BucketSettings;
use crate::stored::StoredObject;

/// An S3 service on a store in memory.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    pub(crate) quirks: Quirks,
    pub(crate) settings: BucketSettings,
    /// Returns headers of an object that `s3s` does not know.
    pub(crate) more_headers: fn(&Object) -> HeaderMap,
}

impl Service {
    /// Returns the checksum of an object as the server gives it.
    fn checksum(&self, object: &Object) -> String {
        if self.quirks.set().wrong_checksums {
            return checksum::crc64nvme_header(0);
        }
        object.stored.checksum_crc64nvme.clone()
    }
}

/// Returns an object with the attributes that the client sent, without its bytes.
fn described(
    storage_class: Option<StorageClass>,
    tagging: Option<String>,
    encryption: Option<ServerSideEncryption>,
) -> StoredObject {
    let tags = tagging.unwrap_or_default();
    StoredObject {
        storage_class: storage_class.map(|class| class.as_str().to_owned()),
        tags: url::form_urlencoded::parse(tags.as_bytes()).into_owned().collect(),
        server_side_encryption: encryption.map(|name| name.as_str().to_owned()),
        ..StoredObject::default()
    }
}

/// The checksums that a client sent for a body.
#[derive(Default)]
struct Sums {
    crc64nvme: Option<String>,
    crc32c: Option<String>,
    sha256: Option<String>,
    md5: Option<String>,
}

/// Reads a body and compares its checksums.
async fn collect(body: Option<StreamingBlob>, sent: Sums) -> S3Result<Bytes> {
    let body = body.map(Body::from).unwrap_or_default();
    // `s3s` checks the signature of the payload in this stream.
    let collected = body.collect().await.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
    let bytes = collected.to_bytes();
    let differs =
        sent.crc64nvme.is_some_and(|crc| crc != checksum::crc64nvme_header(checksum::crc64nvme(&bytes)))
            || sent.crc32c.is_some_and(|crc| crc != checksum::crc32c_header(&bytes))
            || sent.sha256.is_some_and(|sum| sum != checksum::sha256_header(&bytes))
            || sent.md5.is_some_and(|sum| sum != checksum::md5_header(&bytes));
    if differs { Err(s3_error!(BadDigest, "The checksum of the body differs")) } else { Ok(bytes) }
}

/// Maximum number of objects to delete in one request.
const LARGEST_DELETION: usize = 1000;

/// Maximum number of objects in one page.
const LARGEST_LIST: usize = 1000;

/// Encodes a key as S3 does in lists.
fn encoded(key: &str) -> String {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/').remove(b' ');
    utf8_percent_encode(key, ENCODED).to_string().replace(' ', "+")
}

/// Returns the bytes to answer with: the whole object, or a range, which must not be empty.
fn resolve(range: Option<s3s::dto::Range>, length: usize) -> S3Result<Range<usize>> {
    let Some(range) = range else { return Ok(0..length) };
    let within = range
        .check(length as u64)
        .ok()
        .and_then(|range| Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?));
    within
        .filter(|range| !range.is_empty())
        .ok_or_else(|| s3_error!(InvalidRange, "The requested range is not satisfiable"))
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let sent = Sums {
            crc64nvme: input.checksum_crc64nvme,
            crc32c: input.checksum_crc32c,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        let stored = StoredObject {
            bytes: collect(input.body, sent).await?,
            kms_key_id: input.ssekms_key_id,
            ..described(input.storage_class, input.tagging, input.server_side_encryption)
        };
        let may_replace = input.if_none_match.is_none();
        let object = self.store.put(&input.bucket, &input.key, stored, may_replace)?;
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc64nvme: Some(object.stored.checksum_crc64nvme.clone()),
            ..PutObjectOutput::default()
        };
        Ok(S3Response::with_headers(output, (self.more_headers)(&object)))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let object = self.store.open(&input.bucket, &input.key)?;
        if let Some(ETagCondition::ETag(etag)) = input.if_match
            && etag.value() != object.etag
        {
            return Err(s3_error!(PreconditionFailed, "A pre-condition you specified did not hold"));
        }
        let archived = self.store.archived(&input.bucket, &input.key);
        let length = object.stored.bytes.len();
        let is_whole = input.range.is_none();
        let range = resolve(input.range, length)?;
        let with_checksum = input.checksum_mode.is_some() && is_whole;
        let output = GetObjectOutput {
            body: Some(StreamingBlob::from(Body::from(object.stored.bytes.slice(range.clone())))),
            checksum_crc64nvme: with_checksum.then(|| self.checksum(&object)),
            content_length: i64::try_from(range.len()).ok(),
            content_range: (!is_whole)
                .then(|| format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            restore: archived.as_ref().and_then(Archived::restore_header),
            storage_class: archived.as_ref().map(Archived::class),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::with_headers(output, (self.more_headers)(&object)))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.store.get(&req.input.bucket, &req.input.key)?;
        let with_checksum = req.input.checksum_mode.is_some();
        let mut output = HeadObjectOutput {
            checksum_crc64nvme: with_checksum.then(|| self.checksum(&object)),
            content_length: i64::try_from(object.stored.bytes.len()).ok(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            ..HeadObjectOutput::default()
        };
        if let Some(archived) = self.store.archived(&req.input.bucket, &req.input.key) {
            archived.describe(&mut output);
        }
        Ok(S3Response::with_headers(output, (self.more_headers)(&object)))
    }

    async fn restore_object(
        &self,
        req: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        let RestoreObjectInput { bucket, key, restore_request, .. } = req.input;
        let status = self.store.restore(&bucket, &key, restore_request)?;
        Ok(S3Response::with_status(RestoreObjectOutput::default(), status))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store.delete(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        if delete.objects.is_empty() || delete.objects.len() > LARGEST_DELETION {
            return Err(s3_error!(MalformedXML, "The XML you provided was not well-formed"));
        }
        self.store.check_bucket(&bucket)?;
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for key in delete.objects.into_iter().map(|object| object.key) {
            match self.store.delete(&bucket, &key) {
                Ok(_) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => errors.push(s3s::dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(str::to_owned),
                    ..s3s::dto::Error::default()
                }),
            }
        }
        let output = DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let after = input.continuation_token.clone().or(input.start_after).unwrap_or_default();
        let prefix = input.prefix.unwrap_or_default();
        let limit = input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(LARGEST_LIST);
        let limit = limit.min(LARGEST_LIST);
        let folders = input.delimiter.is_none();
        let Page { objects, is_truncated } =
            self.store.list(&input.bucket, &prefix, folders, &after, limit)?;
        let is_encoded = input.encoding_type.is_some();
        let last = objects.last().map(|(key, _)| key.clone());
        let contents = objects.into_iter().map(|(key, object)| s3s::dto::Object {
            key: Some(if is_encoded { encoded(&key) } else { key }),
            size: i64::try_from(object.stored.bytes.len()).ok(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            ..s3s::dto::Object::default()
        });
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            contents: Some(contents.collect()),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn get_public_access_block(
        &self,
        _req: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        settings::check(&self.settings)?;
        settings::public_access_block(&self.settings).map(S3Response::new)
    }

    async fn get_bucket_versioning(
        &self,
        _req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        settings::check(&self.settings)?;
        Ok(S3Response::new(settings::versioning(&self.settings)))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        _req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        settings::check(&self.settings)?;
        settings::lifecycle(&self.settings).map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let stored = StoredObject {
            kms_key_id: input.ssekms_key_id,
            ..described(input.storage_class, input.tagging, input.server_side_encryption)
        };
        let upload_id = self.store.begin_upload(&input.bucket, &input.key, stored)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let output = UploadPartOutput {
            checksum_crc64nvme: input.checksum_crc64nvme.clone(),
            checksum_sha256: input.checksum_sha256.clone(),
            ..UploadPartOutput::default()
        };
        let sent = Sums {
            crc64nvme: input.checksum_crc64nvme,
            crc32c: input.checksum_crc32c,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        let bytes = collect(input.body, sent).await?;
        let etag = self.store.put_part(&input.bucket, &input.upload_id, input.part_number, bytes)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..output }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let listed: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let etag = part.e_tag.map(ETag::into_value);
                (part.part_number.unwrap_or_default(), etag.unwrap_or_default())
            })
            .collect();
        let object = self.store.complete_upload(&input.bucket, &input.upload_id, &listed)?;
        let output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..CompleteMultipartUploadOutput::default()
        };
        Ok(S3Response::with_headers(output, (self.more_headers)(&object)))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store.abort_upload(&req.input.bucket, &req.input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
