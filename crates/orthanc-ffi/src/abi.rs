//! Orthanc's C plugin interface: the part that is used, as Rust declarations.
//!
//! Names follow the C header without its prefixes, and field order is the C order. The test `abi_matches_header` holds
//! each constant, size and offset against the header of Debian's `orthanc-dev` (SDK 1.10.1); what is newer than that
//! header is marked. This module has no behaviour and knows nothing of the rest of the crate.
//!
//! Every C enumeration is an `i32` here: the interface fixes their size to 32 bits, and a value outside of the
//! enumeration must not be undefined behaviour.

use std::ffi::{c_char, c_void};

/// An `OrthancPluginErrorCode`. The crate's public type for it is [`ErrorCode`](crate::ErrorCode).
pub type RawErrorCode = i32;

/// Numbers of the services that a plugin asks of its host through [`Context::invoke_service`].
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
    /// Parameters: [`RetrieveDynamicString`](super::RetrieveDynamicString).
    pub const GET_CONFIGURATION: i32 = 13;
    /// Parameters: [`SetMetricsValue`](super::SetMetricsValue).
    pub const SET_METRICS_VALUE: i32 = 31;
    /// Parameters: [`CreateMemoryBuffer64`](super::CreateMemoryBuffer64).
    pub const CREATE_MEMORY_BUFFER_64: i32 = 40;
    /// Parameters: [`LogMessage`](super::LogMessage). From host 1.12.4; not in the 1.10.1 header.
    pub const LOG_MESSAGE: i32 = 45;
    /// Parameters: [`RegisterStorageArea`](super::RegisterStorageArea).
    pub const REGISTER_STORAGE_AREA: i32 = 1002;
    /// Parameters: [`RegisterOnChange`](super::RegisterOnChange).
    pub const REGISTER_ON_CHANGE_CALLBACK: i32 = 1003;
    /// Parameters: [`RestCallbackRegistration`](super::RestCallbackRegistration).
    pub const REGISTER_REST_CALLBACK_NO_LOCK: i32 = 1004;
    /// Parameters: [`RegisterStorageArea2`](super::RegisterStorageArea2).
    pub const REGISTER_STORAGE_AREA_2: i32 = 1016;
    /// Parameters: [`AnswerBuffer`](super::AnswerBuffer).
    pub const ANSWER_BUFFER: i32 = 2000;
    /// Parameters: [`OutputPlusArgument`](super::OutputPlusArgument), the argument being the `Allow` list.
    pub const SEND_METHOD_NOT_ALLOWED: i32 = 2005;
    /// Parameters: [`SendHttpStatus`](super::SendHttpStatus).
    pub const SEND_HTTP_STATUS: i32 = 2010;
    /// Parameters: [`SetHttpErrorDetails`](super::SetHttpErrorDetails).
    pub const SET_HTTP_ERROR_DETAILS: i32 = 2013;
    /// Parameters: [`RestApiGet`](super::RestApiGet).
    pub const REST_API_GET: i32 = 3001;
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
    /// Orthanc has started.
    pub const ORTHANC_STARTED: i32 = 10;
    /// Orthanc begins to stop.
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
    /// A user or the end of the server paused the job.
    pub const PAUSED: i32 = 2;
    /// The job has failed.
    pub const FAILURE: i32 = 3;
    /// A user cancelled the job.
    pub const CANCELED: i32 = 4;
}

/// `_OrthancPluginProperty_Description`.
pub const PROPERTY_DESCRIPTION: i32 = 1;
/// `OrthancPluginMetricsType_Default`.
pub const METRICS_DEFAULT: i32 = 0;
/// `OrthancPluginLogCategory_Generic`; from host 1.12.4, not in the 1.10.1 header.
pub const LOG_CATEGORY_GENERIC: i32 = 1;

/// What identifies Orthanc to a plugin, and the way to its services.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    /// Orthanc's own; a plugin does not look into it.
    pub plugins_manager: *mut c_void,
    /// `major.minor.revision` or `mainline`.
    pub orthanc_version: *const c_char,
    /// Releases strings and buffers that Orthanc allocated.
    pub free: Option<Free>,
    /// Calls one of the [`service`]s.
    pub invoke_service: Option<InvokeService>,
}

/// Releases memory of Orthanc, or of a plugin for Orthanc.
pub type Free = unsafe extern "C" fn(*mut c_void);
/// Calls a service with its parameters.
pub type InvokeService = unsafe extern "C" fn(*mut Context, i32, *const c_void) -> RawErrorCode;

/// A buffer of up to 4 GiB that Orthanc allocated.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryBuffer {
    /// First byte, or null.
    pub data: *mut c_void,
    /// In bytes.
    pub size: u32,
}

/// A buffer that Orthanc allocated.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryBuffer64 {
    /// First byte, or null.
    pub data: *mut c_void,
    /// In bytes.
    pub size: u64,
}

/// The connection on which a REST request is answered: only its address is known.
#[repr(C)]
#[derive(Debug)]
pub struct RestOutput {
    _opaque: [u8; 0],
}

/// A job as Orthanc knows it: only its address is known.
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
    /// What the groups of the route's pattern matched.
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
/// Where to answer, path, request.
pub type RestCallback =
    unsafe extern "C" fn(*mut RestOutput, *const c_char, *const HttpRequest) -> RawErrorCode;

