//! Signs requests (AWS Signature Version 4). `object_store` signs too, but only with this machine's clock.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html>

use std::error::Error as StdError;
use std::fmt;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use object_store::aws::AwsCredentialProvider;
use object_store::client::HttpRequest;

/// Signs the requests to one service in one region.
#[derive(Clone)]
pub(crate) struct Signer {
    credentials: AwsCredentialProvider,
    region: String,
    service: &'static str,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with `credentials` for the service that AWS calls `service` in signatures.
    pub(crate) fn new(credentials: AwsCredentialProvider, region: &str, service: &'static str) -> Self {
        Self { credentials, region: region.to_owned(), service }
    }

    pub(crate) fn credentials(&self) -> &AwsCredentialProvider {
        &self.credentials
    }

    /// Signs a request as of `time`. `payload` is the SHA-256 of the body in hexadecimal digits, or `None` if the body is
    /// not to be signed.
    pub(crate) async fn sign(
        &self,
        request: &mut HttpRequest,
        payload: Option<String>,
        time: SystemTime,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let credential = self.credentials.get_credential().await?;
        let identity = Credentials::new(
            credential.key_id.clone(),
            credential.secret_key.clone(),
            credential.token.clone(),
            None,
            "plugin",
        )
        .into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(settings())
            .build()?
            .into();
        let uri = request.uri().to_string();
        let headers =
            request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        // A proxy may send the body in chunks, without this header.
        let headers = headers.filter(|(name, _)| *name != CONTENT_LENGTH.as_str());
        let body = payload.map_or(SignableBody::UnsignedPayload, SignableBody::Precomputed);
        let signable = SignableRequest::new(request.method().as_str(), uri, headers, body)?;
        let (instructions, _signature) = sign(signable, &parameters)?.into_parts();
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        Ok(())
    }
}

/// The settings for S3, which signs paths as they are sent.
fn settings() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings
}
