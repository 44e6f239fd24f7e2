//! The handle to Orthanc: its services, and the callbacks that a plugin has registered.
//!
//! Each initialize creates a handle, and the next finalize closes it. Closing waits for the calls in
//! progress, so that the context is never used after `OrthancPluginFinalize` has returned.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::abi::{self, service};
use crate::change::StopHandler;
use crate::chunked::{BodySlot, OpenBody};
use crate::error::{ErrorCode, OrthancError};
use crate::job::{JobSlot, Unserializer};
use crate::metrics::RefreshMetrics;
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

/// A handle to the Orthanc server that loaded the plugin. Cheap to clone, for any thread.
///
/// After Orthanc has finalized the plugin, calls return [`OrthancError::Finalized`] or do nothing.
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

// SAFETY: `context` is only dereferenced while the gate is open, that is between initialize and finalize,
// when Orthanc keeps it alive; Orthanc's services may be called from any thread, and nothing writes to the
// struct.
unsafe impl Send for Inner {}
// SAFETY: as for `Send`.
unsafe impl Sync for Inner {}

/// The plugin's registrations. Finalize empties them, so that late callbacks find nothing.
#[derive(Default)]
pub(crate) struct Registrations {
    pub(crate) storage: Option<Arc<dyn StorageArea>>,
    pub(crate) routes: Vec<Arc<Handler>>,
    pub(crate) chunked_routes: Vec<Arc<OpenBody>>,
    pub(crate) bodies: HashMap<usize, Arc<BodySlot>>,
    pub(crate) unserializer: Option<Arc<Unserializer>>,
    pub(crate) jobs: HashMap<usize, Arc<JobSlot>>,
    pub(crate) on_stop: Option<Arc<StopHandler>>,
    pub(crate) metrics: Option<Arc<RefreshMetrics>>,
}

