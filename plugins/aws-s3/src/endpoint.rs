//! The URL under which a bucket's objects are.

use std::time::Duration;

use cloud_http::proxy_for;
use storage_plugin::{ConfigError, Section, endpoint_option};
use url::{Host, Url};

const ENDPOINT: &str = "Endpoint";
const VIRTUAL_ADDRESSING: &str = "VirtualAddressing";

/// How long to wait for the name server.
const LOOKUP: Duration = Duration::from_secs(3);

/// An S3 endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Has the bucket in its host name if `bucket_in_host`.
    pub(crate) url: Url,
    /// Whether objects are at `bucket.host/key` rather than `host/bucket/key`.
    pub(crate) bucket_in_host: bool,
    /// Whether [`Endpoint::decide`] is to choose between the two.
    is_open: bool,
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
        let chosen = section.optional_flag(VIRTUAL_ADDRESSING)?;
        let configured = section.non_empty(ENDPOINT)?.filter(|endpoint| !endpoint.trim().is_empty());
        let is_amazon = configured.is_none();
        check_region(section, region, is_amazon)?;
        let text = configured.unwrap_or_else(|| amazon("s3", region));
        let url = endpoint_option(section, ENDPOINT, &text)?;
        let is_named = match (url.host(), chosen) {
            (Some(Host::Domain(domain)), _) => !is_local(domain),
            (_, Some(true)) => {
                let problem = format!("must be false for the endpoint {text:?}, whose host is an IP address");
                return Err(section.error(VIRTUAL_ADDRESSING, problem));
            }
            _ => false,
        };
        let fits = fits_host_name(bucket, url.scheme());
        let by_path = Self { url, bucket_in_host: false, is_open: false };
        Ok(match chosen {
            Some(true) if fits => by_path.with_bucket_in_host(bucket),
            None if fits && is_named && is_amazon => by_path.with_bucket_in_host(bucket),
            None if fits && is_named => Self { is_open: true, ..by_path },
            _ => by_path,
        })
    }

    /// Chooses how objects are addressed, if the configuration does not say so: by path if the name server knows the host
    /// and not the bucket's host. `proxy` is the client's option.
    pub(crate) async fn decide(self, bucket: &str, proxy: Option<&str>) -> Self {
        if !self.is_open {
            return self;
        }
        let port = self.url.port_or_known_default().unwrap_or_default();
        let is_known = async |host: String| {
            let lookup = tokio::net::lookup_host((host, port));
            tokio::time::timeout(LOOKUP, lookup).await.is_ok_and(|found| found.is_ok())
        };
        let has_proxy = proxy_for(proxy, self.url.as_str()).is_some();
        self.decide_with(bucket, has_proxy, is_known).await
    }

    async fn decide_with(
        self,
        bucket: &str,
        has_proxy: bool,
        is_known: impl AsyncFn(String) -> bool,
    ) -> Self {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let with_bucket = format!("{bucket}.{host}");
        let (bucket_is_known, is_known) = tokio::join!(is_known(with_bucket.clone()), is_known(host.clone()));
        // With a proxy, only the proxy needs to know the names.
        match (bucket_is_known || (has_proxy && !is_known), is_known) {
            (true, _) => tracing::info!("objects are addressed as {with_bucket}/key"),
            (false, true) => {
                tracing::info!(
                    "objects are addressed as {host}/{bucket}/key, since {with_bucket} is unknown"
                );
                return self;
            }
            (false, false) => tracing::warn!(
                "neither {host} nor {with_bucket} is known to the name server; objects are addressed as \
                 {with_bucket}/key until Orthanc restarts: set VirtualAddressing"
            ),
        }
        self.with_bucket_in_host(bucket)
    }

    /// Puts the bucket in the host name. [`fits_host_name`] ensures that this is possible.
    fn with_bucket_in_host(mut self, bucket: &str) -> Self {
        let host = format!("{bucket}.{}", self.url.host_str().unwrap_or_default());
        let bucket_in_host = self.url.set_host(Some(&host)).is_ok();
        Self { bucket_in_host, is_open: false, ..self }
    }
}

