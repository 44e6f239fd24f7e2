//! Orthanc plugin that stores DICOM files in a bucket of AWS S3 or of a server with the same protocol.
//!
//! This crate contains only the options, endpoint, credentials, signatures, dialects, bulk deletion and restores of S3, and
//! the client of AWS KMS. All else is in `storage-plugin`. Copy this configuration to use the plugin:
//!
//! ```json
//! {
//!   "AwsS3Storage": {
//!     "BucketName": "my-hospital-images",
//!     "Region": "eu-central-1",
//!     "AccessKey": "my-access-key",
//!     "SecretKey": "my-secret-key"
//!   }
//! }
//! ```
//!
//! Without the two keys, the plugin uses the credentials that the AWS command line would use.
#![allow(non_snake_case, reason = "the library keeps the name of the C++ plugin")]

mod audit;
mod credentials;
mod deletion;
mod dialect;
mod endpoint;
mod key_service;
mod listing;
#[cfg(test)]
mod messages;
mod options;
mod request;
mod restore;
mod signing;
mod smithy_http;

use std::ffi::CStr;
use std::sync::Arc;

use cloud_http::{CloudHttp, no_retries};
use crypto_envelope::KeyService;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum as ObjectChecksum};
use orthanc_ffi::InitializeError;
use storage_plugin::{
    Connection, Provider, ProviderContext, Section, StoragePlugin, c_str, client_error, warn_if_exposed,
};

use crate::audit::ObjectAudit;
use crate::credentials::REFUSALS;
use crate::deletion::ObjectDeletion;
use crate::dialect::ServerDialect;
use crate::listing::ObjectListing;
use crate::options::Options;
use crate::request::S3Http;
use crate::restore::ObjectRestore;
use crate::signing::Signer;

/// Maximum size of an object in one request, in bytes.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024;

/// AWS S3 and servers with the same protocol.
#[derive(Debug)]
pub struct S3;

impl Provider for S3 {
    const NAME: &'static CStr = c_str(concat!(env!("ORTHANC_PLUGIN_NAME"), "\0"));
    const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
    const COMMIT: Option<&'static str> = option_env!("ORTHANC_PLUGIN_COMMIT");
    const SECTION: &'static str = env!("ORTHANC_PLUGIN_SECTION");
    const SERVER: &'static str = "an S3 server";
    const READ_PERMISSIONS: &'static str = "s3:GetObject on the objects, and s3:ListBucket on the bucket, without \
        which S3 denies access to an object that does not exist";
    const WRITE_PERMISSIONS: &'static str = "s3:PutObject on the objects, with Tags also s3:PutObjectTagging, and with a \
        KMS key kms:GenerateDataKey and kms:Decrypt on the key";
    const DELETE_PERMISSIONS: &'static str = "s3:DeleteObject on the objects";
    const KEY_SERVICE: Option<&'static str> = Some(key_service::SECTION);
    const HTTP_LOG_OPTION: Option<&'static str> = Some("EnableAwsSdkLogs");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Connection, InitializeError> {
        let mut options = Options::read(section)?;
        let proxy = context.network().http.proxy.as_deref();
        options.endpoint = context.runtime().block_on(options.endpoint.decide(&options.bucket, proxy));
        let http = client(&options, context.http()?);
        let store = store(&options, &http).map_err(client_error)?;
        let bucket_url = options.endpoint.bucket_url(&options.bucket);
        let url = format!("s3://{}", options.bucket);
        let source = options.credentials.source();
        let endpoint = &options.endpoint.url;
        let mut connection =
            context.bucket(Arc::new(store), url, endpoint, options.put_options, LARGEST_PUT, source);
        connection.region = Some(options.region);
        connection.audit = Some(Arc::new(ObjectAudit::new(&bucket_url, http.clone())));
        let bucket = &mut connection.bucket;
        bucket.transfer.always = options.always_in_parts;
        bucket.dialect = Some(Arc::<ServerDialect>::clone(&http.dialect));
        bucket.list = Some(Arc::new(ObjectListing::new(&bucket_url, http.clone())));
        bucket.restore = Some(Arc::new(ObjectRestore::new(&bucket_url, http.clone())));
        bucket.bulk_delete = Some(Arc::new(ObjectDeletion::new(&bucket_url, http)));
        bucket.checksums_on_request = true;
        bucket.backslash_names = Some(section.flag("EnableLegacyBackslashNames", cfg!(windows))?);
        Ok(connection)
    }

    fn key_service(
        service: &mut Section<'_>,
        own: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Arc<dyn KeyService>, InitializeError> {
        key_service::open(service, own, context)
    }
}

/// Returns the client that signs requests.
fn client(options: &Options, http: CloudHttp) -> S3Http {
    let (http, credentials) = options.credentials.apply(&options.region, http, REFUSALS);
    S3Http {
        http,
        signer: Signer::new(credentials, &options.region, "s3"),
        dialect: ServerDialect::of(&options.endpoint.bucket_url(&options.bucket), options.protection),
        // Over TLS nobody can change the payload, and a checksum detects faults, so that signing it would only cost a
        // SHA-256 of every object. Over plain HTTP to another machine, only the signature protects the payload.
        sign_payload: warn_if_exposed(&options.endpoint.url),
    }
}

fn store(options: &Options, http: &S3Http) -> object_store::Result<AmazonS3> {
    let endpoint = &options.endpoint;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(&options.region)
        .with_endpoint(endpoint.url.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(endpoint.bucket_in_host)
        // `S3Http` signs.
        .with_skip_signature(true)
        .with_credentials(Arc::clone(http.signer.credentials()))
        .with_checksum_algorithm(ObjectChecksum::CRC64NVME)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(http.clone());
    // The variants of these keys are not public, but their names are.
    if let Some(algorithm) = options.server_side_encryption {
        builder = builder.with_config("aws_server_side_encryption".parse()?, algorithm);
    }
    if let Some(id) = &options.kms_key_id {
        builder = builder.with_config("aws_sse_kms_key_id".parse()?, id);
    }
    builder.build()
}

orthanc_ffi::export_plugin!(StoragePlugin<S3>);

#[cfg(test)]
mod tests {
    use cloud_http::HttpOptions;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let Value::Object(configuration) = json!({"AwsS3Storage": {
            "BucketName": "bucket", "Region": "r", "AccessKey": "a", "SecretKey": "hunter2", "SessionToken": "swordfish",
        }}) else {
            unreachable!()
        };
        let mut section = Section::find(&configuration, S3::SECTION).unwrap().unwrap();
        let options = Options::read(&mut section).unwrap();
        let http = CloudHttp::new(&HttpOptions::default()).unwrap();
        let http = client(&options, http);
        let store = store(&options, &http).unwrap();
        let text = format!("{section:?} {options:?} {http:?} {store:?}");
        assert!(text.contains("bucket"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
}
