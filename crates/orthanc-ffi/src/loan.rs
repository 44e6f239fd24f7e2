//! Content that Orthanc lends for a create: passed to the plugin as [`Bytes`], without a copy.
//!
//! `Bytes` may be cloned into any thread and live as long as the plugin likes, but Orthanc's buffer lives
//! only until the callback returns. So the callback must not return before the last clone has been dropped:
//! the owner inside the `Bytes` opens a latch when it is dropped, and [`lend`] waits for that latch, also
//! while a panic unwinds.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::error::ErrorCode;
use crate::orthanc::{Level, Orthanc};

/// Interval between two warnings of a create that waits for clones of its content.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens once, when nothing uses the lent buffer any more.
#[derive(Default)]
struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

/// The owner inside the `Bytes` of a create: a view of Orthanc's buffer.
struct Loan {
    start: NonNull<u8>,
    len: usize,
    latch: Arc<Latch>,
}

// SAFETY: until the latch opens, this view and Orthanc only read the buffer, from any thread.
unsafe impl Send for Loan {}
// SAFETY: as for `Send`; there is no interior mutability.
unsafe impl Sync for Loan {}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `lend`'s caller guarantees the buffer until `lend` returns, and `lend` does not return
        // before this value has been dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // `Bytes` drops its owner after the last clone, so nothing can reach the buffer through this view
        // any more.
        *self.latch.open.lock() = true;
        self.latch.opened.notify_all();
    }
}

/// Waits when dropped, also while a panic unwinds, until the loan has ended.
struct WaitForLoan<'a> {
    latch: Arc<Latch>,
    orthanc: &'a Orthanc,
    uuid: &'a str,
}

impl Drop for WaitForLoan<'_> {
    fn drop(&mut self) {
        let since = Instant::now();
        let mut open = self.latch.open.lock();
        while !*open {
            if self.latch.opened.wait_for(&mut open, PATIENCE).timed_out() && !*open {
                let uuid = self.uuid;
                let seconds = since.elapsed().as_secs();
                let message = format!(
                    "the content of attachment {uuid} is still in use {seconds} s after its create has ended"
                );
                self.orthanc.log(Level::Warning, &message);
            }
        }
    }
}

/// Lends `len` bytes from `content` on as `Bytes`, and returns only when every clone of them has been
/// dropped.
///
/// # Safety
///
/// `content` must be valid for reads of `len` bytes, which must not be written, until this function
/// returns. `content` may be null if `len` is 0.
pub(crate) unsafe fn lend<R>(
    orthanc: &Orthanc,
    uuid: &str,
    content: *const c_void,
    len: usize,
    body: impl FnOnce(Bytes) -> R,
) -> Result<R, ErrorCode> {
    if len == 0 {
        return Ok(body(Bytes::new()));
    }
    let start = NonNull::new(content.cast_mut().cast::<u8>()).ok_or(ErrorCode::NULL_POINTER)?;
    if isize::try_from(len).is_err() {
        return Err(ErrorCode::PARAMETER_OUT_OF_RANGE);
    }
    let latch = Arc::new(Latch::default());
    // Created before the loan, so dropped after it.
    let _wait = WaitForLoan { latch: Arc::clone(&latch), orthanc, uuid };
    Ok(body(Bytes::from_owner(Loan { start, len, latch })))
}
