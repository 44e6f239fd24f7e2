//! Orthanc: the handle on Orthanc's context, its services, and what a plugin has registered with it.
//!
//! One `Inner` is made at each initialisation and closed at the finalisation that ends it. Closing waits for calls that
//! are inside Orthanc, so that the context is never used after `OrthancPluginFinalize` has returned. This module does
//! not know the callbacks: those are in `storage`, `rest` and `job`.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::abi::{self, service};
use crate::change::ChangeHandler;
use crate::error::{ErrorCode, OrthancError};
use crate::job::{JobSlot, Unserializer};
use crate::rest::Handler;
use crate::storage::StorageArea;
use crate::version::OrthancVersion;

/// The severity of a line in Orthanc's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Always shown.
    Error,
    /// Always shown.
    Warning,
    /// Shown when Orthanc runs with `--verbose`.
    Info,
}

/// A handle on the Orthanc server that loaded the plugin. Cheap to clone, for any thread.
///
/// It outlives the plugin's life inside Orthanc without harm: once Orthanc has finalised the plugin, calls return
/// [`OrthancError::Finalized`] or do nothing.
#[derive(Clone)]
pub struct Orthanc {
    inner: Arc<Inner>,
}

struct Inner {
    context: *mut abi::Context,
    version: OrthancVersion,
    plugin_name: &'static CStr,
    gate: Gate,
    registrations: Mutex<Registrations>,
}

// SAFETY: `context` is only dereferenced while the gate is open, that is between initialise and finalise, when Orthanc
// keeps it alive; Orthanc's services may be called from any thread, and the struct itself is not written by anybody.
unsafe impl Send for Inner {}
// SAFETY: as for `Send`.
unsafe impl Sync for Inner {}

/// What the plugin registered: emptied when it is finalised, so that late callbacks find nothing.
#[derive(Default)]
pub(crate) struct Registrations {
    pub(crate) storage: Option<Arc<dyn StorageArea>>,
    pub(crate) routes: Vec<Arc<Handler>>,
    pub(crate) unserializer: Option<Arc<Unserializer>>,
    pub(crate) jobs: HashMap<usize, Arc<JobSlot>>,
    pub(crate) on_change: Option<Arc<ChangeHandler>>,
}

/// Counts the calls that are inside Orthanc, and refuses new ones once closed.
///
/// A counter rather than a read-write lock, because calls nest: a REST call to Orthanc may come back as a storage
/// callback that logs, and a nested read lock deadlocks with a waiting writer.
struct Gate {
    state: Mutex<GateState>,
    idle: Condvar,
}

struct GateState {
    open: bool,
    calls: usize,
}

struct Call<'a>(&'a Gate);

impl Gate {
    fn enter(&self) -> Result<Call<'_>, OrthancError> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(OrthancError::Finalized);
        }
        state.calls += 1;
        Ok(Call(self))
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        while state.calls > 0 {
            self.idle.wait(&mut state);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls -= 1;
        if state.calls == 0 && !state.open {
            self.0.idle.notify_all();
        }
    }
}

impl Orthanc {
    /// A host for a context, open for calls.
    ///
    /// # Safety
    ///
    /// `context` must point to a context with both function pointers that stays valid until [`close`](Self::close) has
    /// returned.
    pub(crate) unsafe fn new(
        context: *mut abi::Context,
        version: OrthancVersion,
        plugin_name: &'static CStr,
    ) -> Self {
        let gate = Gate { state: Mutex::new(GateState { open: true, calls: 0 }), idle: Condvar::new() };
        let registrations = Mutex::default();
        Self { inner: Arc::new(Inner { context, version, plugin_name, gate, registrations }) }
    }

    /// Refuses further calls and waits until those inside Orthanc have come back.
    pub(crate) fn close(&self) {
        self.inner.gate.close();
    }

