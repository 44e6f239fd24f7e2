//! How a Google server is set up.

use aws_lc_rs::error::Unspecified;

use crate::google::account::{AuthorizedUser, ServiceAccount};
use crate::google::tokens::Tokens;

/// The settings of [`crate::BucketServer::start_google`].
#[derive(Debug, Clone)]
pub struct GoogleOptions {
    /// Accounts whose tokens are accepted.
    pub service_accounts: Vec<ServiceAccount>,
    /// The user whose refresh token is accepted.
    pub user: AuthorizedUser,
    /// The access tokens; clones of these options share them, so that a test can revoke what the server gave.
    pub tokens: Tokens,
    /// Accounts by their e-mail address that may sign in, but do nothing: 403 `AccessDenied`.
    pub without_access: Vec<String>,
    /// Buckets to begin with.
    pub buckets: Vec<String>,
    /// Port on 127.0.0.1; a free one by default.
    pub port: Option<u16>,
    /// Bytes that one object or part may have; 5 GiB by default.
    pub body_limit: u64,
    /// Connections open at once; further ones are closed as they come. 1024 by default.
    pub connection_limit: usize,
}

impl GoogleOptions {
    /// One bucket, `bucket`, the [shared](ServiceAccount::shared) account, the default user, a free port.
    ///
    /// # Errors
    ///
    /// When the account's key cannot be generated.
    pub fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            service_accounts: vec![ServiceAccount::shared()?],
            user: AuthorizedUser::default(),
            tokens: Tokens::default(),
            without_access: Vec::new(),
            buckets: vec!["bucket".to_owned()],
            port: None,
            body_limit: 5 * 1024 * 1024 * 1024,
            connection_limit: 1024,
        })
    }

    /// The key file of the first account for the server at `endpoint`, `{}` without any. With a `gcs_base_url`, which
    /// `object_store` takes for the address of the bucket server.
    #[must_use]
    pub fn key_file(&self, endpoint: &str) -> String {
        let account = self.service_accounts.first().map(|account| account.json(endpoint));
        let mut json = account.unwrap_or_else(|| serde_json::json!({}));
        json["gcs_base_url"] = endpoint.into();
        json.to_string()
    }
}
