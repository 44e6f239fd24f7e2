//! Orthanc's buffer as the target of decryption.

use std::ops::Range;

use crypto_envelope::{DecryptError, PlaintextTarget, RevocableTarget};
use orthanc_ffi::{Target, TargetOverflow};
use zeroize::Zeroizing;

/// Orthanc's buffer.
pub(crate) struct Sink<'a, 'b>(pub(crate) &'a mut Target<'b>);

/// Error type for [`Target::append_with`].
pub(crate) enum FillError<E> {
    /// There is not enough room.
    Overflow(TargetOverflow),
    /// The bytes could not be had.
    Source(E),
}

impl<E> From<TargetOverflow> for FillError<E> {
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
        let filled = self.0.append_with(len, |part| fill(part).map_err(FillError::Source));
        filled.map_err(|error| match error {
            FillError::Source(error) => error,
            FillError::Overflow(overflow) => DecryptError::target(overflow),
        })
    }
}

impl RevocableTarget for Sink<'_, '_> {
    fn discard(&mut self) {
        // Orthanc does not see the bytes of a buffer that has not been filled completely.
        self.0.rewind();
    }
}

/// Passes the bytes `range` of a plaintext to `target`, and drops the others.
pub(crate) struct Window<T> {
    target: T,
    range: Range<u64>,
    /// The position of the next byte in the plaintext.
    position: u64,
    scratch: Zeroizing<Vec<u8>>,
}

impl<T> Window<T> {
    pub(crate) fn new(target: T, range: Range<u64>) -> Self {
        Self { target, range, position: 0, scratch: Zeroizing::default() }
    }
}

impl<T: PlaintextTarget> PlaintextTarget for Window<T> {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let start = self.position;
        let end = start + len as u64;
        self.position = end;
        let within = |position: u64| usize::try_from(position.clamp(start, end) - start).unwrap_or(len);
        let wanted = within(self.range.start)..within(self.range.end);
        if wanted == (0..len) {
            return self.target.append_with(len, fill);
        }
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        let all = &mut self.scratch[..len];
        fill(all)?;
        self.target.append_with(wanted.len(), |out| {
            out.copy_from_slice(&all[wanted]);
            Ok(())
        })
    }
}

impl<T: RevocableTarget> RevocableTarget for Window<T> {
    fn discard(&mut self) {
        self.target.discard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_keeps_only_its_range() {
        let plaintext: Vec<u8> = (0..100).collect();
        for chunk in [1, 7, 50, 100] {
            for range in [0..100, 0..1, 99..100, 10..60, 49..50, 5..5_u64] {
                let mut window = Window::new(Vec::new(), range.clone());
                for part in plaintext.chunks(chunk) {
                    window
                        .append_with(part.len(), |out| {
                            out.copy_from_slice(part);
                            Ok(())
                        })
                        .unwrap();
                }
                let bounds = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert_eq!(window.target, plaintext[bounds], "{chunk} {range:?}");
                assert!(window.scratch.len() <= chunk);
                window.discard();
                assert!(window.target.is_empty());
            }
        }
    }
}
