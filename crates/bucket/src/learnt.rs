//! What requests have shown of a bucket.

use std::sync::Arc;

use crate::beginnings::Beginnings;
use crate::bulk::BulkSupport;
use crate::request_size::RequestSize;
use crate::throughput::Line;

/// What requests have shown of a bucket, and what they share.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) bulk_support: BulkSupport,
    pub(crate) uploads: Arc<Line>,
    pub(crate) downloads: Arc<Line>,
    pub(crate) request_size: RequestSize,
    pub(crate) beginnings: Beginnings,
}
