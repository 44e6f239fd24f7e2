//! One generation of Orthanc: the context that the plugin sees, and the effects of its service calls.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use orthanc_ffi::OrthancVersion;
use orthanc_ffi::abi::{self, service};
use parking_lot::Mutex;

use crate::FakeOrthancOptions;
use crate::chunked::{ChunkedRoute, HttpAnswer};
use crate::storage::{Area, StorageAreaVersion};

/// The severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Error.
    Error,
    /// Warning.
    Warning,
    /// Info.
    Info,
}

/// The value of a metric, by the service that set it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// From Orthanc 1.12.1.
    Integer(i64),
    /// In every Orthanc.
    Float(f32),
}

/// Services that old versions of Orthanc do not have, and the first version that does.
const NEWER_SERVICES: [(i32, OrthancVersion); 4] = [
    (service::SET_METRICS_INTEGER_VALUE, OrthancVersion::new(1, 12, 1)),
    (service::SET_CURRENT_THREAD_NAME, OrthancVersion::new(1, 12, 2)),
    (service::LOG_MESSAGE, OrthancVersion::new(1, 12, 4)),
    (service::CLEAR_CURRENT_THREAD_NAME, OrthancVersion::new(1, 13, 0)),
];

/// Maximum length of a thread's name.
const LONGEST_THREAD_NAME: usize = 16;

/// Error codes that Orthanc itself returns.
pub(crate) mod code {
    pub(crate) const INTERNAL: i32 = -1;
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const PARAMETER_OUT_OF_RANGE: i32 = 3;
    pub(crate) const NOT_ENOUGH_MEMORY: i32 = 4;
    pub(crate) const BAD_SEQUENCE_OF_CALLS: i32 = 6;
    pub(crate) const UNKNOWN_RESOURCE: i32 = 17;
    pub(crate) const UNKNOWN_SERVICE: i32 = 26;
    pub(crate) const NULL_POINTER: i32 = 35;
    pub(crate) const STORAGE_ALREADY_REGISTERED: i32 = 2036;
}

/// Memory that plugins got, by address: `Free` has no context argument.
static BUFFERS: Mutex<BTreeMap<usize, Buffer>> = Mutex::new(BTreeMap::new());
/// Number of freed addresses that no plugin got from a service.
static BAD_FREES: AtomicUsize = AtomicUsize::new(0);

/// Numbers for generations, never used twice.
fn next_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Clone, Copy)]
struct Buffer {
    owner: usize,
    size: usize,
}

pub(crate) struct State {
    id: usize,
    options: FakeOrthancOptions,
    /// The version as a C string; the context points into it.
    _version: CString,
    context: abi::Context,
    closed: AtomicBool,
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) logs: Mutex<Vec<(LogLevel, String)>>,
    pub(crate) description: Mutex<Option<String>>,
    pub(crate) storage: Mutex<Area>,
    pub(crate) thread_names: Mutex<HashMap<ThreadId, String>>,
    metrics: Mutex<BTreeMap<String, Metric>>,
    refresh_metrics: Mutex<Option<abi::RefreshMetrics>>,
    pub(crate) chunked_routes: Mutex<HashMap<String, ChunkedRoute>>,
}

// SAFETY: the pointers inside are the context's, which are only read, and the plugin's, which may be used
// from any thread.
unsafe impl Send for State {}
// SAFETY: as for `Send`; locks guard everything that changes.
unsafe impl Sync for State {}

/// The parameters of a service, as a copy of the plugin's struct.
macro_rules! params {
    ($type:ty, $params:expr) => {{
        // SAFETY: the plugin passes the parameters of the service it calls; the structs are plain data.
        unsafe { $params.cast::<$type>().read() }
    }};
}

impl State {
    pub(crate) fn new(options: FakeOrthancOptions) -> Result<Arc<Self>, std::ffi::NulError> {
        let version = CString::new(options.version.as_str())?;
        Ok(Arc::new_cyclic(|this: &Weak<Self>| Self {
            id: next_id(),
            options,
            context: abi::Context {
                plugins_manager: this.as_ptr().cast_mut().cast(),
                orthanc_version: version.as_ptr(),
                free: Some(free),
                invoke_service: Some(invoke),
            },
            _version: version,
            closed: AtomicBool::new(false),
            violations: Mutex::default(),
            logs: Mutex::default(),
            description: Mutex::default(),
            storage: Mutex::default(),
            thread_names: Mutex::default(),
            metrics: Mutex::default(),
            refresh_metrics: Mutex::default(),
            chunked_routes: Mutex::default(),
        }))
    }

