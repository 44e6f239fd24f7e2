//! Buffers that reads fill: [`Target`] for a range, and [`WholeTarget`] for a whole attachment.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::abi::{self, service};
use crate::error::{ErrorCode, OrthancError};
use crate::orthanc::Orthanc;

/// More bytes than a [`Target`] has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{attempted} bytes do not fit into the {remaining} that remain of the target")]
pub struct TargetOverflow {
    /// Bytes that were to be appended.
    pub attempted: usize,
    /// Bytes that there was room for.
    pub remaining: usize,
}

/// A buffer of fixed length that is filled from its beginning to its end.
///
/// Its memory may be uninitialised, so it can be appended to but not read. Orthanc gets it only when it was filled
/// entirely; there are no short reads.
#[derive(Debug)]
pub struct Target<'a> {
    memory: &'a mut [MaybeUninit<u8>],
    filled: &'a mut usize,
}

impl<'a> Target<'a> {
    /// A target on `memory` that reports into `filled` how far it got.
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

    /// Bytes appended so far.
    pub fn filled(&self) -> usize {
        *self.filled
    }

    /// Bytes still to be appended.
    pub fn remaining(&self) -> usize {
        self.memory.len() - *self.filled
    }

    /// Appends bytes, all or none.
    ///
    /// # Errors
    ///
    /// There is no room for all of them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), TargetOverflow> {
        let end = self.end_of(bytes.len())?;
        self.memory[*self.filled..end].write_copy_of_slice(bytes);
        *self.filled = end;
        Ok(())
    }

    /// Appends `len` bytes, zero at first, that `fill` writes in place.
    ///
    /// # Errors
    ///
    /// There is no room for `len` bytes, or `fill` failed; then nothing was appended.
    pub fn append_with<E: From<TargetOverflow>>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.end_of(len)?;
        let part = &mut self.memory[*self.filled..end];
        part.fill(MaybeUninit::new(0));
        // SAFETY: each byte of `part` was initialised by the line above.
        fill(unsafe { part.assume_init_mut() })?;
        *self.filled = end;
        Ok(())
    }

    /// Forgets what was appended, to fill the target anew.
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

/// Who allocates the buffer of a whole read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allocator {
    /// C's `malloc`: Orthanc frees with the function given when the storage area was registered.
    Malloc,
    /// Orthanc's service for memory buffers.
    Orthanc,
}

/// A buffer that belongs to the plugin until Orthanc takes it.
struct Allocation<'a> {
    orthanc: &'a Orthanc,
    allocator: Allocator,
    /// Dangling where `len` is 0: nothing was allocated then.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an allocation is owned memory without ties to a thread, and `Orthanc` is for any thread.
unsafe impl Send for Allocation<'_> {}

impl<'a> Allocation<'a> {
    fn new(orthanc: &'a Orthanc, allocator: Allocator, len: u64) -> Result<Self, ErrorCode> {
        let len = isize::try_from(len).map_err(|_| ErrorCode::NOT_ENOUGH_MEMORY)?.unsigned_abs();
        // Orthanc never frees a buffer of size 0 (it takes null with size 0 for an empty file), so it must not get one.
        let start = match (len, allocator) {
            (0, _) => Some(NonNull::dangling()),
            (_, Allocator::Malloc) => {
                // SAFETY: `malloc` may be called with any size that is not 0.
                NonNull::new(unsafe { libc::malloc(len) }.cast())
            }
            (_, Allocator::Orthanc) => Self::from_host(orthanc, len).map_err(|error| error.code())?,
        };
        let start = start.ok_or(ErrorCode::NOT_ENOUGH_MEMORY)?;
        Ok(Self { orthanc, allocator, start, len })
    }

    fn from_host(orthanc: &Orthanc, len: usize) -> Result<Option<NonNull<u8>>, OrthancError> {
        let mut buffer = abi::MemoryBuffer64 { data: ptr::null_mut(), size: 0 };
        let params = abi::CreateMemoryBuffer64 { target: &raw mut buffer, size: len as u64 };
        // SAFETY: the parameters are those of this service, and `buffer` outlives the call.
        unsafe { orthanc.invoke("CreateMemoryBuffer64", service::CREATE_MEMORY_BUFFER_64, &params) }?;
        Ok(NonNull::new(buffer.data.cast()))
    }

    fn memory(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: `start` is valid for `len` bytes (or dangling with 0), which this value owns; any content is fine for
        // `MaybeUninit`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    /// Hands the buffer over; null where its length is 0.
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

/// Where a whole read puts the attachment, once its length is known.
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

    /// Allocates the buffer for an attachment of `len` bytes, which may be 0. A buffer allocated before is released
    /// first: a read may start anew.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NOT_ENOUGH_MEMORY`], or what Orthanc returns.
    pub fn allocate(&mut self, len: u64) -> Result<Target<'_>, ErrorCode> {
        self.allocation = None;
        let allocation = self.allocation.insert(Allocation::new(self.orthanc, self.allocator, len)?);
        Ok(Target::new(allocation.memory(), &mut self.filled))
    }

    /// The buffer for Orthanc, if it was allocated and filled entirely.
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

/// A read that claims success without having delivered everything.
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
        // SAFETY: called after every byte was filled.
        unsafe { memory.assume_init_ref() }
    }

    #[test]
    fn a_target_is_filled_in_order() {
        let (mut memory, mut filled) = (memory(6), 9);
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
    fn a_target_takes_all_or_nothing() {
        let (mut memory, mut filled) = (memory(3), 0);
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
    fn a_failed_fill_does_not_advance_a_target() {
        let (mut memory, mut filled) = (memory(4), 0);
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
    fn a_rewound_target_is_filled_anew() {
        let (mut memory, mut filled) = (memory(2), 0);
        let mut target = Target::new(&mut memory, &mut filled);
        target.append(b"xy").unwrap();
        target.rewind();
        assert_eq!(target.remaining(), 2);
        target.append(b"ok").unwrap();
        assert_eq!(written(&memory), b"ok");
    }

    #[test]
    fn targets_can_be_sent_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Target<'_>>();
        is_send::<WholeTarget<'_>>();
    }
}
