//! Orthanc's C plugin interface as Rust declarations, as far as this crate uses it.
//!
//! Names follow the C header without its prefixes, and fields are in C order. The test `abi_matches_header`
//! compares each constant, size and offset with the headers of Debian's `orthanc-dev` for each generation of
//! Orthanc (SDK 1.10.1, 1.12.7 and 1.13.0); declarations that the oldest does not have say so.
//!
//! Every C enumeration is an `i32` here: the interface fixes their size to 32 bits, and an unknown value
//! must not be undefined behaviour.

mod property;
mod rest;

use std::ffi::{c_char, c_void};

pub use property::GlobalProperty;
pub use rest::{
    AnswerBuffer, ChunkedRestCallback, OutputPlusArgument, RequestReader, RequestReaderAddChunk,
    RequestReaderExecute, RequestReaderFactory, RequestReaderFinalize, RestCallbackRegistration,
    SendHttpStatus, SetHttpErrorDetails, SetHttpHeader,
};

/// An `OrthancPluginErrorCode`. The crate's public type for it is [`ErrorCode`](crate::ErrorCode).
pub type RawErrorCode = i32;

/// Numbers of the services that a plugin calls through [`Context::invoke_service`].
pub mod service {
    /// Parameters: the message as `const char*`.
    pub const LOG_INFO: i32 = 1;
    /// Parameters: the message as `const char*`.
    pub const LOG_WARNING: i32 = 2;
    /// Parameters: the message as `const char*`.
    pub const LOG_ERROR: i32 = 3;
    /// Parameters: [`RetrieveDynamicString`](super::RetrieveDynamicString).
    pub const GET_CONFIGURATION_PATH: i32 = 6;
    /// Parameters: [`SetPluginProperty`](super::SetPluginProperty).
    pub const SET_PLUGIN_PROPERTY: i32 = 7;
    /// Parameters: [`GlobalProperty`](super::GlobalProperty).
    pub const GET_GLOBAL_PROPERTY: i32 = 8;
    /// Parameters: [`GlobalProperty`](super::GlobalProperty).
    pub const SET_GLOBAL_PROPERTY: i32 = 9;
    /// Parameters: [`RetrieveDynamicString`](super::RetrieveDynamicString).
    pub const GET_CONFIGURATION: i32 = 13;
    /// Parameters: [`SetMetricsValue`](super::SetMetricsValue).
    pub const SET_METRICS_VALUE: i32 = 31;
    /// Parameters: [`CreateMemoryBuffer64`](super::CreateMemoryBuffer64).
    pub const CREATE_MEMORY_BUFFER_64: i32 = 40;
    /// Parameters: [`SetMetricsIntegerValue`](super::SetMetricsIntegerValue). From Orthanc 1.12.1.
    pub const SET_METRICS_INTEGER_VALUE: i32 = 43;
    /// Parameters: the name as `const char*`, at most 16 letters. From Orthanc 1.12.2.
    pub const SET_CURRENT_THREAD_NAME: i32 = 44;
    /// Parameters: [`LogMessage`](super::LogMessage). From Orthanc 1.12.4.
    pub const LOG_MESSAGE: i32 = 45;
    /// Parameters: null. From Orthanc 1.13.0.
    pub const CLEAR_CURRENT_THREAD_NAME: i32 = 64;
    /// Parameters: [`RegisterStorageArea`](super::RegisterStorageArea).
    pub const REGISTER_STORAGE_AREA: i32 = 1002;
    /// Parameters: [`RegisterOnChange`](super::RegisterOnChange).
    pub const REGISTER_ON_CHANGE_CALLBACK: i32 = 1003;
    /// Parameters: [`RestCallbackRegistration`](super::RestCallbackRegistration).
    pub const REGISTER_REST_CALLBACK_NO_LOCK: i32 = 1004;
    /// Parameters: [`RegisterMetrics`](super::RegisterMetrics).
    pub const REGISTER_REFRESH_METRICS_CALLBACK: i32 = 1011;
    /// Parameters: [`ChunkedRestCallback`](super::ChunkedRestCallback).
    pub const REGISTER_CHUNKED_REST_CALLBACK: i32 = 1012;
    /// Parameters: [`RegisterStorageArea2`](super::RegisterStorageArea2).
    pub const REGISTER_STORAGE_AREA_2: i32 = 1016;
    /// Parameters: [`AnswerBuffer`](super::AnswerBuffer).
    pub const ANSWER_BUFFER: i32 = 2000;
    /// Parameters: [`OutputPlusArgument`](super::OutputPlusArgument), whose argument is the `Allow` list.
    pub const SEND_METHOD_NOT_ALLOWED: i32 = 2005;
    /// Parameters: [`SetHttpHeader`](super::SetHttpHeader).
    pub const SET_HTTP_HEADER: i32 = 2007;
    /// Parameters: [`SendHttpStatus`](super::SendHttpStatus).
    pub const SEND_HTTP_STATUS: i32 = 2010;
    /// Parameters: [`SetHttpErrorDetails`](super::SetHttpErrorDetails).
    pub const SET_HTTP_ERROR_DETAILS: i32 = 2013;
    /// Parameters: [`RestApiGet`](super::RestApiGet).
    pub const REST_API_GET: i32 = 3001;
    /// Sends a POST request to Orthanc's REST API.
    pub const REST_API_POST: i32 = 3002;
    /// Parameters: [`CreateJob`](super::CreateJob).
    pub const CREATE_JOB: i32 = 9000;
    /// Parameters: [`FreeJob`](super::FreeJob).
    pub const FREE_JOB: i32 = 9001;
    /// Parameters: [`SubmitJob`](super::SubmitJob).
    pub const SUBMIT_JOB: i32 = 9002;
    /// Parameters: [`RegisterJobsUnserializer`](super::RegisterJobsUnserializer).
    pub const REGISTER_JOBS_UNSERIALIZER: i32 = 9003;
}

