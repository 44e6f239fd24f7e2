//! A copy for the cache, made while an attachment is read from the bucket.

use std::sync::Arc;

use storage_layout::Attachment;

use super::WriteBack;
use super::cache::CacheWriter;
use crate::claims::Ticket;
use crate::state::StoredName;

/// Made before an attachment is read from the bucket, so that it knows of each deletion since.
#[derive(Debug)]
pub struct Keeper {
    local: Arc<WriteBack>,
    attachment: Attachment,
    ticket: Ticket,
}

impl Keeper {
    pub(crate) fn new(local: Arc<WriteBack>, attachment: Attachment, ticket: Ticket) -> Self {
        Self { local, attachment, ticket }
    }

    /// Begins a copy for the cache. `size` is that of the object, in bytes, and `encrypted` says whether it is an
    /// envelope. `None` if the object is not to be cached.
    pub fn begin(self, encrypted: bool, size: u64) -> Option<Keeping> {
        let name = StoredName { attachment: self.attachment, encrypted };
        let writer = self.local.cache.begin(&name, size)?;
        Some(Keeping { writer, ticket: self.ticket })
    }
}

/// An attachment that is being read from the bucket and written to a file for the cache. Nothing is kept unless
/// [`commit`](Self::commit) is called.
#[derive(Debug)]
pub struct Keeping {
    writer: CacheWriter,
    /// Remembers a deletion of the attachment.
    ticket: Ticket,
}

impl Keeping {
    /// Adds the next bytes of the object. Blocks. After an error, which is logged, nothing will be kept.
    pub fn write(&mut self, bytes: &[u8]) {
        self.writer.write(bytes);
    }

    /// Adds the copy to the cache, after all bytes have been written and found to be right.
    pub async fn commit(self) {
        let Self { writer, ticket } = self;
        let claim = ticket.claim().await;
        // The bytes of a replaced object may be under a key that is to be given up.
        if claim.is_removed() || claim.is_replaced() {
            return;
        }
        bucket::blocking(move || {
            let _claim = claim;
            writer.commit();
        })
        .await;
    }
}
