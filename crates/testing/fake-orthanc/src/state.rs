//! One generation of the host: the context that the plugin sees, and what became of its service calls.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use orthanc_ffi::abi::{self, service};
use parking_lot::Mutex;
use regex_lite::Regex;

use crate::FakeOrthancOptions;
use crate::jobs::JobRecord;
use crate::rest::RestReply;

/// Orthanc's REST API in a test: method, path, body, whether plugins' routes are included; the answer or an error code.
pub type RestApi = dyn Fn(&str, &str, &[u8], bool) -> Result<Vec<u8>, i32> + Send + Sync;

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

/// Which storage area the plugin has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageAreaVersion {
    /// None.
    None,
    /// Storage area 1, without ranges.
    One,
    /// Storage area 2, with ranges.
    Two,
}

pub(crate) enum Storage {
    None,
    One(abi::RegisterStorageArea),
    Two(abi::RegisterStorageArea2),
}

impl Storage {
    pub(crate) fn version(&self) -> StorageAreaVersion {
        match self {
            Self::None => StorageAreaVersion::None,
            Self::One(_) => StorageAreaVersion::One,
            Self::Two(_) => StorageAreaVersion::Two,
        }
    }
}

/// Error codes that the host itself returns.
pub(crate) mod code {
    pub(crate) const INTERNAL: i32 = -1;
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const PARAMETER_OUT_OF_RANGE: i32 = 3;
    pub(crate) const NOT_ENOUGH_MEMORY: i32 = 4;
    pub(crate) const BAD_SEQUENCE_OF_CALLS: i32 = 6;
    pub(crate) const UNKNOWN_RESOURCE: i32 = 17;
    pub(crate) const UNKNOWN_SERVICE: i32 = 26;
    pub(crate) const NULL_POINTER: i32 = 35;
    pub(crate) const BAD_HTTP_STATUS: i32 = 2005;
    pub(crate) const STORAGE_ALREADY_REGISTERED: i32 = 2036;
}

/// Memory that hosts have handed out, by address: `Free` is not told which host it is for.
static BUFFERS: Mutex<BTreeMap<usize, Buffer>> = Mutex::new(BTreeMap::new());
/// Addresses that were freed though no host had handed them out.
static BAD_FREES: AtomicUsize = AtomicUsize::new(0);

/// Numbers for hosts and jobs, never used twice.
pub(crate) fn next_id() -> usize {
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
    /// The version as C has it; the context points into it.
    _version: CString,
    context: abi::Context,
    closed: AtomicBool,
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) logs: Mutex<Vec<(LogLevel, String)>>,
    pub(crate) metrics: Mutex<BTreeMap<String, f32>>,
    pub(crate) on_change: Mutex<Option<abi::OnChange>>,
    pub(crate) description: Mutex<Option<String>>,
    pub(crate) storage: Mutex<Storage>,
    pub(crate) routes: Mutex<Vec<(Regex, abi::RestCallback)>>,
    pub(crate) jobs: Mutex<HashMap<usize, JobRecord>>,
    pub(crate) unserializer: Mutex<Option<abi::JobsUnserializer>>,
}