/// Values of an `OrthancPluginChangeType`.
pub mod change_type {
    /// Orthanc is about to stop.
    pub const ORTHANC_STOPPED: i32 = 11;
}

/// Values of an `OrthancPluginHttpMethod`.
pub mod http_method {
    /// GET.
    pub const GET: i32 = 1;
    /// POST.
    pub const POST: i32 = 2;
    /// PUT.
    pub const PUT: i32 = 3;
    /// DELETE.
    pub const DELETE: i32 = 4;
}

/// Values of an `OrthancPluginJobStepStatus`.
pub mod job_step {
    /// All steps are done.
    pub const SUCCESS: i32 = 1;
    /// This step failed, and the job with it.
    pub const FAILURE: i32 = 2;
    /// There are further steps.
    pub const CONTINUE: i32 = 3;
}

/// Values of an `OrthancPluginJobStopReason`.
pub mod job_stop {
    /// The job has succeeded.
    pub const SUCCESS: i32 = 1;
    /// A user paused the job, or Orthanc is stopping.
    pub const PAUSED: i32 = 2;
    /// The job has failed.
    pub const FAILURE: i32 = 3;
    /// A user cancelled the job.
    pub const CANCELED: i32 = 4;
}

/// `_OrthancPluginProperty_Description`.
pub const PROPERTY_DESCRIPTION: i32 = 1;
/// `_OrthancPluginProperty_RootUri`.
pub const PROPERTY_ROOT_URI: i32 = 2;
/// `_OrthancPluginProperty_OrthancExplorer`.
pub const PROPERTY_ORTHANC_EXPLORER: i32 = 3;
/// `OrthancPluginMetricsType_Default`.
pub const METRICS_DEFAULT: i32 = 0;
/// `OrthancPluginLogCategory_Generic`. From Orthanc 1.12.4.
pub const LOG_CATEGORY_GENERIC: i32 = 1;

/// The context that Orthanc passes to a plugin, with the functions that call its services.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    /// Opaque to plugins.
    pub plugins_manager: *mut c_void,
    /// `major.minor.revision` or `mainline`.
    pub orthanc_version: *const c_char,
    /// Releases strings and buffers that Orthanc allocated.
    pub free: Option<Free>,
    /// Calls one of the [`service`]s.
    pub invoke_service: Option<InvokeService>,
}

/// Releases memory that Orthanc, or a plugin for Orthanc, allocated.
pub type Free = unsafe extern "C" fn(*mut c_void);
/// Calls a service with its parameters.
pub type InvokeService = unsafe extern "C" fn(*mut Context, i32, *const c_void) -> RawErrorCode;

/// A buffer of up to 4 GiB that Orthanc allocated.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryBuffer {
    /// First byte, or null.
    pub data: *mut c_void,
    /// Size in bytes.
    pub size: u32,
}

/// A buffer that Orthanc allocated.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryBuffer64 {
    /// First byte, or null.
    pub data: *mut c_void,
    /// Size in bytes.
    pub size: u64,
}

/// The opaque handle through which a REST request is answered.
#[repr(C)]
#[derive(Debug)]
pub struct RestOutput {
    _opaque: [u8; 0],
}

/// The opaque handle of a job.
#[repr(C)]
#[derive(Debug)]
pub struct JobHandle {
    _opaque: [u8; 0],
}

