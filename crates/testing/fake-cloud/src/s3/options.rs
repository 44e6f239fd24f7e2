//! How a server is set up.

use std::fmt;

/// The settings of a [`crate::BucketServer`]. The default has one bucket, `bucket`, in `us-east-1`, on a free port.
#[derive(Clone)]
pub struct Options {
    /// Access key; `test-access-key` by default.
    pub access_key: String,
    /// Secret key; `test-secret-key` by default.
    pub secret_key: String,
    /// Where there is one, requests must bring it; where there is none, they must not bring any.
    pub session_token: Option<String>,
    /// The region that requests must be signed for.
    pub region: String,
    /// Buckets to begin with.
    pub buckets: Vec<String>,
    /// Port on 127.0.0.1; a free one by default.
    pub port: Option<u16>,
    /// `localhost` by default: `bucket.localhost` is then the host name of a bucket. `None` leaves only paths.
    pub virtual_host_domain: Option<String>,
    /// Bytes that one object or part may have; 5 GiB by default, as in S3.
    pub body_limit: u64,
    /// Connections open at once; further ones are closed as they come. 1024 by default.
    pub connection_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access_key: "test-access-key".to_owned(),
            secret_key: "test-secret-key".to_owned(),
            session_token: None,
            region: "us-east-1".to_owned(),
            buckets: vec!["bucket".to_owned()],
            port: None,
            virtual_host_domain: Some("localhost".to_owned()),
            body_limit: 5 * 1024 * 1024 * 1024,
            connection_limit: 1024,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .field("buckets", &self.buckets)
            .field("port", &self.port)
            .field("virtual_host_domain", &self.virtual_host_domain)
            .field("body_limit", &self.body_limit)
            .field("connection_limit", &self.connection_limit)
            .finish_non_exhaustive()
    }
}
