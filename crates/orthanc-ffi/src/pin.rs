//! Keeps the library in memory once it has been initialized, even if Orthanc closes it.
//!
//! Rust's standard library and asynchronous runtimes register destructors on Orthanc's threads. If such a
//! thread ended after the library was unmapped, the process would crash. So the library pins itself.
//! Orthanc's next `dlopen` of the same file returns the pinned library, so memory does not grow from one
//! reset to the next.

/// Pins the library that contains this function. Failures are ignored: they only matter if a thread ends
/// late.
pub(crate) fn pin_library() {
    #[cfg(unix)]
    unix::pin();
    #[cfg(windows)]
    windows::pin();
}

#[cfg(unix)]
mod unix {
    use std::mem::MaybeUninit;

    pub(super) fn pin() {
        let mut found = MaybeUninit::<libc::Dl_info>::uninit();
        let inside = super::pin_library as *const libc::c_void;
        // SAFETY: `dladdr` accepts any address, and writes to `found` if it returns non-zero.
        if unsafe { libc::dladdr(inside, found.as_mut_ptr()) } == 0 {
            return;
        }
        // SAFETY: `dladdr` has succeeded.
        let info = unsafe { found.assume_init() };
        if info.dli_fname.is_null() {
            return;
        }
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: the name is a string of the dynamic linker; with these flags nothing is loaded or run.
        // The handle stays open, because it is part of the pin.
        unsafe { libc::dlopen(info.dli_fname, flags) };
    }
}

#[cfg(windows)]
mod windows {
    use std::ffi::c_void;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, name: *const u16, module: *mut *mut c_void) -> i32;
    }

    /// `GET_MODULE_HANDLE_EX_FLAG_PIN`.
    const PIN: u32 = 1;
    /// `GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS`.
    const FROM_ADDRESS: u32 = 4;

    pub(super) fn pin() {
        let mut module = std::ptr::null_mut();
        let inside = super::pin_library as *const u16;
        // SAFETY: with these flags the "name" is any address inside the module, and `module` is a local
        // variable.
        unsafe { GetModuleHandleExW(PIN | FROM_ADDRESS, inside, &raw mut module) };
    }
}
