//! The AWS S3 plugin: Orthanc's storage area in a bucket of S3, or of a server that speaks its protocol.
//!
//! All that is particular to S3: its options, its endpoint, its credentials. The rest is `storage-plugin`.
#![allow(non_snake_case, reason = "the name of the library is given")]

mod credentials;
mod endpoint;
mod options;
mod smithy_http;

use std::ffi::CStr;
use std::sync::Arc;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, no_retries};
use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use orthanc_ffi::InitializeError;
use storage_plugin::{Provider, ProviderContext, Section, StoragePlugin, warn_if_exposed};

use crate::credentials::CredentialChain;
use crate::endpoint::Endpoint;
use crate::options::{Credentials, Options};

/// The largest object in one request, in bytes.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024;

/// Amazon S3 and its kind.
#[derive(Debug)]
pub struct S3;

impl Provider for S3 {
    const NAME: &'static CStr = c"AWS S3 Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in AWS S3";
    const SECTION: &'static str = "AwsS3Storage";
    const HTTP_LOG_OPTION: Option<&'static str> = Some("EnableAwsSdkLogs");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<BucketOptions, InitializeError> {
        let options = Options::read(section)?;
        let endpoint = Endpoint::new(&options).map_err(|(option, problem)| section.error(option, problem))?;
        let store = store(&options, &endpoint, &context.http()?, context.runtime())
            .map_err(|error| InitializeError::new(format!("cannot set up the client of S3: {error}")))?;
        let store = Arc::new(store);
        Ok(BucketOptions {
            store: Arc::<AmazonS3>::clone(&store),
            multipart: store,
            url: format!("s3://{}", options.bucket),
            put_options: options.put_options,
            retry: context.network().retry,
            transfer: context.network().transfer,
            largest_put: LARGEST_PUT,
            create: None,
        })
    }
}

fn store(
    options: &Options,
    endpoint: &Endpoint,
    http: &CloudHttp,
    runtime: &tokio::runtime::Handle,
) -> object_store::Result<AmazonS3> {
    // Over TLS nobody can change the payload, and a checksum guards it against faults: signing it too would cost a
    // SHA-256 of all that is stored. In clear, beyond this machine, the signature is what guards it.
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
        .with_client_options(ClientOptions::new().with_default_headers(default_headers()))
        .with_http_connector(http.clone());
    // The enum of these keys is not public, their names are.
    if let Some(algorithm) = options.server_side_encryption {
        builder = builder.with_config("aws_server_side_encryption".parse()?, algorithm);
    }
    if let Some(id) = &options.kms_key_id {
        builder = builder.with_config("aws_sse_kms_key_id".parse()?, id);
    }
    builder = match &options.credentials {
        Credentials::Static { access_key, secret_key, session_token } => {
            let builder =
                builder.with_access_key_id(access_key.expose()).with_secret_access_key(secret_key.expose());
            match session_token {
                Some(token) => builder.with_token(token.expose()),
                None => builder,
            }
        }
        Credentials::DefaultChain => {
            let chain = runtime.block_on(CredentialChain::load(&options.region, http.client().clone()));
            builder.with_credentials(Arc::new(chain))
        }
    };
    builder.build()
}

/// Asks for the checksum of what is read, which the engine compares.
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
        let endpoint = Endpoint::new(&options).unwrap();
        let http = CloudHttp::new(&HttpOptions::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = store(&options, &endpoint, &http, runtime.handle()).unwrap();
        let text = format!("{section:?} {options:?} {endpoint:?} {http:?} {store:?}");
        assert!(text.contains("bucket"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
}
