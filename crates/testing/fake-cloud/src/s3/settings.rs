//! The settings of the bucket, in the documents of S3.

use http::StatusCode;
use s3s::dto::{
    AbortIncompleteMultipartUpload, BucketVersioningStatus, ExpirationStatus,
    GetBucketLifecycleConfigurationOutput, GetBucketVersioningOutput, GetPublicAccessBlockOutput,
    LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration, PublicAccessBlockConfiguration,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::settings::BucketSettings;

/// Refuses clients that may not ask.
pub(crate) fn check(settings: &BucketSettings) -> S3Result<()> {
    if settings.can_be_asked { Ok(()) } else { Err(s3_error!(AccessDenied, "Access Denied")) }
}

fn missing(code: &'static str) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::Custom(code.into()));
    error.set_status_code(StatusCode::NOT_FOUND);
    error
}

pub(crate) fn public_access_block(settings: &BucketSettings) -> S3Result<GetPublicAccessBlockOutput> {
    if !settings.blocks_public_access {
        return Err(missing("NoSuchPublicAccessBlockConfiguration"));
    }
    Ok(GetPublicAccessBlockOutput {
        public_access_block_configuration: Some(PublicAccessBlockConfiguration {
            block_public_acls: Some(true),
            block_public_policy: Some(true),
            ignore_public_acls: Some(true),
            restrict_public_buckets: Some(true),
        }),
    })
}

pub(crate) fn versioning(settings: &BucketSettings) -> GetBucketVersioningOutput {
    let status = || BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
    GetBucketVersioningOutput {
        status: settings.keeps_versions.then(status),
        ..GetBucketVersioningOutput::default()
    }
}

pub(crate) fn lifecycle(settings: &BucketSettings) -> S3Result<GetBucketLifecycleConfigurationOutput> {
    if settings.upload_days.is_none() && settings.noncurrent_days.is_none() {
        return Err(s3_error!(NoSuchLifecycleConfiguration));
    }
    let rule = LifecycleRule {
        abort_incomplete_multipart_upload: settings
            .upload_days
            .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
        expiration: None,
        filter: Some(LifecycleRuleFilter { prefix: Some(String::new()), ..LifecycleRuleFilter::default() }),
        id: Some("test".to_owned()),
        noncurrent_version_expiration: settings.noncurrent_days.map(|days| NoncurrentVersionExpiration {
            noncurrent_days: Some(days),
            ..NoncurrentVersionExpiration::default()
        }),
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
        transitions: None,
    };
    Ok(GetBucketLifecycleConfigurationOutput {
        rules: Some(vec![rule]),
        ..GetBucketLifecycleConfigurationOutput::default()
    })
}
