//! Orthanc's buffer as the target of decryption.

use crypto_envelope::{DecryptError, PlaintextTarget, RevocableTarget};
use orthanc_ffi::{Target, TargetOverflow};

/// Orthanc's buffer.
pub(crate) struct Sink<'a, 'b>(pub(crate) &'a mut Target<'b>);

/// Error type for [`Target::append_with`].
enum SinkError {
    Overflow(TargetOverflow),
    Decrypt(DecryptError),
}

impl From<TargetOverflow> for SinkError {
    fn from(overflow: TargetOverflow) -> Self {
        Self::Overflow(overflow)
    }
}

impl PlaintextTarget for Sink<'_, '_> {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let filled = self.0.append_with(len, |part| fill(part).map_err(SinkError::Decrypt));
        filled.map_err(|error| match error {
            SinkError::Decrypt(error) => error,
            SinkError::Overflow(overflow) => DecryptError::target(overflow),
        })
    }
}

impl RevocableTarget for Sink<'_, '_> {
    fn discard(&mut self) {
        // Orthanc does not see the bytes of a buffer that has not been filled completely.
        self.0.rewind();
    }
}
