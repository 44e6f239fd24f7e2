//! Orthanc plugin that stores DICOM files in a bucket of AWS S3 or of a server with the same protocol.
//!
//! This crate contains only the options, endpoint, credentials and bulk deletion of S3. All else is in
//! `storage-plugin`. Copy this configuration to use the plugin:
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

mod credentials;
mod deletion;
mod endpoint;
#[cfg(test)]
mod messages;
mod options;
mod smithy_http;

use std::ffi::CStr;
use std::sync::Arc;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, no_retries};
use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, Checksum};
use orthanc_ffi::InitializeError;
use storage_plugin::{
    Provider, ProviderContext, Reloading, Section, StoragePlugin, c_str, client_error, warn_if_exposed,
};

use crate::credentials::{CredentialChain, REFUSALS};
use crate::deletion::ObjectDeletion;
use crate::options::{Credentials, Options};

/// Maximum size of an object in one request, in bytes.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024;

/// AWS S3 and servers with the same protocol.
#[derive(Debug)]
pub struct S3;

impl Provider for S3 {
    const NAME: &'static CStr = c_str(concat!(env!("ORTHANC_PLUGIN_NAME"), "\0"));
    const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
    const SECTION: &'static str = env!("ORTHANC_PLUGIN_SECTION");
    const SERVER: &'static str = "an S3 server";
    const READ_PERMISSIONS: &'static str = "s3:GetObject on the objects, and s3:ListBucket on the bucket, without \
        which S3 denies access to an object that does not exist";
    const HTTP_LOG_OPTION: Option<&'static str> = Some("EnableAwsSdkLogs");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<BucketOptions, InitializeError> {
        let mut options = Options::read(section)?;
        options.endpoint = context.runtime().block_on(options.endpoint.decide(&options.bucket));
        let http = context.http()?;
        let (store, http) = store(&options, http).map_err(client_error)?;
        let deletion = ObjectDeletion::new(&options, Arc::clone(store.credentials()), &http);
        let url = format!("s3://{}", options.bucket);
        let mut bucket =
            context.bucket(Arc::new(store), url, &options.endpoint.url, options.put_options, LARGEST_PUT);
        bucket.bulk_delete = Some(Arc::new(deletion));
        bucket.checksums_on_request = true;
        bucket.backslash_names = section.flag("EnableLegacyBackslashNames", cfg!(windows))?;
        Ok(bucket)
    }
}

fn store(options: &Options, http: CloudHttp) -> object_store::Result<(AmazonS3, CloudHttp)> {
    let endpoint = &options.endpoint;
    // Over TLS nobody can change the payload, and a checksum detects faults, so that signing it would only cost a SHA-256
    // of every object. Over plain HTTP to another machine, only the signature protects the payload.
    let exposed = warn_if_exposed(&endpoint.url);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(&options.region)
        .with_endpoint(endpoint.url.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(endpoint.bucket_in_host)
        .with_unsigned_payload(!exposed)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_client_options(ClientOptions::new().with_default_headers(default_headers()));
    // The variants of these keys are not public, but their names are.
    if let Some(algorithm) = options.server_side_encryption {
        builder = builder.with_config("aws_server_side_encryption".parse()?, algorithm);
    }
    if let Some(id) = &options.kms_key_id {
        builder = builder.with_config("aws_sse_kms_key_id".parse()?, id);
    }
    let http = match &options.credentials {
        Credentials::Static { access_key, secret_key, session_token } => {
            let secrets = [Some(access_key), Some(secret_key), session_token.as_ref()].into_iter().flatten();
            builder =
                builder.with_access_key_id(access_key.expose()).with_secret_access_key(secret_key.expose());
            if let Some(token) = session_token {
                builder = builder.with_token(token.expose());
            }
            http.with_secrets(secrets.map(|secret| secret.expose().to_owned()))
        }
        Credentials::DefaultChain => {
            let chain = CredentialChain::reloading(&options.region, http.client().clone());
            builder = builder.with_credentials(Arc::<Reloading<AwsCredential>>::clone(&chain));
            http.with_renewal(chain, REFUSALS)
        }
    };
    Ok((builder.with_http_connector(http.clone()).build()?, http))
}

/// Requests the checksum of objects that are read. `cloud-http` compares it.
fn default_headers() -> HeaderMap {
    let mode = HeaderName::from_static("x-amz-checksum-mode");
    HeaderMap::from_iter([(mode, HeaderValue::from_static("ENABLED"))])
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
        let (store, http) = store(&options, http).unwrap();
        let text = format!("{section:?} {options:?} {http:?} {store:?}");
        assert!(text.contains("bucket"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
}
