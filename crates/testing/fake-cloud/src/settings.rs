//! The settings of a bucket that clients can ask for.

/// The settings of a bucket. The default is one in good order.
#[derive(Clone, Debug)]
pub struct BucketSettings {
    /// Whether everyone can list and read objects.
    pub is_public: bool,
    /// Public access block (S3), public access prevention (Google).
    pub blocks_public_access: bool,
    /// Whether the bucket keeps versions, as it says. Deleted objects are gone in any case.
    pub keeps_versions: bool,
    /// Days until a rule deletes noncurrent versions.
    pub noncurrent_days: Option<i32>,
    /// Days until a rule aborts unfinished uploads.
    pub upload_days: Option<i32>,
    /// Whether the credentials may ask for settings.
    pub can_be_asked: bool,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            is_public: false,
            blocks_public_access: true,
            keeps_versions: false,
            noncurrent_days: None,
            upload_days: Some(7),
            can_be_asked: true,
        }
    }
}
