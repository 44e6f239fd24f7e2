//! The settings of a Google server.

use aws_lc_rs::error::Unspecified;

use crate::google::account::{AuthorizedUser, ServiceAccount};
use crate::google::kms::CryptoKeys;
use crate::google::tokens::Tokens;
use crate::settings::BucketSettings;

/// The settings of [`crate::BucketServer::start_google`].
#[derive(Debug, Clone)]
pub struct GoogleOptions {
    /// Accounts whose tokens are accepted.
    pub service_accounts: Vec<ServiceAccount>,
    /// The user whose refresh token is accepted.
    pub user: AuthorizedUser,
    /// The access tokens, shared by clones of these options and the server.
    pub tokens: Tokens,
    /// E-mail addresses of accounts that can sign in but have no permissions (403 `AccessDenied`).
    pub without_access: Vec<String>,
    /// The keys of Cloud KMS, shared by clones of these options and the server.
    pub keys: CryptoKeys,
    /// The settings of the bucket.
    pub settings: BucketSettings,
}

impl GoogleOptions {
    /// Returns options with the [shared](ServiceAccount::shared) account and the default user.
    ///
    /// # Errors
    ///
    /// Fails if the account's key cannot be generated.
    pub fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            service_accounts: vec![ServiceAccount::shared()?],
            user: AuthorizedUser::default(),
            tokens: Tokens::default(),
            without_access: Vec::new(),
            keys: CryptoKeys::default(),
            settings: BucketSettings::default(),
        })
    }
}
