//! The URL under which a bucket's objects are.

use storage_plugin::{ConfigError, Section, endpoint_option};
use url::{Host, Url};

const ENDPOINT: &str = "Endpoint";
const VIRTUAL_ADDRESSING: &str = "VirtualAddressing";

/// An S3 endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Has the bucket in its host name if `bucket_in_host`.
    pub(crate) url: Url,
    /// Whether objects are at `bucket.host/key` rather than `host/bucket/key`.
    pub(crate) bucket_in_host: bool,
}

impl Endpoint {
    /// Returns the URL of `bucket`, without a slash at its end unless the bucket is in the host name.
    pub(crate) fn bucket_url(&self, bucket: &str) -> String {
        let endpoint = self.url.as_str().trim_end_matches('/');
        let path = if self.bucket_in_host { "" } else { bucket };
        format!("{endpoint}/{path}")
    }

    /// Reads the options `Endpoint` and `VirtualAddressing`.
    pub(crate) fn read(section: &mut Section<'_>, bucket: &str, region: &str) -> Result<Self, ConfigError> {
        let virtual_addressing = section.flag(VIRTUAL_ADDRESSING, true)?;
        let configured = section.non_empty(ENDPOINT)?.filter(|endpoint| !endpoint.trim().is_empty());
        let text = configured.unwrap_or_else(|| amazon(region));
        let mut url = endpoint_option(section, ENDPOINT, &text)?;
        if !virtual_addressing {
            return Ok(Self { url, bucket_in_host: false });
        }
        let Some(Host::Domain(domain)) = url.host() else {
            let problem = format!("must be false for the endpoint {text:?}, whose host is an IP address");
            return Err(section.error(VIRTUAL_ADDRESSING, problem));
        };
        if !fits_host_name(bucket, url.scheme()) {
            return Ok(Self { url, bucket_in_host: false });
        }
        let host = format!("{bucket}.{domain}");
        url.set_host(Some(&host))
            .map_err(|_| section.error(ENDPOINT, format!("must have a host name, got {text:?}")))?;
        Ok(Self { url, bucket_in_host: true })
    }
}

/// Returns Amazon's endpoint for a region.
fn amazon(region: &str) -> String {
    // Amazon's partition in China has its own domain.
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://s3.{region}.amazonaws.com{china}")
}

/// Whether a bucket can be part of a host name. With a dot in its name, the bucket would not match the server's
/// certificate, so that such buckets are addressed by path, as AWS' own tools do.
fn fits_host_name(bucket: &str, scheme: &str) -> bool {
    let allowed = |letter: char| {
        letter.is_ascii_lowercase()
            || letter.is_ascii_digit()
            || letter == '-'
            || (letter == '.' && scheme == "http")
    };
    (3..=63).contains(&bucket.len())
        && bucket.chars().all(allowed)
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
}
