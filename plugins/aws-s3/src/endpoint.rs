//! Where a bucket is: the URL under which its objects are.

use url::{Host, Url};

use crate::options::Options;

/// An S3 endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// With the bucket in its host name, if `bucket_in_host`.
    pub(crate) url: Url,
    /// `bucket.host/key` rather than `host/bucket/key`.
    pub(crate) bucket_in_host: bool,
}

impl Endpoint {
    /// # Errors
    ///
    /// The option that is wrong, and how.
    pub(crate) fn new(options: &Options) -> Result<Self, (&'static str, String)> {
        let spelled = spelled(options);
        let invalid = |problem: &str| {
            ("Endpoint", format!("is {:?}: {problem}: [https://]host[:port] is needed", options.endpoint))
        };
        let mut url: Url = spelled.parse().map_err(|_| invalid("not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("neither https nor http"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(("Endpoint", "has more than a host: [https://]host[:port] is needed".to_owned()));
        }
        let Some(host) = url.host() else { return Err(invalid("it has no host")) };
        if !options.virtual_addressing {
            return Ok(Self { url, bucket_in_host: false });
        }
        let Host::Domain(domain) = host else {
            let problem =
                format!("is true, but {:?} has an IP address for a host: false is needed", options.endpoint);
            return Err(("VirtualAddressing", problem));
        };
        if !fits_host_name(&options.bucket, url.scheme()) {
            return Ok(Self { url, bucket_in_host: false });
        }
        let host = format!("{}.{domain}", options.bucket);
        url.set_host(Some(&host)).map_err(|_| invalid("not a host name"))?;
        Ok(Self { url, bucket_in_host: true })
    }
}

/// The URL, before it is checked.
fn spelled(options: &Options) -> String {
    let endpoint = options.endpoint.trim();
    if endpoint.is_empty() {
        // Amazon's partition in China has a domain of its own.
        let china = if options.region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{}.amazonaws.com{china}", options.region)
    } else if endpoint.contains("://") {
        endpoint.trim_end_matches('/').to_owned()
    } else {
        format!("https://{}", endpoint.trim_end_matches('/'))
    }
}

/// Whether a bucket can be part of a host name. A dot in it would not match the server's certificate, so that such
/// buckets are addressed by path, as AWS' own tools do.
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
