//! The storage area: Orthanc's callbacks for attachments, as calls to a [`StorageArea`].

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use bytes::Bytes;

use crate::abi::{self, service};
use crate::entry;
use crate::error::{ContentType, ErrorCode, OrthancError, to_raw};
use crate::loan::lend;
use crate::orthanc::{Level, Orthanc};
use crate::panic::guarded;
use crate::target::{Allocator, Incomplete, Target, WholeTarget};

/// The store of Orthanc's attachments, called from several of Orthanc's threads at once.
///
/// Error codes are passed to Orthanc unchanged; the methods log the cause. Orthanc does not retry.
pub trait StorageArea: Send + Sync + 'static {
    /// Stores an attachment under a new UUID.
    ///
    /// `content` is Orthanc's buffer, not a copy. Other threads may get clones, but Orthanc's thread waits
    /// until the last one is dropped: a clone that is never dropped blocks that thread forever.
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode>;

    /// Reads an attachment. Must allocate and fill `target` before returning `Ok`.
    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode>;

    /// Reads as many bytes from `start` on as `target` has room for. Must fill `target` before returning
    /// `Ok`.
    fn read_range(
        &self,
        uuid: &str,
        content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode>;

    /// Removes an attachment. With SQLite, Orthanc's database is locked during the call.
    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode>;
}

/// Whether Orthanc may read ranges of attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Orthanc reads only the ranges it needs (storage area 2).
    Served,
    /// Orthanc reads whole attachments only, and stores DICOM headers as separate attachments (storage area
    /// 1). It never calls [`StorageArea::read_range`].
    NotServed,
}

impl Orthanc {
    /// Registers `area` as Orthanc's storage area. Call it during `initialize` only.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::STORAGE_AREA_ALREADY_REGISTERED`] if another plugin has already registered one.
    pub fn register_storage_area(
        &self,
        area: Arc<dyn StorageArea>,
        ranges: Ranges,
    ) -> Result<(), OrthancError> {
        self.registrations().storage = Some(area);
        let registered = match ranges {
            Ranges::Served => {
                let params = abi::RegisterStorageArea2 {
                    create: Some(create),
                    read_whole: Some(read_whole),
                    read_range: Some(read_range),
                    remove: Some(remove),
                };
                // SAFETY: the parameters are those of this service; the functions live as long as the
                // library.
                unsafe { self.invoke("RegisterStorageArea2", service::REGISTER_STORAGE_AREA_2, &params) }
            }
            Ranges::NotServed => {
                let params = abi::RegisterStorageArea {
                    create: Some(create),
                    read: Some(read),
                    remove: Some(remove),
                    // `read` allocates with `malloc`.
                    free: Some(libc::free),
                };
                // SAFETY: as above.
                unsafe { self.invoke("RegisterStorageArea", service::REGISTER_STORAGE_AREA, &params) }
            }
        };
        if registered.is_err() {
            self.registrations().storage = None;
        }
        registered
    }
}

/// The common arguments of the callbacks: Orthanc, the storage area, and the UUID as text.
///
/// # Safety
///
/// `raw_uuid` must be null or a NUL-terminated string that lives until the callback returns.
unsafe fn arguments<'a>(
    raw_uuid: *const c_char,
) -> Result<(Orthanc, Arc<dyn StorageArea>, &'a str), ErrorCode> {
    let orthanc = entry::current().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    let area = orthanc.registrations().storage.clone().ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS)?;
    if raw_uuid.is_null() {
        return Err(ErrorCode::PARAMETER_OUT_OF_RANGE);
    }
    // SAFETY: not null, so a string by the caller's promise.
    let text = unsafe { CStr::from_ptr(raw_uuid) }.to_str();
    Ok((orthanc, area, text.map_err(|_| ErrorCode::PARAMETER_OUT_OF_RANGE)?))
}

/// Logs a read that reported success without delivering everything, and returns its error code.
fn refuse(orthanc: &Orthanc, uuid: &str, cause: Incomplete) -> ErrorCode {
    orthanc.log(Level::Error, &format!("the read of attachment {uuid} is incomplete: {cause}"));
    ErrorCode::STORAGE_AREA_PLUGIN
}

fn callback(name: &'static str, body: impl FnOnce() -> Result<(), ErrorCode>) -> abi::RawErrorCode {
    guarded(name, ErrorCode::PLUGIN.as_raw(), || to_raw(body()))
}