// SAFETY: the pointers inside are the context's, which are only read, and the plugin's, which it hands out for use from
// any thread.
unsafe impl Send for State {}
// SAFETY: as for `Send`; what changes is behind locks.
unsafe impl Sync for State {}

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
            metrics: Mutex::default(),
            on_change: Mutex::default(),
            description: Mutex::default(),
            storage: Mutex::new(Storage::None),
            routes: Mutex::default(),
            jobs: Mutex::default(),
            unserializer: Mutex::default(),
        }))
    }

    pub(crate) fn context(&self) -> *mut abi::Context {
        (&raw const self.context).cast_mut()
    }

    /// From here on, each service call is a violation.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        self.violations.lock().push(text.into());
    }

    pub(crate) fn outstanding_buffers(&self) -> usize {
        BUFFERS.lock().values().filter(|buffer| buffer.owner == self.id).count()
    }

    /// Memory of the host, known by its address until it is freed.
    pub(crate) fn allocate(&self, size: usize) -> *mut c_void {
        // SAFETY: any size but 0 may be asked for.
        let data = unsafe { libc::malloc(size.max(1)) };
        if !data.is_null() {
            BUFFERS.lock().insert(data.addr(), Buffer { owner: self.id, size });
        }
        data
    }

    /// The size of memory that a host has handed out and not got back.
    pub(crate) fn size_of(&self, data: *mut c_void) -> Option<usize> {
        BUFFERS.lock().get(&data.addr()).map(|buffer| buffer.size)
    }

    fn allocate_bytes(&self, bytes: &[u8]) -> *mut c_void {
        let data = self.allocate(bytes.len());
        if !data.is_null() {
            // SAFETY: `data` has at least `bytes.len()` bytes, which nobody else knows yet.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast::<u8>(), bytes.len()) };
        }
        data
    }

    fn allocate_text(&self, text: &str) -> *mut c_char {
        let text = CString::new(text).unwrap_or_default();
        self.allocate_bytes(text.as_bytes_with_nul()).cast()
    }

    fn log(&self, level: LogLevel, message: *const c_char) -> i32 {
        self.logs.lock().push((level, text(message)));
        code::SUCCESS
    }

    fn register(&self, area: Storage) -> i32 {
        let mut storage = self.storage.lock();
        if storage.version() != StorageAreaVersion::None {
            return code::STORAGE_ALREADY_REGISTERED;
        }
        *storage = area;
        code::SUCCESS
    }

    fn call_rest(
        &self,
        method: &str,
        uri: &str,
        body: &[u8],
        after: bool,
        target: *mut abi::MemoryBuffer,
    ) -> i32 {
        let answer = match (self.options.rest_api)(method, uri, body, after) {
            Ok(answer) => answer,
            Err(code) => return code,
        };
        let Ok(size) = u32::try_from(answer.len()) else { return code::NOT_ENOUGH_MEMORY };
        if !target.is_null() {
            let data = if answer.is_empty() { ptr::null_mut() } else { self.allocate_bytes(&answer) };
            // SAFETY: not null, so the plugin's own variable.
            unsafe { target.write(abi::MemoryBuffer { data, size }) };
        }
        code::SUCCESS
    }

    /// Does what a service does.
    ///
    /// # Safety
    ///
    /// `params` must be what the service expects.
    unsafe fn service(&self, number: i32, params: *const c_void) -> i32 {
        let after =
            (service::REST_API_GET_AFTER_PLUGINS..=service::REST_API_PUT_AFTER_PLUGINS).contains(&number);
        match number {
            service::LOG_ERROR => self.log(LogLevel::Error, params.cast()),
            service::LOG_WARNING => self.log(LogLevel::Warning, params.cast()),
            service::LOG_INFO => self.log(LogLevel::Info, params.cast()),
            service::LOG_MESSAGE => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::LogMessage>(params) };
                if params.file.is_null()
                    || params.plugin.is_null()
                    || params.category != abi::LOG_CATEGORY_GENERIC
                {
                    return code::PARAMETER_OUT_OF_RANGE;
                }
                match params.level {
                    0 => self.log(LogLevel::Error, params.message),
                    1 => self.log(LogLevel::Warning, params.message),
                    2 => self.log(LogLevel::Info, params.message),
                    _ => code::PARAMETER_OUT_OF_RANGE,
                }
            }
            service::SET_PLUGIN_PROPERTY => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::SetPluginProperty>(params) };
                if params.property == abi::PROPERTY_DESCRIPTION {
                    *self.description.lock() = Some(text(params.value));
                }
                code::SUCCESS
            }
            service::GET_CONFIGURATION => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::RetrieveDynamicString>(params) };
                let text = self.allocate_text(&self.options.configuration.to_string());
                // SAFETY: the plugin's own variable.
                unsafe { params.result.write(text) };
                code::SUCCESS
            }
            service::SET_METRICS_VALUE => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::SetMetricsValue>(params) };
                self.metrics.lock().insert(text(params.name), params.value);
                code::SUCCESS
            }
            service::CREATE_MEMORY_BUFFER_64 => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::CreateMemoryBuffer64>(params) };
                let Ok(size) = usize::try_from(params.size) else { return code::NOT_ENOUGH_MEMORY };
                let data = self.allocate(size);
                if data.is_null() {
                    return code::NOT_ENOUGH_MEMORY;
                }
                // SAFETY: the plugin's own variable.
                unsafe { params.target.write(abi::MemoryBuffer64 { data, size: params.size }) };
                code::SUCCESS
            }
            service::REGISTER_STORAGE_AREA => {
                // SAFETY: the parameters of this service.
                self.register(Storage::One(unsafe { read(params) }))
            }
            service::REGISTER_STORAGE_AREA_2 => {
                // SAFETY: the parameters of this service.
                self.register(Storage::Two(unsafe { read(params) }))
            }
            service::REGISTER_ON_CHANGE_CALLBACK => {
                // SAFETY: the parameters of this service.
                *self.on_change.lock() = unsafe { read::<abi::RegisterOnChange>(params) }.callback;
                code::SUCCESS
            }
            service::REGISTER_REST_CALLBACK_NO_LOCK => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::RestCallbackRegistration>(params) };
                let pattern = format!("^(?:{})$", text(params.path_regular_expression));
                let (Ok(pattern), Some(callback)) = (Regex::new(&pattern), params.callback) else {
                    return code::PARAMETER_OUT_OF_RANGE;
                };
                self.routes.lock().push((pattern, callback));
                code::SUCCESS
            }
            service::ANSWER_BUFFER
            | service::SEND_METHOD_NOT_ALLOWED
            | service::SEND_HTTP_STATUS
            | service::SET_HTTP_ERROR_DETAILS => {
                // SAFETY: the parameters of this service.
                unsafe { RestReply::service(number, params) }
            }
            service::REST_API_GET | service::REST_API_GET_AFTER_PLUGINS => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::RestApiGet>(params) };
                self.call_rest("GET", &text(params.uri), &[], after, params.target)
            }
            service::REST_API_DELETE | service::REST_API_DELETE_AFTER_PLUGINS => {
                self.call_rest("DELETE", &text(params.cast()), &[], after, ptr::null_mut())
            }
            service::REST_API_POST
            | service::REST_API_PUT
            | service::REST_API_POST_AFTER_PLUGINS
            | service::REST_API_PUT_AFTER_PLUGINS => {
                // SAFETY: the parameters of this service.
                let params = unsafe { read::<abi::RestApiPostPut>(params) };
                let post = matches!(number, service::REST_API_POST | service::REST_API_POST_AFTER_PLUGINS);
                // SAFETY: the plugin's body has this size.
                let body = unsafe { bytes(params.body, params.body_size as usize) };
                self.call_rest(
                    if post { "POST" } else { "PUT" },
                    &text(params.uri),
                    &body,
                    after,
                    params.target,
                )
            }
            // SAFETY: the parameters of these services.
            service::CREATE_JOB => self.create_job(unsafe { read(params) }),
            // SAFETY: as above.
            service::FREE_JOB => self.free_job(unsafe { read::<abi::FreeJob>(params) }.job),
            service::SUBMIT_JOB => {
                // SAFETY: as above.
                let params = unsafe { read::<abi::SubmitJob>(params) };
                let Some(id) = self.submit_job(params.job, params.priority) else {
                    return code::PARAMETER_OUT_OF_RANGE;
                };
                // SAFETY: the plugin's own variable.
                unsafe { params.result_id.write(self.allocate_text(&id)) };
                code::SUCCESS
            }
            service::REGISTER_JOBS_UNSERIALIZER => {
                // SAFETY: as above.
                *self.unserializer.lock() =
                    unsafe { read::<abi::RegisterJobsUnserializer>(params) }.unserializer;
                code::SUCCESS
            }
            _ => code::UNKNOWN_SERVICE,
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        BUFFERS.lock().retain(|_, buffer| buffer.owner != self.id);
    }
}