    pub(crate) fn registrations(&self) -> parking_lot::MutexGuard<'_, Registrations> {
        self.inner.registrations.lock()
    }

    /// The version of Orthanc.
    pub fn version(&self) -> OrthancVersion {
        self.inner.version
    }

    /// The plugin's name, as Orthanc knows it.
    pub fn plugin_name(&self) -> &'static str {
        self.inner.plugin_name.to_str().unwrap_or("plugin")
    }

    /// Orthanc's whole configuration: all files merged, comments removed, environment variables substituted.
    ///
    /// It may hold secrets of other plugins: do not log it.
    pub fn configuration(&self) -> Result<serde_json::Value, OrthancError> {
        let text = self.text("GetConfiguration", service::GET_CONFIGURATION)?;
        serde_json::from_slice(&text).map_err(OrthancError::Configuration)
    }

    /// The folder of Orthanc's configuration, beside which it looks for what a relative path names; `None` where it was
    /// started without one.
    pub fn configuration_folder(&self) -> Option<PathBuf> {
        let path = self.text("GetConfigurationPath", service::GET_CONFIGURATION_PATH).ok()?;
        let path = PathBuf::from(String::from_utf8(path).ok().filter(|path| !path.is_empty())?);
        let folder = if path.is_dir() { path } else { path.parent()?.to_owned() };
        std::path::absolute(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder }).ok()
    }

    /// A string that a service without an argument returns.
    fn text(&self, name: &'static str, number: i32) -> Result<Vec<u8>, OrthancError> {
        let mut text: *mut c_char = ptr::null_mut();
        let params = abi::RetrieveDynamicString { result: &raw mut text, argument: ptr::null() };
        // SAFETY: the parameters are those of these services, and `text` outlives the call.
        unsafe { self.invoke(name, number, &params) }?;
        if text.is_null() {
            return Err(OrthancError::Service { service: name, code: ErrorCode::NULL_POINTER });
        }
        // SAFETY: on success the service set `text` to a NUL-terminated string that belongs to this plugin.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes().to_vec();
        // SAFETY: `text` came from Orthanc, and is not used after this.
        unsafe { self.free(text.cast()) };
        Ok(bytes)
    }

    /// Sets the text that Orthanc shows for this plugin.
    pub fn set_description(&self, description: &str) -> Result<(), OrthancError> {
        let value = c_string("the description", description)?;
        let params = abi::SetPluginProperty {
            plugin: self.inner.plugin_name.as_ptr(),
            property: abi::PROPERTY_DESCRIPTION,
            value: value.as_ptr(),
        };
        // SAFETY: the parameters are those of this service, and both strings outlive the call.
        unsafe { self.invoke("SetPluginProperty", service::SET_PLUGIN_PROPERTY, &params) }
    }

    /// Writes one line into Orthanc's log. NUL characters and line ends become blanks.
    ///
    /// The plugin's name is not added here; tracing events get it from [`OrthancLayer`](crate::OrthancLayer).
    pub fn log(&self, level: Level, message: &str) {
        self.log_from(level, message, "", 0);
    }

    /// As [`log`](Self::log), with the place in the source, which hosts from 1.12.4 show.
    pub(crate) fn log_from(&self, level: Level, message: &str, file: &str, line: u32) {
        let message = c_line(message);
        // A host that cannot log any more has nowhere to report that to.
        let _ = if self.inner.version >= OrthancVersion::WITH_LOG_MESSAGE {
            let file = c_line(file);
            let params = abi::LogMessage {
                message: message.as_ptr(),
                plugin: self.inner.plugin_name.as_ptr(),
                file: file.as_ptr(),
                line,
                category: abi::LOG_CATEGORY_GENERIC,
                level: match level {
                    Level::Error => 0,
                    Level::Warning => 1,
                    Level::Info => 2,
                },
            };
            // SAFETY: the parameters are those of this service, and all strings outlive the call.
            unsafe { self.invoke("LogMessage", service::LOG_MESSAGE, &params) }
        } else {
            let number = match level {
                Level::Error => service::LOG_ERROR,
                Level::Warning => service::LOG_WARNING,
                Level::Info => service::LOG_INFO,
            };
            // SAFETY: the parameter of these services is the string itself, which outlives the call.
            unsafe { self.invoke("Log", number, message.as_ptr()) }
        };
    }

    /// Sets a metric, which Orthanc shows to monitoring tools at `/tools/metrics-prometheus`.
    pub fn set_metric(&self, name: &str, value: f32) {
        let name = c_line(name);
        let params = abi::SetMetricsValue { name: name.as_ptr(), value, kind: abi::METRICS_DEFAULT };
        // A metric that cannot be set is not worth an error.
        // SAFETY: the parameters are those of this service, and the name outlives the call.
        let _ = unsafe { self.invoke("SetMetricsValue", service::SET_METRICS_VALUE, &params) };
    }

    /// Sends a GET request to Orthanc's REST API, without the routes of plugins. Not available during `initialize`: Orthanc
    /// has not started its REST API yet.
    ///
    /// # Errors
    ///
    /// [`OrthancError::Rest`] with Orthanc's error code.
    pub fn rest_get(&self, path: &str) -> Result<Vec<u8>, OrthancError> {
        let uri = c_string("the path of a REST call", path)?;
        let mut answer = abi::MemoryBuffer { data: ptr::null_mut(), size: 0 };
        let params = abi::RestApiGet { target: &raw mut answer, uri: uri.as_ptr() };
        // SAFETY: the parameters are those of this service; `answer` and `uri` outlive the call.
        let done = unsafe { self.invoke("RestApiGet", service::REST_API_GET, &params) };
        match done {
            Err(OrthancError::Service { code, .. }) => {
                return Err(OrthancError::Rest { method: "GET", path: path.to_owned(), code });
            }
            other => other?,
        }
        if answer.data.is_null() {
            return Ok(Vec::new());
        }
        let len = answer.size as usize;
        // SAFETY: the service succeeded, so `data` has `size` bytes, which nothing else uses until they are freed.
        let bytes = unsafe { std::slice::from_raw_parts(answer.data.cast::<u8>(), len) }.to_vec();
        // SAFETY: `data` came from Orthanc, and is not used after this.
        unsafe { self.free(answer.data) };
        Ok(bytes)
    }

    /// Calls a service. `name` is for the error.
    ///
    /// # Safety
    ///
    /// `params` must be what the service `number` expects, with every pointer in it valid for the call.
    pub(crate) unsafe fn invoke<T>(
        &self,
        name: &'static str,
        number: i32,
        params: *const T,
    ) -> Result<(), OrthancError> {
        let _call = self.inner.gate.enter()?;
        let context = self.inner.context;
        // SAFETY: the gate is open, so the context is valid (see `new`).
        let invoke = unsafe { (*context).invoke_service };
        let unknown = OrthancError::Service { service: name, code: ErrorCode::NULL_POINTER };
        let invoke = invoke.ok_or(unknown)?;
        // SAFETY: the context is valid as above, and the caller vouches for the parameters.
        let code = ErrorCode::from_raw(unsafe { invoke(context, number, params.cast::<c_void>()) });
        match code {
            ErrorCode::SUCCESS => Ok(()),
            code => Err(OrthancError::Service { service: name, code }),
        }
    }

    /// Frees memory that a service handed out. After finalise it leaks instead: Orthanc's allocator may be gone.
    ///
    /// # Safety
    ///
    /// `data` must come from a service of this host, not be freed yet and not be used afterwards.
    pub(crate) unsafe fn free(&self, data: *mut c_void) {
        let Ok(_call) = self.inner.gate.enter() else { return };
        // SAFETY: the gate is open, so the context is valid (see `new`).
        let free = unsafe { (*self.inner.context).free };
        if let Some(free) = free {
            // SAFETY: the caller vouches for `data`.
            unsafe { free(data) };
        }
    }
}

impl fmt::Debug for Orthanc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orthanc").field("version", &self.inner.version).finish_non_exhaustive()
    }
}

/// A C string that must keep its exact text.
pub(crate) fn c_string(what: &'static str, text: &str) -> Result<CString, OrthancError> {
    CString::new(text).map_err(|_| OrthancError::NulCharacter { what })
}

/// A C string of one line.
pub(crate) fn c_line(text: &str) -> CString {
    let line: String = text.chars().map(|c| if matches!(c, '\0' | '\n' | '\r') { ' ' } else { c }).collect();
    CString::new(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_neither_nul_nor_line_end() {
        assert_eq!(c_line("a\0b\r\nc").to_bytes(), b"a b  c");
    }
}
