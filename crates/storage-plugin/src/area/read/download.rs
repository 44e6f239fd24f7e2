//! The place that an attachment is read from.

use bucket::{Naming, ReadRange, StorageError};
use hybrid::{Place, Side};

use super::Reading;
use super::incoming::{Batch, Incoming};

impl Reading<'_> {
    /// Starts a download from the place that has the attachment, and waits for its first bytes.
    pub(super) fn download(&self, range: &ReadRange) -> Result<(Incoming, Batch), StorageError> {
        let mut errors = Vec::new();
        let result = self.storage.read(&self.attachment, |place| {
            let side = place.side();
            let opened = self.download_from(place, range);
            errors.extend(opened.as_ref().err().map(|error| (side, error.clone())));
            opened
        });
        // The error returned need not be of the place asked last.
        if let Err(error) = &result
            && let Some((side, _)) = errors.iter().rfind(|failed| failed.1 == *error)
        {
            self.side.set(*side);
        }
        result
    }

    fn download_from(&self, place: Place, range: &ReadRange) -> Result<(Incoming, Batch), StorageError> {
        let side = place.side();
        self.side.set(side);
        if let Some((_, error)) = self.damaged.borrow().iter().find(|damaged| damaged.0 == side) {
            return Err(error.clone());
        }
        let from_bucket = side == Side::ObjectStorage;
        self.keeper.replace(from_bucket.then(|| self.storage.keeper(&self.attachment)).flatten());
        let mut incoming = Incoming::open(self.runtime, place, self.attachment, range)?;
        let mut first = incoming.first()?;
        let is_clear = self.encryption.is_none() || first.head.naming == Naming::Clear;
        if is_clear {
            incoming.compare(self.runtime, &mut first)?;
        }
        match first.wrong_checksum.take_if(|_| is_clear) {
            // The other place may have a copy that is right.
            Some(error) => Err(error),
            None => Ok((incoming, first)),
        }
    }
}
