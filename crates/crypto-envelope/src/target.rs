//! Targets for decrypted bytes: memory of the caller that is filled in place.

use zeroize::Zeroize;

use crate::error::DecryptError;

/// Receives plaintext in order.
///
/// The decryptors write directly into the target's memory, which saves a copy. Use one target per decryption.
pub trait PlaintextTarget {
    /// Calls `fill` with `len` more bytes to overwrite, and keeps these bytes only if `fill` succeeds.
    ///
    /// The bytes passed to `fill` must be initialized, with any value.
    ///
    /// # Errors
    /// The error of `fill`, or [`DecryptError::Target`] if there is not enough space.
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError>;
}

/// A target that can discard the plaintext it has received.
///
/// A1 requires such a target, because its plaintext is written before the tag at the envelope's end can be
/// verified. A target that forwards bytes immediately (standard output, a socket) must not implement this
/// trait.
pub trait RevocableTarget: PlaintextTarget {
    /// Removes and wipes everything appended so far, because it is not authentic.
    fn discard(&mut self);
}

impl<T: PlaintextTarget> PlaintextTarget for &mut T {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        (**self).append_with(len, fill)
    }
}

impl<T: RevocableTarget> RevocableTarget for &mut T {
    fn discard(&mut self) {
        (**self).discard();
    }
}

/// Grows as needed. Reserve the plaintext's length in advance to avoid copies.
impl PlaintextTarget for Vec<u8> {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let start = self.len();
        self.try_reserve(len).map_err(DecryptError::target)?;
        self.resize(start + len, 0);
        let outcome = self.get_mut(start..).map_or(Ok(()), fill);
        if outcome.is_err() {
            if let Some(failed) = self.get_mut(start..) {
                failed.zeroize();
            }
            self.truncate(start);
        }
        outcome
    }
}

/// Clears the whole vector.
impl RevocableTarget for Vec<u8> {
    fn discard(&mut self) {
        self.zeroize();
    }
}

/// A target of fixed size, which is filled from its start.
#[derive(Debug)]
pub struct SliceTarget<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceTarget<'a> {
    /// Creates a target for at most `buffer.len()` bytes.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, filled: 0 }
    }

    /// Returns the number of bytes appended so far.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

impl PlaintextTarget for SliceTarget<'_> {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let rest = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let free = rest.len();
        let out = rest.get_mut(..len).ok_or_else(|| {
            DecryptError::target(format!("the buffer must have {len} more bytes, got {free}"))
        })?;
        let outcome = fill(out);
        match outcome {
            Ok(()) => self.filled += len,
            Err(_) => out.zeroize(),
        }
        outcome
    }
}

impl RevocableTarget for SliceTarget<'_> {
    fn discard(&mut self) {
        self.buffer.zeroize();
        self.filled = 0;
    }
}
