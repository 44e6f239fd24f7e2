//! The storage area's callbacks, called as Orthanc calls them.

use std::ffi::{CString, c_void};
use std::ptr;

use orthanc_ffi::abi;

use crate::FakeOrthanc;
use crate::state::{bytes, code, free, result};

/// Content of a range's buffer before the plugin fills it, and of the bytes behind it.
const POISON: u8 = 0xA5;
/// Number of bytes behind a range's buffer that must stay unchanged.
const GUARD: usize = 64;

/// Which storage area the plugin has registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageAreaVersion {
    /// None.
    #[default]
    None,
    /// Storage area 1, without ranges.
    One,
    /// Storage area 2, with ranges.
    Two,
}

/// The callbacks of the registered storage area.
#[derive(Clone, Copy, Default)]
pub(crate) struct Area {
    pub(crate) version: StorageAreaVersion,
    create: Option<abi::StorageCreate>,
    read: Option<abi::StorageRead>,
    free: Option<abi::Free>,
    read_whole: Option<abi::StorageReadWhole>,
    read_range: Option<abi::StorageReadRange>,
    remove: Option<abi::StorageRemove>,
}

impl From<abi::RegisterStorageArea> for Area {
    fn from(area: abi::RegisterStorageArea) -> Self {
        Self {
            version: StorageAreaVersion::One,
            create: area.create,
            read: area.read,
            free: area.free,
            remove: area.remove,
            ..Self::default()
        }
    }
}

impl From<abi::RegisterStorageArea2> for Area {
    fn from(area: abi::RegisterStorageArea2) -> Self {
        Self {
            version: StorageAreaVersion::Two,
            create: area.create,
            read_whole: area.read_whole,
            read_range: area.read_range,
            remove: area.remove,
            ..Self::default()
        }
    }
}

fn uuid_text(uuid: &str) -> Result<CString, i32> {
    CString::new(uuid).map_err(|_| code::PARAMETER_OUT_OF_RANGE)
}

/// The callbacks of the storage area. Errors are the plugin's error codes, or 35 if the callback is not registered.
impl FakeOrthanc {
    fn area(&self) -> Area {
        *self.state.storage.lock()
    }

    /// Stores an attachment. Empty content is passed as a null pointer.
    pub fn create(&self, uuid: &str, content_type: i32, content: &[u8]) -> Result<(), i32> {
        let create = self.area().create.ok_or(code::NULL_POINTER)?;
        let text = uuid_text(uuid)?;
        let data = if content.is_empty() { ptr::null() } else { content.as_ptr().cast::<c_void>() };
        let size = i64::try_from(content.len()).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: the string and the content live until the plugin's callback returns.
        result(unsafe { create(text.as_ptr(), data, size, content_type) })
    }

    /// Calls the create callback with arguments that Orthanc would not pass: any UUID bytes or none, any
    /// size, no content.
    pub fn create_raw(&self, uuid: Option<&[u8]>, size: i64) -> Result<(), i32> {
        let create = self.area().create.ok_or(code::NULL_POINTER)?;
        let owned = uuid.map(CString::new).transpose().map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        let pointer = owned.as_ref().map_or(ptr::null(), |uuid| uuid.as_ptr());
        // SAFETY: the plugin must not read null content, even if the size is not 0.
        result(unsafe { create(pointer, ptr::null(), size, 1) })
    }

    /// Reads a whole attachment, through storage area 1 or 2.
    pub fn read_whole(&self, uuid: &str, content_type: i32) -> Result<Vec<u8>, i32> {
        let area = self.area();
        let text = uuid_text(uuid)?;
        if let Some(read) = area.read {
            let mut data = ptr::null_mut();
            let mut size = 0_i64;
            // SAFETY: the string and both variables live until the plugin's callback returns.
            let returned = unsafe { read(&raw mut data, &raw mut size, text.as_ptr(), content_type) };
            if (returned != code::SUCCESS || size == 0) && !data.is_null() {
                self.state
                    .violation("a failed or empty read has set the content, which Orthanc will not free");
            }
            result(returned)?;
            let len = usize::try_from(size).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
            // SAFETY: on success `data` has `size` bytes, which belong to Orthanc now.
            let content = unsafe { bytes(data, len) };
            let free = area.free.ok_or(code::NULL_POINTER)?;
            // SAFETY: the plugin registered this function to free the memory that `read` returns.
            unsafe { free(data) };
            return Ok(content);
        }
        let read_whole = area.read_whole.ok_or(code::NULL_POINTER)?;
        let mut buffer = abi::MemoryBuffer64 { data: ptr::null_mut(), size: 0 };
        // SAFETY: the string and the variable live until the plugin's callback returns.
        let returned = unsafe { read_whole(&raw mut buffer, text.as_ptr(), content_type) };
        if returned != code::SUCCESS && !buffer.data.is_null() {
            self.state.violation("a failed read has set the buffer, which Orthanc will not free");
        }
        result(returned)?;
        let size = usize::try_from(buffer.size).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        match (size, self.state.size_of(buffer.data)) {
            (0, None) => return Ok(Vec::new()),
            (1.., Some(allocated)) if size <= allocated => {}
            _ => {
                self.state.violation("a read has returned a buffer that Orthanc did not allocate");
                return Err(code::PARAMETER_OUT_OF_RANGE);
            }
        }
        // SAFETY: Orthanc allocated the buffer with at least `size` bytes.
        let content = unsafe { bytes(buffer.data, size) };
        // SAFETY: Orthanc allocated the buffer, and it is not used afterwards.
        unsafe { free(buffer.data) };
        Ok(content)
    }

