//! Changes of Orthanc's state: the change callback, as calls to a closure.

use std::ffi::c_char;
use std::sync::Arc;

use crate::abi::{self, change_type, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::Orthanc;
use crate::panic::guarded;

/// The plugin's handler of changes.
pub(crate) type ChangeHandler = dyn Fn(Change) + Send + Sync;

/// A change of Orthanc's own state. Changes of its resources are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Orthanc has started: its REST API can be called.
    OrthancStarted,
    /// Orthanc is about to stop. It still waits for requests, jobs and callbacks in progress.
    OrthancStopped,
}

impl Orthanc {
    /// Registers `handler` for changes. Call it during `initialize` only. The handler must not call Orthanc,
    /// which waits for it.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn register_on_change(
        &self,
        handler: impl Fn(Change) + Send + Sync + 'static,
    ) -> Result<(), OrthancError> {
        self.registrations().on_change = Some(Arc::new(handler));
        let params = abi::RegisterOnChange { callback: Some(on_change) };
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterOnChangeCallback", service::REGISTER_ON_CHANGE_CALLBACK, &params) }
    }
}

unsafe extern "C" fn on_change(change: i32, _level: i32, _resource: *const c_char) -> abi::RawErrorCode {
    let known = match change {
        change_type::ORTHANC_STARTED => Change::OrthancStarted,
        change_type::ORTHANC_STOPPED => Change::OrthancStopped,
        _ => return ErrorCode::SUCCESS.as_raw(),
    };
    guarded("a change", ErrorCode::PLUGIN.as_raw(), || {
        let handler = entry::current().and_then(|orthanc| orthanc.registrations().on_change.clone());
        if let Some(handler) = handler {
            handler(known);
        }
        to_raw(Ok(()))
    })
}
