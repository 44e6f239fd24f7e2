//! Buffers that reads fill: [`Target`] for a range, and [`WholeTarget`] for a whole attachment.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::abi::{self, service};
use crate::error::{ErrorCode, OrthancError};
use crate::orthanc::Orthanc;

/// More bytes were appended than a [`Target`] has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{attempted} bytes exceed the remaining {remaining} of the target")]
pub struct TargetOverflow {
    /// Number of bytes to append.
    pub attempted: usize,
    /// Number of bytes that would have fitted.
    pub remaining: usize,
}

/// A buffer of fixed length that is filled from its beginning to its end.
///
/// The memory may be uninitialized, so it can be appended to but not read. Orthanc gets it only if it was
/// filled entirely: there are no short reads.
#[derive(Debug)]
pub struct Target<'a> {
    memory: &'a mut [MaybeUninit<u8>],
    filled: &'a mut usize,
}

impl<'a> Target<'a> {
    /// Creates a target for `memory` that counts its bytes in `filled`.
    pub(crate) fn new(memory: &'a mut [MaybeUninit<u8>], filled: &'a mut usize) -> Self {
        *filled = 0;
        Self { memory, filled }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Number of bytes appended so far.
    pub fn filled(&self) -> usize {
        *self.filled
    }

    /// Number of bytes still to be appended.
    pub fn remaining(&self) -> usize {
        self.memory.len() - *self.filled
    }

    /// Appends bytes, all or none.
    ///
    /// # Errors
    ///
    /// Not enough room.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), TargetOverflow> {
        let end = self.end_of(bytes.len())?;
        self.memory[*self.filled..end].write_copy_of_slice(bytes);
        *self.filled = end;
        Ok(())
    }

    /// Appends `len` bytes that `fill` writes in place, over zeros.
    ///
    /// # Errors
    ///
    /// Not enough room, or `fill` failed. Nothing was appended.
    pub fn append_with<E: From<TargetOverflow>>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.end_of(len)?;
        let gap = &mut self.memory[*self.filled..end];
        gap.fill(MaybeUninit::new(0));
        // SAFETY: the line above initialized each byte of `gap`.
        fill(unsafe { gap.assume_init_mut() })?;
        *self.filled = end;
        Ok(())
    }

    /// Discards the appended bytes, to fill the target again.
    pub fn rewind(&mut self) {
        *self.filled = 0;
    }

    fn end_of(&self, len: usize) -> Result<usize, TargetOverflow> {
        let remaining = self.remaining();
        if len > remaining {
            return Err(TargetOverflow { attempted: len, remaining });
        }
        Ok(*self.filled + len)
    }
}

/// Allocator of a whole read's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allocator {
    /// C's `malloc`: Orthanc frees the buffer with the `free` that the storage area registered.
    Malloc,
    /// Orthanc's service for memory buffers.
    Orthanc,
}

/// A buffer that the plugin owns until Orthanc takes it.
struct Allocation<'a> {
    orthanc: &'a Orthanc,
    allocator: Allocator,
    /// Dangling if `len` is 0: nothing was allocated.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: owned memory is not tied to a thread, and `Orthanc` may be used from any thread.
unsafe impl Send for Allocation<'_> {}

impl<'a> Allocation<'a> {
    fn new(orthanc: &'a Orthanc, allocator: Allocator, wanted: u64) -> Result<Self, ErrorCode> {
        let len = isize::try_from(wanted).map_err(|_| ErrorCode::NOT_ENOUGH_MEMORY)?.unsigned_abs();
        // Orthanc never frees a buffer of size 0: it represents an empty file by null with size 0.
        let allocated = match (len, allocator) {
            (0, _) => Some(NonNull::dangling()),
            (_, Allocator::Malloc) => {
                // SAFETY: `malloc` accepts any size but 0.
                NonNull::new(unsafe { libc::malloc(len) }.cast())
            }
            (_, Allocator::Orthanc) => Self::from_orthanc(orthanc, len).map_err(|error| error.code())?,
        };
        let start = allocated.ok_or(ErrorCode::NOT_ENOUGH_MEMORY)?;
        Ok(Self { orthanc, allocator, start, len })
    }

    fn from_orthanc(orthanc: &Orthanc, len: usize) -> Result<Option<NonNull<u8>>, OrthancError> {
        let mut buffer = abi::MemoryBuffer64 { data: ptr::null_mut(), size: 0 };
        let params = abi::CreateMemoryBuffer64 { target: &raw mut buffer, size: len as u64 };
        // SAFETY: the parameters are those of this service, and `buffer` outlives the call.
        unsafe { orthanc.invoke("CreateMemoryBuffer64", service::CREATE_MEMORY_BUFFER_64, &params) }?;
        Ok(NonNull::new(buffer.data.cast()))
    }

