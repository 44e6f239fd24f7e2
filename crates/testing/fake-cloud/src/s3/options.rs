//! The settings of an S3 server.

use std::fmt;

use crate::s3::Quirks;
use crate::settings::BucketSettings;

/// The settings of [`crate::BucketServer::start`].
#[derive(Clone)]
pub struct Options {
    /// Access key; `test-access-key` by default.
    pub access_key: String,
    /// Secret key; `test-secret-key` by default.
    pub secret_key: String,
    /// Session token that requests must carry. Without one, requests with a token are refused.
    pub session_token: Option<String>,
    /// Region that requests must be signed for; `us-east-1` by default.
    pub region: String,
    /// Domain of virtual-hosted buckets: with `s3.test`, all requests must be for `BUCKET.s3.test`. Without
    /// one, buckets are in the path.
    pub virtual_host_domain: Option<String>,
    /// Differences from AWS.
    pub quirks: Quirks,
    /// The settings of the bucket.
    pub settings: BucketSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access_key: "test-access-key".to_owned(),
            secret_key: "test-secret-key".to_owned(),
            session_token: None,
            region: "us-east-1".to_owned(),
            virtual_host_domain: None,
            quirks: Quirks::default(),
            settings: BucketSettings::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .field("virtual_host_domain", &self.virtual_host_domain)
            .finish_non_exhaustive()
    }
}