/// Checks the region, which is part of signatures, and of the host names of Amazon.
pub(crate) fn check_region(section: &Section<'_>, region: &str, is_amazon: bool) -> Result<(), ConfigError> {
    const EXPECTED: &str = "must be the name of a region such as eu-central-1";
    let zone_of = region.strip_suffix(|letter: char| letter.is_ascii_lowercase());
    let zone_of =
        zone_of.filter(|region| is_amazon && region.ends_with(|digit: char| digit.is_ascii_digit()));
    if let Some(region) = zone_of {
        return Err(section.error("Region", format!("{EXPECTED}, got a zone of it; write \"{region}\"")));
    }
    let is_plain = region.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    // The value is not quoted, because it may be a key in the wrong place.
    if is_plain { Ok(()) } else { Err(section.error("Region", EXPECTED)) }
}

/// Whether `domain` is this machine, whose name servers never know the names of buckets.
fn is_local(domain: &str) -> bool {
    domain == "localhost" || domain.ends_with(".localhost")
}

/// Returns Amazon's endpoint of a service in a region.
pub(crate) fn amazon(service: &str, region: &str) -> String {
    // Amazon's partition in China has its own domain.
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://{service}.{region}.amazonaws.com{china}")
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(section: &Value) -> Endpoint {
        let Value::Object(configuration) = json!({ "S": section }) else { unreachable!() };
        Endpoint::read(&mut Section::find(&configuration, "S").unwrap().unwrap(), "bucket", "eu-west-1")
            .unwrap()
    }

    /// Returns where objects are if the name server knows `known`.
    async fn url(section: Value, known: &[&str]) -> String {
        let endpoint = read(&section);
        let is_open = endpoint.is_open;
        let known: Vec<_> = known.iter().map(|host| (*host).to_owned()).collect();
        let decided = match is_open {
            true => endpoint.decide_with("bucket", false, async |host| known.contains(&host)).await,
            false => endpoint.decide("bucket", None).await,
        };
        assert_eq!(decided.bucket_in_host, decided.url.host_str().unwrap().starts_with("bucket."));
        decided.url.to_string()
    }

    #[tokio::test]
    async fn addressing_is_chosen_by_the_endpoint() {
        let amazon = "https://bucket.s3.eu-west-1.amazonaws.com/";
        assert_eq!(url(json!({}), &[]).await, amazon);
        for local in
            ["http://10.0.0.1:9000/", "http://[::1]:9000/", "http://localhost:9000/", "http://a.localhost/"]
        {
            assert_eq!(url(json!({ "Endpoint": local }), &[]).await, local);
        }
        let (by_path, in_host) = ("https://minio:9000/", "https://bucket.minio:9000/");
        let named = || json!({ "Endpoint": by_path });
        assert_eq!(url(named(), &["minio"]).await, by_path);
        assert_eq!(url(named(), &["minio", "bucket.minio"]).await, in_host);
        assert_eq!(url(named(), &["bucket.minio"]).await, in_host);
        assert_eq!(url(named(), &[]).await, in_host, "as the C++ plugin does");
    }

    #[tokio::test]
    async fn option_decides() {
        let section = |endpoint: &str, value: bool| json!({"Endpoint": endpoint, "VirtualAddressing": value});
        assert_eq!(url(section("https://minio", true), &["minio"]).await, "https://bucket.minio/");
        assert_eq!(url(section("https://minio", false), &["minio", "bucket.minio"]).await, "https://minio/");
        assert_eq!(url(section("http://localhost", true), &[]).await, "http://bucket.localhost/");
        assert_eq!(url(section("https://10.0.0.1", false), &[]).await, "https://10.0.0.1/");
    }
}