/// A REST request.
#[repr(C)]
#[derive(Debug)]
pub struct HttpRequest {
    /// One of [`http_method`].
    pub method: i32,
    /// Number of `groups`.
    pub groups_count: u32,
    /// Matches of the groups in the route's pattern.
    pub groups: *const *const c_char,
    /// Number of query parameters (GET only).
    pub get_count: u32,
    /// Names of the query parameters.
    pub get_keys: *const *const c_char,
    /// Values of the query parameters.
    pub get_values: *const *const c_char,
    /// Body (POST and PUT only).
    pub body: *const c_void,
    /// Length of the body in bytes.
    pub body_size: u32,
    /// Number of headers.
    pub headers_count: u32,
    /// Names of the headers, in lower case.
    pub headers_keys: *const *const c_char,
    /// Values of the headers.
    pub headers_values: *const *const c_char,
}

/// uuid, content, size, content type.
pub type StorageCreate = unsafe extern "C" fn(*const c_char, *const c_void, i64, i32) -> RawErrorCode;
/// Address of the content to set, of its size, uuid, content type.
pub type StorageRead = unsafe extern "C" fn(*mut *mut c_void, *mut i64, *const c_char, i32) -> RawErrorCode;
/// Buffer to set, uuid, content type.
pub type StorageReadWhole = unsafe extern "C" fn(*mut MemoryBuffer64, *const c_char, i32) -> RawErrorCode;
/// Buffer to fill, uuid, content type, first byte.
pub type StorageReadRange =
    unsafe extern "C" fn(*mut MemoryBuffer64, *const c_char, i32, u64) -> RawErrorCode;
/// uuid, content type.
pub type StorageRemove = unsafe extern "C" fn(*const c_char, i32) -> RawErrorCode;
/// Output, path, request.
pub type RestCallback =
    unsafe extern "C" fn(*mut RestOutput, *const c_char, *const HttpRequest) -> RawErrorCode;

/// Ends the job.
pub type JobFinalize = unsafe extern "C" fn(*mut c_void);
/// Progress, 0 to 1.
pub type JobGetProgress = unsafe extern "C" fn(*mut c_void) -> f32;
/// Returns a JSON text that the plugin owns.
pub type JobGetText = unsafe extern "C" fn(*mut c_void) -> *const c_char;
/// Runs one step; returns one of [`job_step`].
pub type JobStepCallback = unsafe extern "C" fn(*mut c_void) -> i32;
/// Takes the job out of the running state, for one of the reasons in [`job_stop`].
pub type JobStop = unsafe extern "C" fn(*mut c_void, i32) -> RawErrorCode;
/// Prepares a stopped job to start again.
pub type JobReset = unsafe extern "C" fn(*mut c_void) -> RawErrorCode;
/// Job type, JSON text; returns a new job or null.
pub type JobsUnserializer = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut JobHandle;

/// Parameters of [`service::SET_PLUGIN_PROPERTY`].
#[repr(C)]
#[derive(Debug)]
pub struct SetPluginProperty {
    /// Name of the plugin.
    pub plugin: *const c_char,
    /// [`PROPERTY_DESCRIPTION`], [`PROPERTY_ROOT_URI`] or [`PROPERTY_ORTHANC_EXPLORER`].
    pub property: i32,
    /// New value.
    pub value: *const c_char,
}

/// Parameters of services that return a string, which the plugin must free.
#[repr(C)]
#[derive(Debug)]
pub struct RetrieveDynamicString {
    /// Where to put the string.
    pub result: *mut *mut c_char,
    /// Null if the service has no argument.
    pub argument: *const c_char,
}

/// Parameters of [`service::CREATE_MEMORY_BUFFER_64`].
#[repr(C)]
#[derive(Debug)]
pub struct CreateMemoryBuffer64 {
    /// Buffer to set.
    pub target: *mut MemoryBuffer64,
    /// Requested size in bytes.
    pub size: u64,
}

/// Parameters of [`service::SET_METRICS_VALUE`].
#[repr(C)]
#[derive(Debug)]
pub struct SetMetricsValue {
    /// Name of the metric.
    pub name: *const c_char,
    /// New value.
    pub value: f32,
    /// [`METRICS_DEFAULT`].
    pub kind: i32,
}

/// Parameters of [`service::SET_METRICS_INTEGER_VALUE`] (Orthanc 1.12.1).
#[repr(C)]
#[derive(Debug)]
pub struct SetMetricsIntegerValue {
    /// Name of the metric.
    pub name: *const c_char,
    /// New value.
    pub value: i64,
    /// [`METRICS_DEFAULT`].
    pub kind: i32,
}

