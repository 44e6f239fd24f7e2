//! Names of the plugin's threads in Orthanc's log.

use std::ffi::CStr;
use std::ptr;

use crate::abi::service;
use crate::orthanc::Orthanc;
use crate::version::OrthancVersion;

impl Orthanc {
    /// Gives the calling thread a name of up to 16 letters in Orthanc's log, from 1.12.2. Only for threads that the
    /// plugin has started; call [`forget_thread`](Self::forget_thread) before the thread ends.
    pub fn name_thread(&self, name: &CStr) {
        if self.version() >= OrthancVersion::WITH_THREAD_NAMES {
            // A thread without a name can work too.
            // SAFETY: the parameter of this service is the string itself, which outlives the call.
            let _ = unsafe {
                self.invoke("SetCurrentThreadName", service::SET_CURRENT_THREAD_NAME, name.as_ptr())
            };
        }
    }

    /// Releases the name of the calling thread. Before 1.13.0, Orthanc keeps it for the next thread with this id.
    pub fn forget_thread(&self) {
        if self.version() >= OrthancVersion::WITH_ENDS_OF_THREADS {
            let number = service::CLEAR_CURRENT_THREAD_NAME;
            // SAFETY: the service has no parameters. A name that stays costs a few bytes.
            let _ = unsafe { self.invoke("ClearCurrentThreadName", number, ptr::null::<()>()) };
        }
    }
}
