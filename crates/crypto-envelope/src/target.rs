//! Where decrypted bytes go: memory of the caller, filled in place.

use zeroize::Zeroize;

use crate::error::DecryptError;

/// Takes plaintext, in order.
///
/// The decryptors write straight into the target's memory, so that plaintext is not copied again. One target takes
/// one decryption's output.
pub trait PlaintextTarget {
    /// Makes room for `len` more bytes, lets `fill` write all of them, and keeps them only if that succeeds.
    ///
    /// `fill` overwrites every byte; what they hold before does not matter to it, but they must be initialised.
    ///
    /// # Errors
    /// `fill`'s own, passed on; or [`DecryptError::Target`] when there is no room.
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError>;
}

/// A target that can take back what it was given.
///
/// A1 needs one: its plaintext is written before the tag, at the envelope's end, can be verified. A target that passes
/// bytes on as they come (standard output, a socket) must not implement this trait.
pub trait RevocableTarget: PlaintextTarget {
    /// Forgets and wipes everything appended so far: it was not authentic.
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

/// Grows as needed. Reserve the plaintext's length beforehand to avoid copies.
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

/// Fills a buffer of fixed size from its start.
#[derive(Debug)]
pub struct SliceTarget<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceTarget<'a> {
    /// A target of at most `buffer.len()` bytes.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, filled: 0 }
    }

    /// Bytes appended so far.
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
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let free = room.len();
        let Some(room) = room.get_mut(..len) else {
            return Err(DecryptError::target(format!(
                "{len} more bytes do not fit in a buffer with {free} free"
            )));
        };
        let outcome = fill(room);
        match outcome {
            Ok(()) => self.filled += len,
            Err(_) => room.zeroize(),
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