/// Sets the plugin's metrics to their current values.
pub type RefreshMetrics = unsafe extern "C" fn();

/// Parameters of [`service::REGISTER_REFRESH_METRICS_CALLBACK`].
#[repr(C)]
#[derive(Debug)]
pub struct RegisterMetrics {
    /// Called before Orthanc shows the metrics.
    pub callback: Option<RefreshMetrics>,
}

/// Parameters of [`service::LOG_MESSAGE`] (Orthanc 1.12.4).
#[repr(C)]
#[derive(Debug)]
pub struct LogMessage {
    /// The message.
    pub message: *const c_char,
    /// Name of the plugin.
    pub plugin: *const c_char,
    /// Source file; never null.
    pub file: *const c_char,
    /// Line in the source file.
    pub line: u32,
    /// [`LOG_CATEGORY_GENERIC`].
    pub category: i32,
    /// 0 error, 1 warning, 2 info.
    pub level: i32,
}

/// Parameters of [`service::REGISTER_STORAGE_AREA`].
#[repr(C)]
#[derive(Debug)]
pub struct RegisterStorageArea {
    /// Stores an attachment.
    pub create: Option<StorageCreate>,
    /// Reads an attachment.
    pub read: Option<StorageRead>,
    /// Removes an attachment.
    pub remove: Option<StorageRemove>,
    /// Releases the memory that `read` returned.
    pub free: Option<Free>,
}

/// Parameters of [`service::REGISTER_STORAGE_AREA_2`].
#[repr(C)]
#[derive(Debug)]
pub struct RegisterStorageArea2 {
    /// Stores an attachment.
    pub create: Option<StorageCreate>,
    /// Reads a whole attachment.
    pub read_whole: Option<StorageReadWhole>,
    /// Reads a range of an attachment.
    pub read_range: Option<StorageReadRange>,
    /// Removes an attachment.
    pub remove: Option<StorageRemove>,
}

/// Parameters of [`service::REST_API_GET`].
#[repr(C)]
#[derive(Debug)]
pub struct RestApiGet {
    /// Buffer to set.
    pub target: *mut MemoryBuffer,
    /// Path.
    pub uri: *const c_char,
}

/// Parameters of [`service::REST_API_POST`].
#[repr(C)]
#[derive(Debug)]
pub struct RestApiPost {
    /// Buffer to set.
    pub target: *mut MemoryBuffer,
    /// Path.
    pub uri: *const c_char,
    /// Body of the request.
    pub body: *const c_void,
    /// Length of the body in bytes.
    pub body_size: u32,
}

/// Parameters of [`service::CREATE_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct CreateJob {
    /// Where to put the new job.
    pub target: *mut *mut JobHandle,
    /// Passed to each callback.
    pub job: *mut c_void,
    /// Ends the job.
    pub finalize: Option<JobFinalize>,
    /// Type of the job.
    pub kind: *const c_char,
    /// Returns the progress.
    pub get_progress: Option<JobGetProgress>,
    /// Returns the content, for users.
    pub get_content: Option<JobGetText>,
    /// Returns the serialization, for the unserializer.
    pub get_serialized: Option<JobGetText>,
    /// Runs one step.
    pub step: Option<JobStepCallback>,
    /// Takes the job out of the running state.
    pub stop: Option<JobStop>,
    /// Prepares a stopped job to start again.
    pub reset: Option<JobReset>,
}

/// Parameters of [`service::FREE_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct FreeJob {
    /// A job that has not been submitted.
    pub job: *mut JobHandle,
}

/// Parameters of [`service::SUBMIT_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct SubmitJob {
    /// Where to put the id, which the plugin must free.
    pub result_id: *mut *mut c_char,
    /// The job, which Orthanc owns from now on.
    pub job: *mut JobHandle,
    /// Higher goes first.
    pub priority: i32,
}

/// `OrthancPluginOnChangeCallback`: the change, the level of its resource, and the resource's id or null.
pub type OnChange = unsafe extern "C" fn(change: i32, level: i32, resource: *const c_char) -> RawErrorCode;

/// Parameters of [`service::REGISTER_ON_CHANGE_CALLBACK`].
#[repr(C)]
#[derive(Debug)]
pub struct RegisterOnChange {
    /// Called for each change.
    pub callback: Option<OnChange>,
}

/// Parameters of [`service::REGISTER_JOBS_UNSERIALIZER`].
#[repr(C)]
#[derive(Debug)]
pub struct RegisterJobsUnserializer {
    /// Creates a job from its serialization.
    pub unserializer: Option<JobsUnserializer>,
}