    pub(crate) fn context(&self) -> *mut abi::Context {
        (&raw const self.context).cast_mut()
    }

    /// Makes each further service call a violation.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        self.violations.lock().push(text.into());
    }

    pub(crate) fn outstanding_buffers(&self) -> usize {
        BUFFERS.lock().values().filter(|buffer| buffer.owner == self.id).count()
    }

    /// Allocates memory for the plugin and records its address until it is freed.
    fn allocate(&self, size: usize) -> *mut c_void {
        // SAFETY: any size but 0 may be allocated.
        let data = unsafe { libc::malloc(size.max(1)) };
        if !data.is_null() {
            BUFFERS.lock().insert(data.addr(), Buffer { owner: self.id, size });
        }
        data
    }

    /// The size of memory that a plugin got and did not free.
    pub(crate) fn size_of(&self, data: *mut c_void) -> Option<usize> {
        BUFFERS.lock().get(&data.addr()).map(|buffer| buffer.size)
    }

    fn allocate_bytes(&self, bytes: &[u8]) -> *mut c_void {
        let data = self.allocate(bytes.len());
        if !data.is_null() {
            // SAFETY: `data` has at least `bytes.len()` bytes, which nothing else uses yet.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast::<u8>(), bytes.len()) };
        }
        data
    }

    fn allocate_text(&self, text: &str) -> *mut c_char {
        let text = CString::new(text).unwrap_or_default();
        self.allocate_bytes(text.as_bytes_with_nul()).cast()
    }

    fn log(&self, level: LogLevel, message: String) -> i32 {
        self.logs.lock().push((level, message));
        code::SUCCESS
    }

    fn name_thread(&self, name: String) -> i32 {
        if name.len() > LONGEST_THREAD_NAME {
            self.violation(format!("the name of a thread is too long: {name}"));
            return code::PARAMETER_OUT_OF_RANGE;
        }
        self.thread_names.lock().insert(thread::current().id(), name);
        code::SUCCESS
    }

    /// Notes a call of a service that this version does not have.
    fn has_service(&self, number: i32) -> bool {
        let version = OrthancVersion::parse(&self.options.version).unwrap_or(OrthancVersion::MAINLINE);
        let since = NEWER_SERVICES.iter().find(|service| service.0 == number);
        let too_new = since.filter(|service| version < service.1);
        if let Some((_, since)) = too_new {
            self.violation(format!("service {number} was called, which is new in Orthanc {since}"));
        }
        too_new.is_none()
    }

    fn set_metric(&self, name: *const c_char, value: Metric) -> i32 {
        self.metrics.lock().insert(text(name), value);
        code::SUCCESS
    }

    /// Lets the plugin set its metrics.
    pub(crate) fn refresh_metrics(&self) -> BTreeMap<String, Metric> {
        let callback = *self.refresh_metrics.lock();
        if let Some(refresh) = callback {
            // SAFETY: the plugin's function has no parameters.
            unsafe { refresh() };
        }
        self.metrics.lock().clone()
    }

    fn register(&self, area: Area) -> i32 {
        let mut storage = self.storage.lock();
        if storage.version != StorageAreaVersion::None {
            return code::STORAGE_ALREADY_REGISTERED;
        }
        *storage = area;
        code::SUCCESS
    }

    /// Changes the answer of a request, which must not have been sent.
    fn answer(&self, output: *mut abi::RestOutput, change: impl FnOnce(&mut HttpAnswer) -> bool) -> i32 {
        // SAFETY: null, or the output of a request in progress, which is the address of its answer.
        let Some(answer) = (unsafe { output.cast::<Mutex<HttpAnswer>>().as_ref() }) else {
            return code::NULL_POINTER;
        };
        if change(&mut answer.lock()) {
            return code::SUCCESS;
        }
        self.violation("a request was answered twice");
        code::BAD_SEQUENCE_OF_CALLS
    }

    fn create_memory_buffer(&self, buffer: &abi::CreateMemoryBuffer64) -> i32 {
        let Ok(size) = usize::try_from(buffer.size) else { return code::NOT_ENOUGH_MEMORY };
        let data = self.allocate(size);
        if data.is_null() {
            return code::NOT_ENOUGH_MEMORY;
        }
        set(buffer.target, abi::MemoryBuffer64 { data, size: buffer.size })
    }

    /// Calls a service.
    ///
    /// # Safety
    ///
    /// `params` must be the parameters of the service.
    unsafe fn service(&self, number: i32, params: *const c_void) -> i32 {
        if !self.has_service(number) {
            return code::UNKNOWN_SERVICE;
        }
        match number {
            service::LOG_ERROR => self.log(LogLevel::Error, text(params.cast())),
            service::LOG_WARNING => self.log(LogLevel::Warning, text(params.cast())),
            service::LOG_INFO => self.log(LogLevel::Info, text(params.cast())),
            service::LOG_MESSAGE => {
                let line = params!(abi::LogMessage, params);
                let level = match line.level {
                    0 => LogLevel::Error,
                    1 => LogLevel::Warning,
                    2 => LogLevel::Info,
                    _ => return code::PARAMETER_OUT_OF_RANGE,
                };
                if line.file.is_null() || line.plugin.is_null() || line.category != abi::LOG_CATEGORY_GENERIC
                {
                    return code::PARAMETER_OUT_OF_RANGE;
                }
                // Orthanc shows the plugin's name with the place in the source.
                self.log(level, format!("{}: {}", text(line.plugin), text(line.message)))
            }
            service::SET_PLUGIN_PROPERTY => {
                let property = params!(abi::SetPluginProperty, params);
                if property.property == abi::PROPERTY_DESCRIPTION {
                    *self.description.lock() = Some(text(property.value));
                }
                code::SUCCESS
            }
            service::GET_CONFIGURATION => {
                let text = self.allocate_text(&self.options.configuration.to_string());
                set(params!(abi::RetrieveDynamicString, params).result, text)
            }
            service::CREATE_MEMORY_BUFFER_64 => {
                self.create_memory_buffer(&params!(abi::CreateMemoryBuffer64, params))
            }
            service::REGISTER_STORAGE_AREA => self.register(params!(abi::RegisterStorageArea, params).into()),
            service::REGISTER_STORAGE_AREA_2 => {
                self.register(params!(abi::RegisterStorageArea2, params).into())
            }
            service::SET_CURRENT_THREAD_NAME => self.name_thread(text(params.cast())),
            service::CLEAR_CURRENT_THREAD_NAME => {
                self.thread_names.lock().remove(&thread::current().id());
                code::SUCCESS
            }
            service::SET_METRICS_VALUE => {
                let metric = params!(abi::SetMetricsValue, params);
                self.set_metric(metric.name, Metric::Float(metric.value))
            }
            service::SET_METRICS_INTEGER_VALUE => {
                let metric = params!(abi::SetMetricsIntegerValue, params);
                self.set_metric(metric.name, Metric::Integer(metric.value))
            }
            service::REGISTER_REFRESH_METRICS_CALLBACK => {
                *self.refresh_metrics.lock() = params!(abi::RegisterMetrics, params).callback;
                code::SUCCESS
            }
            service::REGISTER_CHUNKED_REST_CALLBACK => {
                let route = params!(abi::ChunkedRestCallback, params);
                self.chunked_routes.lock().insert(text(route.path_regular_expression), route.into());
                code::SUCCESS
            }
            service::SET_HTTP_HEADER => {
                let header = params!(abi::SetHttpHeader, params);
                self.answer(header.output, |answer| answer.add_header(text(header.key), text(header.value)))
            }
            service::ANSWER_BUFFER => {
                let sent = params!(abi::AnswerBuffer, params);
                // SAFETY: the plugin's body has this length.
                let body = unsafe { bytes(sent.answer, sent.answer_size as usize) };
                self.answer(sent.output, |answer| {
                    answer.add_header("Content-Type".to_owned(), text(sent.mime_type))
                        && answer.send(200, body)
                })
            }
            service::SEND_HTTP_STATUS => {
                let sent = params!(abi::SendHttpStatus, params);
                // SAFETY: the plugin's body has this length.
                let body = unsafe { bytes(sent.body.cast(), sent.body_size as usize) };
                // As Orthanc.
                if matches!(sent.status, 200 | 301 | 401 | 405) {
                    return code::PARAMETER_OUT_OF_RANGE;
                }
                self.answer(sent.output, |answer| answer.send(sent.status, body))
            }
            service::SET_HTTP_ERROR_DETAILS => code::SUCCESS,
            service::REST_API_GET => code::UNKNOWN_RESOURCE,
            // Accepted but never called: these callbacks are tested in `orthanc-ffi` and with a real Orthanc.
            service::REGISTER_ON_CHANGE_CALLBACK
            | service::REGISTER_REST_CALLBACK_NO_LOCK
            | service::REGISTER_JOBS_UNSERIALIZER => code::SUCCESS,
            _ => code::UNKNOWN_SERVICE,
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        BUFFERS.lock().retain(|_, buffer| buffer.owner != self.id);
    }
}