/// The job's end.
pub type JobFinalize = unsafe extern "C" fn(*mut c_void);
/// Progress, 0 to 1.
pub type JobGetProgress = unsafe extern "C" fn(*mut c_void) -> f32;
/// A JSON text that stays with the plugin.
pub type JobGetText = unsafe extern "C" fn(*mut c_void) -> *const c_char;
/// One step; answers one of [`job_step`].
pub type JobStepCallback = unsafe extern "C" fn(*mut c_void) -> i32;
/// The job leaves the running state, for one of [`job_stop`].
pub type JobStop = unsafe extern "C" fn(*mut c_void, i32) -> RawErrorCode;
/// A stopped job is started anew.
pub type JobReset = unsafe extern "C" fn(*mut c_void) -> RawErrorCode;
/// Job type, JSON text; answers a new job or null.
pub type JobsUnserializer = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut JobHandle;

/// Parameters of [`service::SET_PLUGIN_PROPERTY`].
#[repr(C)]
#[derive(Debug)]
pub struct SetPluginProperty {
    /// Name of the plugin.
    pub plugin: *const c_char,
    /// [`PROPERTY_DESCRIPTION`].
    pub property: i32,
    /// New value.
    pub value: *const c_char,
}

/// Parameters of services that answer a string which the plugin frees.
#[repr(C)]
#[derive(Debug)]
pub struct RetrieveDynamicString {
    /// Where to put the string.
    pub result: *mut *mut c_char,
    /// Null where the service has no argument.
    pub argument: *const c_char,
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

/// Parameters of [`service::CREATE_MEMORY_BUFFER_64`].
#[repr(C)]
#[derive(Debug)]
pub struct CreateMemoryBuffer64 {
    /// Buffer to set.
    pub target: *mut MemoryBuffer64,
    /// Wanted size in bytes.
    pub size: u64,
}

/// Parameters of [`service::LOG_MESSAGE`] (host 1.12.4).
#[repr(C)]
#[derive(Debug)]
pub struct LogMessage {
    /// The line.
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
    /// Releases what `read` handed out.
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
    /// Reads a part of an attachment.
    pub read_range: Option<StorageReadRange>,
    /// Removes an attachment.
    pub remove: Option<StorageRemove>,
}

/// Parameters of [`service::REGISTER_REST_CALLBACK_NO_LOCK`].
#[repr(C)]
#[derive(Debug)]
pub struct RestCallbackRegistration {
    /// Regular expression for the whole path.
    pub path_regular_expression: *const c_char,
    /// What answers.
    pub callback: Option<RestCallback>,
}

/// Parameters of [`service::ANSWER_BUFFER`].
#[repr(C)]
#[derive(Debug)]
pub struct AnswerBuffer {
    /// Where to answer.
    pub output: *mut RestOutput,
    /// The body.
    pub answer: *const c_void,
    /// Length of the body in bytes.
    pub answer_size: u32,
    /// Its MIME type.
    pub mime_type: *const c_char,
}

/// Parameters of services on an answer with one string.
#[repr(C)]
#[derive(Debug)]
pub struct OutputPlusArgument {
    /// Where to answer.
    pub output: *mut RestOutput,
    /// The string.
    pub argument: *const c_char,
}

/// Parameters of [`service::SEND_HTTP_STATUS`].
#[repr(C)]
#[derive(Debug)]
pub struct SendHttpStatus {
    /// Where to answer.
    pub output: *mut RestOutput,
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: *const c_char,
    /// Length of the body in bytes.
    pub body_size: u32,
}

/// Parameters of [`service::SET_HTTP_ERROR_DETAILS`].
#[repr(C)]
#[derive(Debug)]
pub struct SetHttpErrorDetails {
    /// Where to answer.
    pub output: *mut RestOutput,
    /// Text for the `Details` field of Orthanc's error answer.
    pub details: *const c_char,
    /// 1: also write it to Orthanc's log.
    pub log: u8,
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

/// Parameters of [`service::CREATE_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct CreateJob {
    /// Where to put the new job.
    pub target: *mut *mut JobHandle,
    /// Handed to each callback.
    pub job: *mut c_void,
    /// The job's end.
    pub finalize: Option<JobFinalize>,
    /// Type of the job.
    pub kind: *const c_char,
    /// Progress.
    pub get_progress: Option<JobGetProgress>,
    /// Content, for users.
    pub get_content: Option<JobGetText>,
    /// Content, for a later unserializer.
    pub get_serialized: Option<JobGetText>,
    /// One step.
    pub step: Option<JobStepCallback>,
    /// The job leaves the running state.
    pub stop: Option<JobStop>,
    /// A stopped job is started anew.
    pub reset: Option<JobReset>,
}

/// Parameters of [`service::FREE_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct FreeJob {
    /// A job that was not submitted.
    pub job: *mut JobHandle,
}

/// Parameters of [`service::SUBMIT_JOB`].
#[repr(C)]
#[derive(Debug)]
pub struct SubmitJob {
    /// Where to put the id; the plugin frees it.
    pub result_id: *mut *mut c_char,
    /// The job, which belongs to Orthanc from here on.
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
    /// Makes a job from its serialisation.
    pub unserializer: Option<JobsUnserializer>,
}