/// Counts the calls in progress, and refuses new ones once closed.
///
/// A counter rather than a read-write lock, because calls nest: a REST call to Orthanc may cause a storage
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
    /// Creates a handle for a context, open for calls.
    ///
    /// # Safety
    ///
    /// `context` must point to a context with both function pointers that stays valid until
    /// [`close`](Self::close) has returned.
    pub(crate) unsafe fn new(
        context: *mut abi::Context,
        version: OrthancVersion,
        plugin_name: &'static CStr,
    ) -> Self {
        let gate = Gate { state: Mutex::new(GateState { open: true, calls: 0 }), idle: Condvar::new() };
        let registrations = Mutex::default();
        Self { inner: Arc::new(Inner { context, version, plugin_name, gate, registrations }) }
    }

    /// Refuses further calls and waits for those in progress.
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

    /// The plugin's name in Orthanc.
    pub fn plugin_name(&self) -> &'static str {
        self.inner.plugin_name.to_str().unwrap_or("plugin")
    }

    /// Orthanc's whole configuration: all files merged, comments removed, environment variables substituted.
    ///
    /// The configuration may contain secrets of other plugins: do not log it.
    ///
    /// # Errors
    ///
    /// Orthanc's error code, or [`OrthancError::Configuration`].
    pub fn configuration(&self) -> Result<serde_json::Value, OrthancError> {
        let text = self.text("GetConfiguration", service::GET_CONFIGURATION)?;
        serde_json::from_slice(&text).map_err(OrthancError::Configuration)
    }

    /// The folder of Orthanc's configuration, to which Orthanc resolves relative paths; `None` if Orthanc
    /// was started without a configuration.
    pub fn configuration_folder(&self) -> Option<PathBuf> {
        let path = self.configuration_path()?;
        let folder = if path.is_dir() { path } else { path.parent()?.to_owned() };
        std::path::absolute(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder }).ok()
    }

    /// The file or folder that Orthanc was started with; `None` if there is none. Orthanc reads all JSON files in a folder.
    pub fn configuration_path(&self) -> Option<PathBuf> {
        let text = self.text("GetConfigurationPath", service::GET_CONFIGURATION_PATH).ok()?;
        Some(PathBuf::from(String::from_utf8(text).ok().filter(|path| !path.is_empty())?))
    }

    /// Calls a service without an argument that returns a string.
    fn text(&self, name: &'static str, number: i32) -> Result<Vec<u8>, OrthancError> {
        let mut text: *mut c_char = ptr::null_mut();
        let params = abi::RetrieveDynamicString { result: &raw mut text, argument: ptr::null() };
        // SAFETY: the parameters are those of these services, and `text` outlives the call.
        unsafe { self.invoke(name, number, &params) }?;
        // SAFETY: on success the service set `text` to a string that the plugin owns, or to null.
        unsafe { self.take_text(name, text) }
    }

    /// The value of a property in Orthanc's database; empty if it is not set. Not available during `initialize`: Orthanc
    /// has not opened its database yet.
    ///
    /// Several Orthancs that share a database have properties of their own.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn global_property(&self, property: i32) -> Result<String, OrthancError> {
        const NAME: &str = "GetGlobalProperty";
        let mut text: *mut c_char = ptr::null_mut();
        let params = abi::GlobalProperty { result: &raw mut text, property, value: c"".as_ptr() };
        // SAFETY: the parameters are those of this service; `text` and the string outlive the call.
        unsafe { self.invoke(NAME, service::GET_GLOBAL_PROPERTY, &params) }?;
        // SAFETY: on success the service set `text` to a string that the plugin owns, or to null.
        let value = unsafe { self.take_text(NAME, text) }?;
        String::from_utf8(value)
            .map_err(|_| OrthancError::Service { service: NAME, code: ErrorCode::BAD_FILE_FORMAT })
    }

    /// Sets a property in Orthanc's database; see [`global_property`](Self::global_property).
    ///
    /// # Errors
    ///
    /// A NUL character in the value, or Orthanc's error code.
    pub fn set_global_property(&self, property: i32, value: &str) -> Result<(), OrthancError> {
        let value = c_string("the value of a property", value)?;
        let params = abi::GlobalProperty { result: ptr::null_mut(), property, value: value.as_ptr() };
        // SAFETY: the parameters are those of this service, and the string outlives the call.
        unsafe { self.invoke("SetGlobalProperty", service::SET_GLOBAL_PROPERTY, &params) }
    }

    /// Copies a string that a service has returned, and frees it.
    ///
    /// # Safety
    ///
    /// `text` must be null, or a NUL-terminated string of Orthanc that the plugin owns and does not use afterwards.
    unsafe fn take_text(&self, name: &'static str, text: *mut c_char) -> Result<Vec<u8>, OrthancError> {
        if text.is_null() {
            return Err(OrthancError::Service { service: name, code: ErrorCode::NULL_POINTER });
        }
        // SAFETY: the caller guarantees the string.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes().to_vec();
        // SAFETY: `text` came from Orthanc, and is not used after this.
        unsafe { self.free(text.cast()) };
        Ok(bytes)
    }

    /// Sets the plugin's description in Orthanc.
    ///
    /// # Errors
    ///
    /// A NUL character in the text, or Orthanc's error code.
    pub fn set_description(&self, description: &str) -> Result<(), OrthancError> {
        self.set_property("the description", abi::PROPERTY_DESCRIPTION, description)
    }

    /// Sets the path of the plugin's own page, such as `/my-plugin/app/`, to which Orthanc Explorer links.
    ///
    /// # Errors
    ///
    /// A NUL character in the path, or Orthanc's error code.
    pub fn set_root_uri(&self, path: &str) -> Result<(), OrthancError> {
        self.set_property("the path of the page", abi::PROPERTY_ROOT_URI, path)
    }

    /// Adds JavaScript to Orthanc Explorer (not to Orthanc Explorer 2).
    ///
    /// # Errors
    ///
    /// A NUL character in the script, or Orthanc's error code.
    pub fn extend_explorer(&self, script: &str) -> Result<(), OrthancError> {
        self.set_property("the script for Orthanc Explorer", abi::PROPERTY_ORTHANC_EXPLORER, script)
    }

    fn set_property(&self, what: &'static str, property: i32, value: &str) -> Result<(), OrthancError> {
        let value = c_string(what, value)?;
        let params = abi::SetPluginProperty {
            plugin: self.inner.plugin_name.as_ptr(),
            property,
            value: value.as_ptr(),
        };
        // SAFETY: the parameters are those of this service, and both strings outlive the call.
        unsafe { self.invoke("SetPluginProperty", service::SET_PLUGIN_PROPERTY, &params) }
    }

    /// Writes one line to Orthanc's log, after the plugin's name. NUL characters and line ends become spaces.
    #[track_caller]
    pub fn log(&self, level: Level, message: &str) {
        let place = Location::caller();
        self.log_from(level, message, place.file(), place.line());
    }

    /// As [`log`](Self::log), with another place in the source. Orthanc shows it from 1.12.4.
    pub(crate) fn log_from(&self, level: Level, message: &str, file: &str, line: u32) {
        // There is nowhere to report that the log itself fails.
        let _ = if self.inner.version >= OrthancVersion::WITH_LOG_MESSAGE {
            let text = c_line(message);
            let file_text = c_line(file);
            let params = abi::LogMessage {
                message: text.as_ptr(),
                plugin: self.inner.plugin_name.as_ptr(),
                file: file_text.as_ptr(),
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
            let text = c_line(&[self.plugin_name(), ": ", message].concat());
            // SAFETY: the parameter of these services is the string itself, which outlives the call.
            unsafe { self.invoke("Log", number, text.as_ptr()) }
        };
    }

    /// Sends a GET request to Orthanc's REST API, without the routes of plugins. Not available during
    /// `initialize`: Orthanc has not started its REST API yet.
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
        // SAFETY: the service has set `answer` if it succeeded.
        unsafe { self.rest_answer("GET", path, done, &answer) }
    }

    /// Sends a POST request to Orthanc's REST API, as [`rest_get`](Self::rest_get) does.
    ///
    /// # Errors
    ///
    /// [`OrthancError::Rest`] with Orthanc's error code.
    pub fn rest_post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, OrthancError> {
        let uri = c_string("the path of a REST call", path)?;
        let mut answer = abi::MemoryBuffer { data: ptr::null_mut(), size: 0 };
        let too_large = |_| OrthancError::Rest {
            method: "POST",
            path: path.to_owned(),
            code: ErrorCode::PARAMETER_OUT_OF_RANGE,
        };
        let params = abi::RestApiPost {
            target: &raw mut answer,
            uri: uri.as_ptr(),
            body: body.as_ptr().cast(),
            body_size: u32::try_from(body.len()).map_err(too_large)?,
        };
        // SAFETY: the parameters are those of this service; `answer`, `uri` and `body` outlive the call.
        let done = unsafe { self.invoke("RestApiPost", service::REST_API_POST, &params) };
        // SAFETY: the service has set `answer` if it succeeded.
        unsafe { self.rest_answer("POST", path, done, &answer) }
    }

    /// Takes the answer to a REST request.
    ///
    /// # Safety
    ///
    /// If `done` is a success, Orthanc must have set `answer`.
    unsafe fn rest_answer(
        &self,
        method: &'static str,
        path: &str,
        done: Result<(), OrthancError>,
        answer: &abi::MemoryBuffer,
    ) -> Result<Vec<u8>, OrthancError> {
        match done {
            Err(OrthancError::Service { code, .. }) => {
                return Err(OrthancError::Rest { method, path: path.to_owned(), code });
            }
            other => other?,
        }
        if answer.data.is_null() {
            return Ok(Vec::new());
        }
        let len = answer.size as usize;
        // SAFETY: the service succeeded, so `data` has `size` bytes, which nothing else uses until they are
        // freed.
        let bytes = unsafe { std::slice::from_raw_parts(answer.data.cast::<u8>(), len) }.to_vec();
        // SAFETY: `data` came from Orthanc, and is not used after this.
        unsafe { self.free(answer.data) };
        Ok(bytes)
    }

    /// Calls a service. `name` is used for the error.
    ///
    /// # Safety
    ///
    /// `params` must be the parameters of the service `number`, and every pointer in it must be valid for
    /// the call.
    pub(crate) unsafe fn invoke<T>(
        &self,
        name: &'static str,
        number: i32,
        params: *const T,
    ) -> Result<(), OrthancError> {
        let _call = self.inner.gate.enter()?;
        let context = self.inner.context;
        // SAFETY: the gate is open, so the context is valid (see `new`).
        let service = unsafe { (*context).invoke_service };
        let missing = OrthancError::Service { service: name, code: ErrorCode::NULL_POINTER };
        let invoke = service.ok_or(missing)?;
        // SAFETY: the context is valid as above, and the caller guarantees the parameters.
        let code = ErrorCode::from_raw(unsafe { invoke(context, number, params.cast::<c_void>()) });
        match code {
            ErrorCode::SUCCESS => Ok(()),
            code => Err(OrthancError::Service { service: name, code }),
        }
    }

    /// Frees memory that a service returned. After finalize the memory leaks, because Orthanc must not be
    /// called.
    ///
    /// # Safety
    ///
    /// `data` must come from a service of this Orthanc, must not have been freed, and must not be used
    /// afterwards.
    pub(crate) unsafe fn free(&self, data: *mut c_void) {
        let Ok(_call) = self.inner.gate.enter() else { return };
        // SAFETY: the gate is open, so the context is valid (see `new`).
        let free = unsafe { (*self.inner.context).free };
        if let Some(free) = free {
            // SAFETY: the caller guarantees `data`.
            unsafe { free(data) };
        }
    }
}

impl fmt::Debug for Orthanc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orthanc").field("version", &self.inner.version).finish_non_exhaustive()
    }
}

/// Converts a text that must stay unchanged into a C string.
pub(crate) fn c_string(what: &'static str, text: &str) -> Result<CString, OrthancError> {
    CString::new(text).map_err(|_| OrthancError::NulCharacter { what })
}

/// Converts a text into a C string of one line.
pub(crate) fn c_line(text: &str) -> CString {
    // With room for the NUL at the end.
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend(text.bytes().map(|byte| if matches!(byte, b'\0' | b'\n' | b'\r') { b' ' } else { byte }));
    CString::new(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_line_has_no_nul_and_no_line_end() {
        assert_eq!(c_line("a\0b\r\nc").to_bytes(), b"a b  c");
    }
}