/// An error code as a result.
pub(crate) fn result(returned: i32) -> Result<(), i32> {
    if returned == code::SUCCESS { Ok(()) } else { Err(returned) }
}

/// Sets a variable of the plugin.
fn set<T>(variable: *mut T, value: T) -> i32 {
    // SAFETY: services get valid addresses of the plugin's variables.
    unsafe { variable.write(value) };
    code::SUCCESS
}

/// A copy of a C string of the plugin; null is empty.
pub(crate) fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: services and getters pass NUL-terminated strings.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
///
/// `data` must be null or have `len` bytes.
pub(crate) unsafe fn bytes(data: *const c_void, len: usize) -> Vec<u8> {
    if data.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: passed on from the caller.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
}

/// The context's `Free`.
pub(crate) unsafe extern "C" fn free(data: *mut c_void) {
    if data.is_null() {
        return;
    }
    if BUFFERS.lock().remove(&data.addr()).is_none() {
        // Freeing memory of unknown origin could corrupt the heap.
        BAD_FREES.fetch_add(1, Ordering::SeqCst);
        return;
    }
    // SAFETY: the address was in the map, so it came from `malloc` and was not freed yet.
    unsafe { libc::free(data) };
}

/// Number of addresses freed in this process that no plugin got from a service.
pub(crate) fn bad_frees() -> usize {
    BAD_FREES.load(Ordering::SeqCst)
}

