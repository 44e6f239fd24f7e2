//! Changes: Orthanc's callback about what happens in it, as calls to a closure.

use std::ffi::c_char;
use std::sync::Arc;

use crate::abi::{self, change_type, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::Orthanc;
use crate::panic::guarded;

/// What is called for each change.
pub(crate) type ChangeHandler = dyn Fn(Change) + Send + Sync;

/// Something that happened to Orthanc itself. Changes of its resources are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has started: its REST API can be called.
    OrthancStarted,
    /// It begins to stop. Requests, jobs and callbacks that are under way are still waited for.
    OrthancStopped,
}

impl Orthanc {
    /// Has `handler` called when Orthanc has started and when it stops. During `initialize` only.
    ///
    /// The handler must neither wait nor call Orthanc.
    ///
    /// # Errors
    ///
    /// What Orthanc returns.
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
    let change = match change {
        change_type::ORTHANC_STARTED => Change::OrthancStarted,
        change_type::ORTHANC_STOPPED => Change::OrthancStopped,
        _ => return ErrorCode::SUCCESS.as_raw(),
    };
    guarded("a change", ErrorCode::PLUGIN.as_raw(), || {
        let handler = entry::current().and_then(|orthanc| orthanc.registrations().on_change.clone());
        if let Some(handler) = handler {
            handler(change);
        }
        to_raw(Ok(()))
    })
}