    /// Reads `len` bytes from `start` on, through storage area 2. The buffer is poisoned with 0xA5, and the
    /// bytes behind it are checked afterwards.
    pub fn read_range(&self, uuid: &str, content_type: i32, start: u64, len: usize) -> Result<Vec<u8>, i32> {
        let read_range = self.area().read_range.ok_or(code::NULL_POINTER)?;
        let text = uuid_text(uuid)?;
        let mut memory = vec![POISON; len + GUARD];
        let data = memory.as_mut_ptr().cast();
        let mut buffer = abi::MemoryBuffer64 { data, size: len as u64 };
        // SAFETY: the string and the buffer live until the plugin's callback returns.
        let returned = unsafe { read_range(&raw mut buffer, text.as_ptr(), content_type, start) };
        if buffer.data != data || buffer.size != len as u64 {
            self.state.violation("a range has changed its buffer: Orthanc could answer with a short read");
        }
        if memory[len..].iter().any(|byte| *byte != POISON) {
            self.state.violation("a range has written past its buffer");
        }
        result(returned)?;
        memory.truncate(len);
        Ok(memory)
    }

    /// Removes an attachment.
    pub fn remove(&self, uuid: &str, content_type: i32) -> Result<(), i32> {
        let remove = self.area().remove.ok_or(code::NULL_POINTER)?;
        let text = uuid_text(uuid)?;
        // SAFETY: the string lives until the plugin's callback returns.
        result(unsafe { remove(text.as_ptr(), content_type) })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_char;

    use abi::MemoryBuffer64;
    use libloading::os::unix::Library;

    use super::*;
    use crate::FakeOrthancOptions;
    use crate::state::State;

    /// Length of the range in bytes.
    const LEN: usize = 10;
    static BYTE: u8 = 7;

    unsafe extern "C" fn returns_foreign_memory(
        target: *mut MemoryBuffer64,
        uuid: *const c_char,
        _: i32,
    ) -> i32 {
        let data = (&raw const BYTE).cast_mut().cast();
        // SAFETY: Orthanc's variable.
        unsafe { target.write(MemoryBuffer64 { data, size: 1 }) };
        // SAFETY: Orthanc's string, which has a NUL at its end.
        i32::from(unsafe { uuid.read() } != 0)
    }

    unsafe extern "C" fn writes_past_its_buffer(
        target: *mut MemoryBuffer64,
        _: *const c_char,
        _: i32,
        _: u64,
    ) -> i32 {
        // SAFETY: Orthanc's variable.
        let target = unsafe { &mut *target };
        // SAFETY: the guard bytes follow the buffer.
        unsafe { target.data.cast::<u8>().wrapping_add(LEN).write(0) };
        target.size -= 1;
        0
    }

    #[test]
    fn bad_buffers_are_noticed() {
        let orthanc = FakeOrthanc {
            library: Library::this().into(),
            state: State::new(FakeOrthancOptions::default()).unwrap(),
            former: Vec::new(),
            finalized: true,
            folder: tempfile::tempdir().unwrap(),
        };
        *orthanc.state.storage.lock() = Area {
            read_whole: Some(returns_foreign_memory),
            read_range: Some(writes_past_its_buffer),
            ..Area::default()
        };
        assert_eq!(orthanc.read_whole("fails", 1), Err(1));
        assert_eq!(orthanc.read_whole("", 1), Err(code::PARAMETER_OUT_OF_RANGE));
        assert_eq!(orthanc.read_range("uuid", 1, 0, LEN), Ok(vec![POISON; LEN]));
        let expected = [
            "a failed read has set the buffer, which Orthanc will not free",
            "a read has returned a buffer that Orthanc did not allocate",
            "a range has changed its buffer: Orthanc could answer with a short read",
            "a range has written past its buffer",
        ];
        assert_eq!(*orthanc.state.violations.lock(), expected);
    }
}
