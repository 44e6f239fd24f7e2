//! The storage area's callbacks, called as Orthanc calls them.

use std::ffi::{CString, c_void};
use std::ptr;

use orthanc_ffi::abi;

use crate::FakeOrthanc;
use crate::state::{Storage, bytes, code, free};

/// Content of a range's buffer before the plugin fills it, and of the bytes behind it.
const POISON: u8 = 0xA5;
/// Bytes behind a range's buffer that must stay as they are.
const GUARD: usize = 64;

/// The callbacks of the storage area, copied out of the lock.
struct Callbacks {
    create: Option<abi::StorageCreate>,
    read: Option<abi::StorageRead>,
    free: Option<abi::Free>,
    read_whole: Option<abi::StorageReadWhole>,
    read_range: Option<abi::StorageReadRange>,
    remove: Option<abi::StorageRemove>,
}

fn outcome(returned: i32) -> Result<(), i32> {
    if returned == code::SUCCESS { Ok(()) } else { Err(returned) }
}

fn uuid_text(uuid: &str) -> Result<CString, i32> {
    CString::new(uuid).map_err(|_| code::PARAMETER_OUT_OF_RANGE)
}

impl FakeOrthanc {
    fn callbacks(&self) -> Callbacks {
        let none = Callbacks {
            create: None,
            read: None,
            free: None,
            read_whole: None,
            read_range: None,
            remove: None,
        };
        match &*self.state.storage.lock() {
            Storage::None => none,
            Storage::One(area) => Callbacks {
                create: area.create,
                read: area.read,
                free: area.free,
                remove: area.remove,
                ..none
            },
            Storage::Two(area) => Callbacks {
                create: area.create,
                read_whole: area.read_whole,
                read_range: area.read_range,
                remove: area.remove,
                ..none
            },
        }
    }

    /// Stores an attachment. Empty content is passed as a null pointer.
    ///
    /// # Errors
    ///
    /// The plugin's error code, or 35 without a storage area. So for the other methods.
    pub fn create(&self, uuid: &str, content_type: i32, content: &[u8]) -> Result<(), i32> {
        let create = self.callbacks().create.ok_or(code::NULL_POINTER)?;
        let uuid = uuid_text(uuid)?;
        let data = if content.is_empty() { ptr::null() } else { content.as_ptr().cast::<c_void>() };
        let size = i64::try_from(content.len()).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: the plugin's callback gets a string and a buffer that live until it returns.
        outcome(unsafe { create(uuid.as_ptr(), data, size, content_type) })
    }

    /// Calls the create callback with arguments that Orthanc would not pass: any UUID bytes or none, any size.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_raw(&self, uuid: Option<&[u8]>, size: i64) -> Result<(), i32> {
        let create = self.callbacks().create.ok_or(code::NULL_POINTER)?;
        let uuid = uuid.map(CString::new).transpose().map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        let uuid = uuid.as_ref().map_or(ptr::null(), |uuid| uuid.as_ptr());
        // SAFETY: the plugin must not look at a null content, whatever the size.
        outcome(unsafe { create(uuid, ptr::null(), size, 1) })
    }

    /// Reads a whole attachment, through storage area 1 or 2.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn read_whole(&self, uuid: &str, content_type: i32) -> Result<Vec<u8>, i32> {
        let callbacks = self.callbacks();
        let uuid = uuid_text(uuid)?;
        if let Some(read) = callbacks.read {
            let (mut data, mut size) = (ptr::null_mut(), 0_i64);
            // SAFETY: the plugin's callback gets a string and two variables that live until it returns.
            let returned = unsafe { read(&raw mut data, &raw mut size, uuid.as_ptr(), content_type) };
            if returned != code::SUCCESS && !data.is_null() {
                self.state.violation("a failed read has set the content, which Orthanc does not free then");
            }
            outcome(returned)?;
            let size = usize::try_from(size).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
            if size == 0 && !data.is_null() {
                self.state.violation("an empty read has set the content, which Orthanc does not free then");
            }
            // SAFETY: on success `data` has `size` bytes, which are the host's now.
            let content = unsafe { bytes(data, size) };
            let free = callbacks.free.ok_or(code::NULL_POINTER)?;
            // SAFETY: the plugin registered this function to free what `read` hands out.
            unsafe { free(data) };
            return Ok(content);
        }
        let read_whole = callbacks.read_whole.ok_or(code::NULL_POINTER)?;
        let mut buffer = abi::MemoryBuffer64 { data: ptr::null_mut(), size: 0 };
        // SAFETY: the plugin's callback gets a string and a variable that live until it returns.
        let returned = unsafe { read_whole(&raw mut buffer, uuid.as_ptr(), content_type) };
        if returned != code::SUCCESS && !buffer.data.is_null() {
            self.state.violation("a failed read has set the buffer, which Orthanc does not free then");
        }
        outcome(returned)?;
        let size = usize::try_from(buffer.size).map_err(|_| code::PARAMETER_OUT_OF_RANGE)?;
        match (size, self.state.size_of(buffer.data)) {
            (0, None) => return Ok(Vec::new()),
            (size, Some(allocated)) if size != 0 && size <= allocated => {}
            _ => {
                self.state.violation("a read has returned a buffer that is not one of the host's");
                return Err(code::PARAMETER_OUT_OF_RANGE);
            }
        }
        // SAFETY: the buffer is the host's and has at least `size` bytes.
        let content = unsafe { bytes(buffer.data, size) };
        // SAFETY: the buffer is the host's, and not used after this.
        unsafe { free(buffer.data) };
        Ok(content)
    }

    /// Reads `len` bytes from `start` on, through storage area 2. The buffer is poisoned with 0xA5, and the bytes behind
    /// it are checked afterwards.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn read_range(&self, uuid: &str, content_type: i32, start: u64, len: usize) -> Result<Vec<u8>, i32> {
        let read_range = self.callbacks().read_range.ok_or(code::NULL_POINTER)?;
        let uuid = uuid_text(uuid)?;
        let mut memory = vec![POISON; len + GUARD];
        let data = memory.as_mut_ptr().cast();
        let mut buffer = abi::MemoryBuffer64 { data, size: len as u64 };
        // SAFETY: the plugin's callback gets a string and a buffer that live until it returns.
        let returned = unsafe { read_range(&raw mut buffer, uuid.as_ptr(), content_type, start) };
        if buffer.data != data || buffer.size != len as u64 {
            self.state.violation("a range has changed its buffer: Orthanc could answer with a short read");
        }
        if memory[len..].iter().any(|byte| *byte != POISON) {
            self.state.violation("a range has written behind its buffer");
        }
        outcome(returned)?;
        memory.truncate(len);
        Ok(memory)
    }

    /// Removes an attachment.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn remove(&self, uuid: &str, content_type: i32) -> Result<(), i32> {
        let remove = self.callbacks().remove.ok_or(code::NULL_POINTER)?;
        let uuid = uuid_text(uuid)?;
        // SAFETY: the plugin's callback gets a string that lives until it returns.
        outcome(unsafe { remove(uuid.as_ptr(), content_type) })
    }
}