    fn memory(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: `start` is valid for `len` bytes (or dangling with 0), which this value owns;
        // `MaybeUninit` may be uninitialized.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    /// Gives up the buffer; null if its length is 0.
    fn release(self) -> (*mut c_void, usize) {
        let this = std::mem::ManuallyDrop::new(self);
        match this.len {
            0 => (ptr::null_mut(), 0),
            len => (this.start.as_ptr().cast(), len),
        }
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        let start: *mut c_void = self.start.as_ptr().cast();
        match (self.len, self.allocator) {
            (0, _) => {}
            // SAFETY: `start` came from `malloc`, and this value is its only owner.
            (_, Allocator::Malloc) => unsafe { libc::free(start) },
            // SAFETY: `start` came from Orthanc, and this value is its only owner.
            (_, Allocator::Orthanc) => unsafe { self.orthanc.free(start) },
        }
    }
}

/// The target of a whole read, whose buffer is allocated once the attachment's length is known.
pub struct WholeTarget<'a> {
    orthanc: &'a Orthanc,
    allocator: Allocator,
    allocation: Option<Allocation<'a>>,
    filled: usize,
}

impl<'a> WholeTarget<'a> {
    pub(crate) fn new(orthanc: &'a Orthanc, allocator: Allocator) -> Self {
        Self { orthanc, allocator, allocation: None, filled: 0 }
    }

    /// Allocates the buffer for an attachment of `len` bytes, which may be 0. A read that restarts calls it
    /// again, which first releases the previous buffer.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NOT_ENOUGH_MEMORY`], or Orthanc's error code.
    pub fn allocate(&mut self, len: u64) -> Result<Target<'_>, ErrorCode> {
        self.allocation = None;
        let allocation = self.allocation.insert(Allocation::new(self.orthanc, self.allocator, len)?);
        Ok(Target::new(allocation.memory(), &mut self.filled))
    }

    /// Returns the buffer for Orthanc if it was allocated and filled entirely.
    pub(crate) fn finish(self) -> Result<(*mut c_void, usize), Incomplete> {
        let Some(allocation) = self.allocation else { return Err(Incomplete::NotAllocated) };
        if self.filled != allocation.len {
            return Err(Incomplete::Short { filled: self.filled, len: allocation.len });
        }
        Ok(allocation.release())
    }
}

impl std::fmt::Debug for WholeTarget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.allocation.as_ref().map(|allocation| allocation.len);
        f.debug_struct("WholeTarget").field("len", &len).field("filled", &self.filled).finish_non_exhaustive()
    }
}

/// A read reported success without delivering everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Incomplete {
    #[error("no buffer was allocated")]
    NotAllocated,
    #[error("only {filled} of {len} bytes were filled")]
    Short { filled: usize, len: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failure {
        Overflow(TargetOverflow),
        Other,
    }

    impl From<TargetOverflow> for Failure {
        fn from(overflow: TargetOverflow) -> Self {
            Self::Overflow(overflow)
        }
    }

    fn memory(len: usize) -> Vec<MaybeUninit<u8>> {
        vec![MaybeUninit::uninit(); len]
    }

    fn written(memory: &[MaybeUninit<u8>]) -> &[u8] {
        // SAFETY: the callers have filled every byte.
        unsafe { memory.assume_init_ref() }
    }

    #[test]
    fn target_is_filled_in_order() {
        let mut memory = memory(6);
        let mut filled = 9;
        let mut target = Target::new(&mut memory, &mut filled);
        assert_eq!((target.len(), target.filled(), target.remaining()), (6, 0, 6));
        target.append(b"ab").unwrap();
        target
            .append_with::<Failure>(3, |part| {
                assert_eq!(part, [0, 0, 0]);
                part.copy_from_slice(b"cde");
                Ok(())
            })
            .unwrap();
        target.append(b"").unwrap();
        assert_eq!((target.filled(), target.remaining()), (5, 1));
        target.append(b"f").unwrap();
        assert_eq!(filled, 6);
        assert_eq!(written(&memory), b"abcdef");
    }

    #[test]
    fn append_is_all_or_nothing() {
        let mut memory = memory(3);
        let mut filled = 0;
        let mut target = Target::new(&mut memory, &mut filled);
        target.append(b"ab").unwrap();
        let overflow = TargetOverflow { attempted: 2, remaining: 1 };
        assert_eq!(target.append(b"cd"), Err(overflow));
        assert_eq!(target.append_with(2, |_| Ok(())), Err(Failure::Overflow(overflow)));
        assert_eq!(
            target.append_with(usize::MAX, |_| Ok(())).map_err(|e: Failure| e != Failure::Other),
            Err(true)
        );
        assert_eq!(target.filled(), 2);
    }

    #[test]
    fn failed_fill_does_not_advance() {
        let mut memory = memory(4);
        let mut filled = 0;
        let mut target = Target::new(&mut memory, &mut filled);
        let failed = target.append_with(4, |part| {
            part.fill(7);
            Err(Failure::Other)
        });
        assert_eq!(failed, Err(Failure::Other));
        assert_eq!(target.filled(), 0);
        target.append(b"good").unwrap();
        assert_eq!(written(&memory), b"good");
    }

    #[test]
    fn rewound_target_can_be_filled_again() {
        let mut memory = memory(2);
        let mut filled = 0;
        let mut target = Target::new(&mut memory, &mut filled);
        target.append(b"xy").unwrap();
        target.rewind();
        assert_eq!(target.remaining(), 2);
        target.append(b"ok").unwrap();
        assert_eq!(written(&memory), b"ok");
    }

    #[test]
    fn targets_are_send() {
        fn is_send<T: Send>() {}
        is_send::<Target<'_>>();
        is_send::<WholeTarget<'_>>();
    }
}
