//! Moves in the mode `WriteBack`: to the bucket, and copies to the cache.

use std::sync::Arc;

use bucket::{Cause, Operation, ReadRange, StorageError, blocking, found};
use storage_layout::Attachment;

use super::{Upload, WriteBack};
use crate::moves::{MoveOutcome, StoredForm};
use crate::place::Side;
use crate::storage::HybridStorage;

impl HybridStorage {
    /// Uploads an attachment that is pending, or, in the mode `WriteBack`, copies one to the cache. `None` if it is to be
    /// moved between the bucket and the files under `StorageDirectory`.
    pub(crate) async fn move_local(
        &self,
        local: &Arc<WriteBack>,
        attachment: &Attachment,
        target: Side,
        form: &Arc<dyn StoredForm>,
    ) -> Result<Option<MoveOutcome>, StorageError> {
        if target == Side::FileSystem && local.is_mode() {
            return self.prefetch(local, attachment, form).await.map(Some);
        }
        let upload = Upload::new(self.clone(), Arc::clone(local), Arc::clone(form));
        let uploaded = upload.run_now(attachment).await?;
        // After a change of the mode, an attachment reaches the file system by way of the bucket.
        Ok(uploaded.filter(|_| target == Side::ObjectStorage))
    }

    /// Copies an attachment from the bucket to the cache.
    async fn prefetch(
        &self,
        local: &Arc<WriteBack>,
        attachment: &Attachment,
        form: &Arc<dyn StoredForm>,
    ) -> Result<MoveOutcome, StorageError> {
        let claim = self.claims.for_move(attachment.uuid).await;
        if claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        for side in [Side::Pending, Side::Cache, Side::FileSystem] {
            if found(self.place(side).open(attachment, ReadRange::Whole).await)?.is_some() {
                return Ok(MoveOutcome::AlreadyThere);
            }
        }
        let place = self.place(Side::ObjectStorage);
        let Some(source) = found(place.open(attachment, ReadRange::Whole).await)? else {
            return Ok(MoveOutcome::Missing);
        };
        let failed = |cause| StorageError::new(Operation::Move, place.name(attachment), cause);
        let refused = |reason| failed(Cause::NotAcceptable(reason));
        // Before the download, which would be in vain.
        local.expect_room(source.head().size).map_err(failed)?;
        let content = source.into_content().await?;
        let encrypted = form.is_envelope(&content).map_err(refused)?;
        let bytes = content.bytes.len() as u64;
        let (local, form, attachment) = (Arc::clone(local), Arc::clone(form), *attachment);
        let kept = blocking(move || {
            let _claim = claim;
            if encrypted {
                form.verify(&attachment, &content.bytes)?;
            }
            local.keep_whole(&attachment, encrypted, &content.bytes)
        })
        .await;
        kept.map(|()| MoveOutcome::Moved { bytes }).map_err(refused)
    }
}
