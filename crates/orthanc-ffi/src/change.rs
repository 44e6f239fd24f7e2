//! Orthanc's signal that it stops: the change callback, as calls to a closure.

use std::ffi::c_char;
use std::sync::Arc;

use crate::abi::{self, change_type, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::Orthanc;
use crate::panic::guarded;

/// The plugin's handler of the signal.
pub(crate) type StopHandler = dyn Fn() + Send + Sync;

impl Orthanc {
    /// Registers `handler` for the moment when Orthanc is about to stop: it still waits for requests, jobs and callbacks in
    /// progress. Call it during `initialize` only. The handler must not call Orthanc, which waits for it.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn register_on_stop(&self, handler: impl Fn() + Send + Sync + 'static) -> Result<(), OrthancError> {
        self.registrations().on_stop = Some(Arc::new(handler));
        let params = abi::RegisterOnChange { callback: Some(on_change) };
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterOnChangeCallback", service::REGISTER_ON_CHANGE_CALLBACK, &params) }
    }
}

unsafe extern "C" fn on_change(change: i32, _level: i32, _resource: *const c_char) -> abi::RawErrorCode {
    if change != change_type::ORTHANC_STOPPED {
        return ErrorCode::SUCCESS.as_raw();
    }
    guarded("a change", ErrorCode::PLUGIN.as_raw(), || {
        let handler = entry::current().and_then(|orthanc| orthanc.registrations().on_stop.clone());
        if let Some(handler) = handler {
            handler();
        }
        to_raw(Ok(()))
    })
}