unsafe extern "C" fn invoke(context: *mut abi::Context, number: i32, params: *const c_void) -> i32 {
    let body = || {
        // SAFETY: the plugin passes the context that it was given, which outlives the plugin's library.
        let manager = unsafe { (*context).plugins_manager };
        // SAFETY: the manager of our contexts is the `State` that contains the context.
        let state = unsafe { manager.cast::<State>().cast_const().as_ref() };
        let Some(state) = state else { return code::NULL_POINTER };
        if state.closed.load(Ordering::SeqCst) {
            state.violation(format!("service {number} was called after finalize"));
            return code::BAD_SEQUENCE_OF_CALLS;
        }
        // SAFETY: the plugin passes the parameters of the service.
        unsafe { state.service(number, params) }
    };
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(code::INTERNAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_calls_and_bad_frees_are_noticed() {
        let state = State::new(FakeOrthancOptions::default()).unwrap();
        let buffer = state.allocate(8);
        assert_eq!(state.outstanding_buffers(), 1);
        // SAFETY: `buffer` was allocated above.
        unsafe { free(buffer) };
        assert_eq!((state.outstanding_buffers(), bad_frees()), (0, 0));
        // SAFETY: an unknown address is only counted.
        unsafe { free(buffer) };
        assert_eq!(bad_frees(), 1);

        state.close();
        // SAFETY: the message is the parameter of this service.
        let returned = unsafe { invoke(state.context(), service::LOG_INFO, c"late".as_ptr().cast()) };
        assert_eq!(returned, code::BAD_SEQUENCE_OF_CALLS);
        assert_eq!(*state.violations.lock(), ["service 1 was called after finalize"]);
    }
}