unsafe extern "C" fn create(
    raw_uuid: *const c_char,
    content: *const c_void,
    size: i64,
    content_type: i32,
) -> abi::RawErrorCode {
    callback("storage create", || {
        // SAFETY: Orthanc passes a string that outlives the callback.
        let (orthanc, area, uuid) = unsafe { arguments(raw_uuid) }?;
        let len = usize::try_from(size).map_err(|_| ErrorCode::PARAMETER_OUT_OF_RANGE)?;
        // Guarded inside the loan: a panic's payload may hold a clone of the content, and must be dropped
        // before the wait.
        let store = |bytes| {
            guarded("storage create", Err(ErrorCode::PLUGIN), || {
                area.create(uuid, ContentType::from_raw(content_type), bytes)
            })
        };
        // SAFETY: Orthanc's `size` bytes do not change until this callback returns.
        unsafe { lend(&orthanc, uuid, content, len, store) }?
    })
}

/// Reads a whole attachment for either storage area. Returns the filled buffer, null with size 0 if empty.
///
/// # Safety
///
/// As [`arguments`].
unsafe fn read_into(
    allocator: Allocator,
    raw_uuid: *const c_char,
    content_type: i32,
) -> Result<(*mut c_void, usize), ErrorCode> {
    // SAFETY: passed on from the caller.
    let (orthanc, area, uuid) = unsafe { arguments(raw_uuid) }?;
    let mut target = WholeTarget::new(&orthanc, allocator);
    area.read_whole(uuid, ContentType::from_raw(content_type), &mut target)?;
    target.finish().map_err(|cause| refuse(&orthanc, uuid, cause))
}

unsafe extern "C" fn read(
    content: *mut *mut c_void,
    size: *mut i64,
    raw_uuid: *const c_char,
    content_type: i32,
) -> abi::RawErrorCode {
    callback("storage read", || {
        if content.is_null() || size.is_null() {
            return Err(ErrorCode::NULL_POINTER);
        }
        // SAFETY: Orthanc passes a string that outlives the callback.
        let (data, len) = unsafe { read_into(Allocator::Malloc, raw_uuid, content_type) }?;
        let size_value = i64::try_from(len).map_err(|_| ErrorCode::NOT_ENOUGH_MEMORY)?;
        // SAFETY: not null, so Orthanc's variable.
        unsafe { content.write(data) };
        // SAFETY: as above.
        unsafe { size.write(size_value) };
        Ok(())
    })
}

unsafe extern "C" fn read_whole(
    target: *mut abi::MemoryBuffer64,
    raw_uuid: *const c_char,
    content_type: i32,
) -> abi::RawErrorCode {
    callback("storage read", || {
        if target.is_null() {
            return Err(ErrorCode::NULL_POINTER);
        }
        // SAFETY: Orthanc passes a string that outlives the callback.
        let (data, len) = unsafe { read_into(Allocator::Orthanc, raw_uuid, content_type) }?;
        // SAFETY: not null, so Orthanc's variable.
        unsafe { target.write(abi::MemoryBuffer64 { data, size: len as u64 }) };
        Ok(())
    })
}

unsafe extern "C" fn read_range(
    target: *mut abi::MemoryBuffer64,
    raw_uuid: *const c_char,
    content_type: i32,
    start: u64,
) -> abi::RawErrorCode {
    callback("storage range", || {
        // SAFETY: Orthanc passes a string that outlives the callback.
        let (orthanc, area, uuid) = unsafe { arguments(raw_uuid) }?;
        // SAFETY: null or Orthanc's variable, which nothing else uses during the callback.
        let buffer = unsafe { target.as_ref() }.ok_or(ErrorCode::NULL_POINTER)?;
        let len = usize::try_from(buffer.size).map_err(|_| ErrorCode::BAD_RANGE)?;
        if isize::try_from(len).is_err() || start.checked_add(buffer.size).is_none() {
            return Err(ErrorCode::BAD_RANGE);
        }
        let memory = match (len, buffer.data.is_null()) {
            (0, _) => &mut [],
            (_, true) => return Err(ErrorCode::NULL_POINTER),
            // SAFETY: Orthanc allocated `size` bytes, which nothing else uses until the callback returns.
            (_, false) => unsafe { std::slice::from_raw_parts_mut(buffer.data.cast(), len) },
        };
        let mut filled = 0;
        area.read_range(
            uuid,
            ContentType::from_raw(content_type),
            start,
            &mut Target::new(memory, &mut filled),
        )?;
        if filled != len {
            return Err(refuse(&orthanc, uuid, Incomplete::Short { filled, len }));
        }
        Ok(())
    })
}

unsafe extern "C" fn remove(raw_uuid: *const c_char, content_type: i32) -> abi::RawErrorCode {
    callback("storage remove", || {
        // SAFETY: Orthanc passes a string that outlives the callback.
        let (_orthanc, area, uuid) = unsafe { arguments(raw_uuid) }?;
        area.remove(uuid, ContentType::from_raw(content_type))
    })
}
