//! Restores from archive tiers.

use anyhow::{Context, Result, ensure};
use bucket::{ArchiveState, Cause, ObjectStorage, ReadRange, Restoration, RestoreOptions, StorageError};
use fake_cloud::{Fault, FaultRule, Operation};
use storage_layout::{Attachment, ContentType, Layout, RootPath};

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::names::ENCODED;
use crate::fixture::UUID;

tests! {
    EveryCloud:
        object_is_restored_from_its_archive_tier,
        refused_restore_is_an_error,
}

/// An attachment in a bucket.
struct Archive<C> {
    client: Client<C>,
    objects: ObjectStorage,
    attachment: Attachment,
    name: String,
}

impl<C: Cloud> Archive<C> {
    fn start() -> Result<Self> {
        let client = Client::<C>::start()?;
        // With a name that must be encoded.
        let layout = Layout { root: RootPath::new(ENCODED[0])?, ..Layout::default() };
        let objects = ObjectStorage::new(client.bucket.clone(), layout, false, false);
        let attachment = Attachment::new(UUID, ContentType::DICOM).context("not an attachment")?;
        let name = objects.object_name(&attachment);
        client.put(&name, "content")?;
        client.server.reset_counts();
        Ok(Self { client, objects, attachment, name })
    }

    fn restore(&self, days: u32, tier: &'static str) -> Result<Option<Restoration>, StorageError> {
        self.client.runtime.block_on(self.objects.restore(&self.attachment, RestoreOptions { days, tier }))
    }

    fn state(&self) -> Result<ArchiveState> {
        let described = self.client.runtime.block_on(self.objects.describe(&self.attachment))?;
        Ok(described.context("missing")?.archive)
    }

    /// The requests to restore an object since the last call.
    fn requests(&self) -> u64 {
        let requests = self.client.server.requests().of(Operation::RestoreObject);
        self.client.server.reset_counts();
        requests
    }
}

fn object_is_restored_from_its_archive_tier<C: Cloud>() -> Result<()> {
    let archive = Archive::<C>::start()?;
    let Archive { client, name, .. } = &archive;
    let Some(restore) = archive.objects.restore_client() else {
        assert_eq!(archive.restore(1, "")?, Some(Restoration::Readable));
        return Ok(());
    };
    let [usual, fastest] = [restore.tiers().first(), restore.tiers().last()];
    let [usual, fastest] = [usual.context("no tier")?, fastest.context("no tier")?];
    assert_eq!(archive.restore(1, usual)?, Some(Restoration::Readable));
    assert_eq!((archive.requests(), archive.state()?), (0, ArchiveState::Online));

    client.server.archive(C::BUCKET, name);
    let makes_copy = restore.makes_copies();
    assert_eq!(archive.state()?, ArchiveState::Archived { makes_copy });
    assert_eq!(archive.restore(1, usual)?, Some(Restoration::Begun));
    assert_eq!((archive.requests(), archive.state()?), (1, ArchiveState::Restoring));
    assert_eq!(client.server.restoring(C::BUCKET), [name.as_str()]);
    assert_eq!(failed(client.get(name, ReadRange::Whole))?.cause, Cause::Archived);
    for (tier, requests) in [(usual, 0), (fastest, 1), (fastest, 1)] {
        assert_eq!(archive.restore(1, tier)?, Some(Restoration::Restoring), "{tier}");
        assert_eq!(archive.requests(), requests, "{tier}");
    }

    client.server.end_restore(C::BUCKET, name);
    assert_eq!(client.get(name, ReadRange::Whole)?, b"content");
    let first = archive.state()?;
    ensure!(matches!(first, ArchiveState::Restored { .. }) == makes_copy && first.is_readable(), "{first:?}");
    client.server.reset_counts();
    let extended = if makes_copy { Restoration::Extended } else { Restoration::Readable };
    for (days, expected) in [(1, Restoration::Readable), (9, extended), (9, Restoration::Readable)] {
        assert_eq!(archive.restore(days, usual)?, Some(expected), "{days}");
    }
    assert_eq!(archive.requests(), u64::from(makes_copy));
    Ok(())
}

fn refused_restore_is_an_error<C: Cloud>() -> Result<()> {
    let archive = Archive::<C>::start()?;
    let Archive { client, name, .. } = &archive;
    let Some(restore) = archive.objects.restore_client() else { return Ok(()) };
    let usual = restore.tiers().first().context("no tier")?;
    client.server.archive(C::BUCKET, name);
    let refusal = Fault::status(403, C::MISSING_PERMISSION);
    client.server.faults().push(FaultRule::new(refusal).on(Operation::RestoreObject).times(1));
    let error = failed(archive.restore(1, usual))?;
    assert_eq!((&error.cause, error.attempts), (&Cause::Denied, 1), "{error}");
    ensure!(error.to_string().starts_with(&format!("cannot restore {}/{name}: ", C::URL)), "{error}");
    client.server.faults().push(FaultRule::new(Fault::slow_down()).on(Operation::RestoreObject).times(2));
    assert_eq!(archive.restore(1, usual)?, Some(Restoration::Begun));

    client.server.archive(C::BUCKET, name);
    let refusal = Fault::status(400, "InvalidArgument");
    client.server.faults().push(FaultRule::new(refusal).on(Operation::RestoreObject).times(1));
    assert_eq!(failed(archive.restore(1, usual))?.cause, Cause::Refused);
    client.server.remove(C::BUCKET, name);
    assert_eq!(archive.restore(1, usual)?, None);
    Ok(())
}
