//! The S3 operations, as `s3s` calls them once it has checked signatures and parsed headers.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput,
    CopyObjectResult, CopySource, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    GetObjectTaggingInput, GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, PutObjectInput,
    PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput, StreamingBlob, Tag, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::checksum::Claimed;
use crate::s3::answer::{self, SLICE};
use crate::s3::attributes::{Said, check_readable};
use crate::s3::object::Object;
use crate::s3::store::{Condition, ListedPart, Store, StoreError};
use crate::s3::upload;

/// An S3 service on a store in memory.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    pub(crate) region: String,
    /// Bytes that one body may have.
    pub(crate) body_limit: u64,
    /// What `x-amz-storage-class` may be.
    pub(crate) storage_classes: &'static [&'static str],
    /// Headers of answers about an object that `s3s` does not know.
    pub(crate) also: fn(&Object) -> HeaderMap,
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::InvalidPart => S3ErrorCode::InvalidPart,
            StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            StoreError::InvalidPartNumber => S3ErrorCode::InvalidArgument,
            StoreError::NoParts => S3ErrorCode::MalformedXML,
            StoreError::EntityTooSmall => S3ErrorCode::EntityTooSmall,
            StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        };
        Self::with_message(code, error.to_string())
    }
}

/// `If-None-Match` (only `*` means anything on a write) and `If-Match`.
fn condition(if_none_match: Option<&ETagCondition>, if_match: Option<ETagCondition>) -> S3Result<Condition> {
    match (if_none_match, if_match) {
        (None, None) => Ok(Condition::Always),
        (Some(ETagCondition::Any), None) => Ok(Condition::Absent),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Matches(None)),
        (None, Some(ETagCondition::ETag(etag))) => Ok(Condition::Matches(Some(etag.into_value()))),
        _ => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        )),
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        self.store.check_bucket(&input.bucket)?;
        let said = Said {
            content_type: input.content_type,
            storage_class: input.storage_class,
            tagging: input.tagging,
            server_side_encryption: input.server_side_encryption,
            kms_key_id: input.ssekms_key_id,
            metadata: input.metadata,
        };
        let attributes = said.check(self.storage_classes)?;
        let condition = condition(input.if_none_match.as_ref(), input.if_match)?;
        let claimed = Claimed {
            crc64nvme: input.checksum_crc64nvme,
            crc32: input.checksum_crc32,
            crc32c: input.checksum_crc32c,
            sha1: input.checksum_sha1,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        let content = upload::collect(input.body, claimed, req.trailing_headers, self.body_limit).await?;
        let object =
            self.store.put(&input.bucket, &input.key, Object::new(content, attributes), &condition)?;
        let also = (self.also)(&object);
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc64nvme: Some(object.content.checksum()),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            server_side_encryption: Some(answer::encryption(&object.attributes)),
            ssekms_key_id: object.attributes.kms_key_id.clone(),
            ..PutObjectOutput::default()
        };
        Ok(S3Response::with_headers(output, also))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let object = self.store.get(&input.bucket, &input.key)?;
        check_readable(&object.attributes)?;
        let conditions = answer::Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&object)?;
        let length = object.content.length();
        let range = input.range.map(|range| answer::resolve(range, length)).transpose()?;
        let slices = object.content.slices(range.clone().unwrap_or(0..length), SLICE);
        let head = answer::head(&object, input.checksum_mode.is_some() && range.is_none());
        let output = GetObjectOutput {
            accept_ranges: head.accept_ranges,
            body: Some(StreamingBlob::new(answer::Slices::new(slices))),
            checksum_crc64nvme: head.checksum_crc64nvme,
            checksum_type: head.checksum_type,
            content_length: Some(answer::to_i64(
                range.as_ref().map_or(length, |range| range.end - range.start),
            )),
            content_range: range.map(|range| format!("bytes {}-{}/{length}", range.start, range.end - 1)),
            content_type: head.content_type,
            e_tag: head.e_tag,
            last_modified: head.last_modified,
            metadata: head.metadata,
            server_side_encryption: head.server_side_encryption,
            ssekms_key_id: head.ssekms_key_id,
            storage_class: head.storage_class,
            tag_count: i32::try_from(object.attributes.tags.len()).ok().filter(|count| *count > 0),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::with_headers(output, (self.also)(&object)))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let object = self.store.get(&input.bucket, &input.key)?;
        let conditions = answer::Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&object)?;
        let length = object.content.length();
        let mut head = answer::head(&object, input.checksum_mode.is_some());
        head.content_length = Some(answer::to_i64(length));
        if let Some(range) = input.range {
            let range = answer::resolve(range, length)?;
            head.content_length = Some(answer::to_i64(range.end - range.start));
            head.content_range = Some(format!("bytes {}-{}/{length}", range.start, range.end - 1));
        }
        Ok(S3Response::with_headers(head, (self.also)(&object)))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store.remove(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        let quiet = input.delete.quiet.unwrap_or(false);
        let mut deleted = Vec::new();
        for object in input.delete.objects {
            self.store.remove(&input.bucket, &object.key)?;
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        let deleted = (!quiet).then_some(deleted);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..DeleteObjectsOutput::default() }))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let object = self.store.get(&req.input.bucket, &req.input.key)?;
        let tags = object.attributes.tags.iter();
        let tag_set =
            tags.map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, ..GetObjectTaggingOutput::default() }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = req.input;
        let object = self.store.get(&input.bucket, &input.key)?;
        let mut object = Object::clone(&object);
        let pairs = input.tagging.tag_set.into_iter();
        let pairs = pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
        object.attributes.tags = crate::s3::attributes::check_tags(pairs)?;
        self.store.put(&input.bucket, &input.key, object, &Condition::Matches(None))?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "Only a bucket and a key can be copied from"));
        };
        let mut object = Object::clone(&*self.store.get(bucket, key)?);
        check_readable(&object.attributes)?;
        if let Some(class) = input.storage_class {
            let said = Said { storage_class: Some(class), ..Said::default() };
            object.attributes.storage_class = said.check(self.storage_classes)?.storage_class;
        }
        object.last_modified = std::time::SystemTime::now();
        let object = self.store.put(&input.bucket, &input.key, object, &Condition::Always)?;
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            ..CopyObjectResult::default()
        };
        let output = CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        answer::list(&self.store, req.input).map(S3Response::new)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.check_bucket(&req.input.bucket)?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn list_buckets(
        &self,
        _req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.store.bucket_names().into_iter();
        let buckets = names.map(|name| Bucket { name: Some(name), ..Bucket::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.store.create_bucket(&req.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou, "The bucket exists and is yours already"));
        }
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let said = Said {
            content_type: input.content_type,
            storage_class: input.storage_class,
            tagging: input.tagging,
            server_side_encryption: input.server_side_encryption,
            kms_key_id: input.ssekms_key_id,
            metadata: input.metadata,
        };
        let attributes = said.check(self.storage_classes)?;
        let upload_id = self.store.begin_upload(&input.bucket, &input.key, attributes.clone())?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            server_side_encryption: Some(answer::encryption(&attributes)),
            ssekms_key_id: attributes.kms_key_id,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let (bucket, key, upload_id, number) =
            (&input.bucket, &input.key, &input.upload_id, input.part_number);
        let attributes = self.store.upload_attributes(bucket, key, upload_id, number)?;
        let claimed = Claimed {
            crc64nvme: input.checksum_crc64nvme,
            crc32: input.checksum_crc32,
            crc32c: input.checksum_crc32c,
            sha1: input.checksum_sha1,
            sha256: input.checksum_sha256,
            md5: input.content_md5,
        };
        let content = upload::collect(input.body, claimed, req.trailing_headers, self.body_limit).await?;
        let (etag, checksum) = (content.etag(), content.checksum());
        self.store.put_part(bucket, key, upload_id, number, content)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc64nvme: Some(checksum),
            server_side_encryption: Some(answer::encryption(&attributes)),
            ssekms_key_id: attributes.kms_key_id,
            ..UploadPartOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default().into_iter();
        let listed: Vec<ListedPart> = parts
            .map(|part| ListedPart {
                number: part.part_number.unwrap_or(0),
                etag: part.e_tag.map(ETag::into_value),
            })
            .collect();
        let condition = condition(input.if_none_match.as_ref(), input.if_match)?;
        let object =
            self.store.complete_upload(&input.bucket, &input.key, &input.upload_id, &listed, &condition)?;
        let output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc64nvme: Some(object.content.checksum()),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            server_side_encryption: Some(answer::encryption(&object.attributes)),
            ssekms_key_id: object.attributes.kms_key_id.clone(),
            ..CompleteMultipartUploadOutput::default()
        };
        Ok(S3Response::with_headers(output, (self.also)(&object)))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store.abort_upload(&req.input.bucket, &req.input.key, &req.input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let uploads = self.store.uploads(&req.input.bucket)?.into_iter();
        let uploads = uploads.map(|upload| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.upload_id),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(req.input.bucket),
            is_truncated: Some(false),
            uploads: Some(uploads.collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