/// # Safety
///
/// `params` must point to a `T`.
pub(crate) unsafe fn read<T>(params: *const c_void) -> T {
    // SAFETY: passed on from the caller; the structs are plain data.
    unsafe { params.cast::<T>().read() }
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
        // Neither the host nor the memory is known: not freeing it is the only safe answer.
        BAD_FREES.fetch_add(1, Ordering::SeqCst);
        return;
    }
    // SAFETY: the address was in the map, so it came from `malloc` and was not freed yet.
    unsafe { libc::free(data) };
}

/// Addresses that were freed in this process though no host had handed them out.
pub(crate) fn bad_frees() -> usize {
    BAD_FREES.load(Ordering::SeqCst)
}

unsafe extern "C" fn invoke(context: *mut abi::Context, number: i32, params: *const c_void) -> i32 {
    let body = || {
        // SAFETY: the plugin passes the context that it was given, which outlives the plugin's library.
        let manager = unsafe { (*context).plugins_manager };
        // SAFETY: the manager of our contexts is the `State` that the context is in.
        let state = unsafe { manager.cast::<State>().cast_const().as_ref() };
        let Some(state) = state else { return code::NULL_POINTER };
        if state.closed.load(Ordering::SeqCst) {
            state.violation(format!("service {number} was called after finalise"));
            return code::BAD_SEQUENCE_OF_CALLS;
        }
        // SAFETY: the plugin passes the parameters of the service.
        unsafe { state.service(number, params) }
    };
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(code::INTERNAL)
}
