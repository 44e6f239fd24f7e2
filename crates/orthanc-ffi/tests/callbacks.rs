//! REST, job and change callbacks, called as Orthanc calls them through a minimal context.

#![allow(unsafe_code, clippy::panic, clippy::unwrap_used)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use orthanc_ffi::abi::{self, change_type, http_method, job_step, job_stop, service};
use orthanc_ffi::{
    InitializeError, Job, JobStep, Orthanc, Plugin, RestAnswer, RestFailure, RestRequest, StopReason, entry,
};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

const PLUGIN: i32 = 1;
const UNKNOWN_RESOURCE: i32 = 17;

/// Everything that the plugin passed to services.
#[derive(Default)]
struct Recorded {
    errors: Vec<String>,
    /// Of the last answer: its status, and its body, `Allow` list or details.
    answer: (u16, String),
    route: Option<abi::RestCallback>,
    on_change: Option<abi::OnChange>,
    unserializer: Option<abi::JobsUnserializer>,
    job: Option<abi::CreateJob>,
    priority: i32,
}

// SAFETY: the plugin's pointers may be used from any thread.
unsafe impl Send for Recorded {}

static RECORDED: LazyLock<Mutex<Recorded>> = LazyLock::new(Mutex::default);

macro_rules! params {
    ($type:ty, $params:expr) => {{
        // SAFETY: the plugin passes the parameters of the service that it calls.
        unsafe { $params.cast::<$type>().read() }
    }};
}

fn text(pointer: *const c_char) -> String {
    // SAFETY: the plugin passes NUL-terminated strings.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

fn bytes(data: *const c_void, len: u32) -> String {
    // SAFETY: the plugin's data has this length.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len as usize) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

unsafe extern "C" fn invoke(_: *mut abi::Context, number: i32, params: *const c_void) -> i32 {
    let mut recorded = RECORDED.lock();
    match number {
        service::LOG_ERROR => {
            // The plugin's panic hook also reports failed assertions of these tests.
            eprintln!("{}", text(params.cast()));
            recorded.errors.push(text(params.cast()));
        }
        service::REGISTER_REST_CALLBACK_NO_LOCK => {
            recorded.route = params!(abi::RestCallbackRegistration, params).callback;
        }
        service::REGISTER_ON_CHANGE_CALLBACK => {
            recorded.on_change = params!(abi::RegisterOnChange, params).callback;
        }
        service::REGISTER_JOBS_UNSERIALIZER => {
            recorded.unserializer = params!(abi::RegisterJobsUnserializer, params).unserializer;
        }
        service::ANSWER_BUFFER => {
            let answer = params!(abi::AnswerBuffer, params);
            recorded.answer = (200, bytes(answer.answer, answer.answer_size));
        }
        service::SEND_HTTP_STATUS => {
            let answer = params!(abi::SendHttpStatus, params);
            recorded.answer = (answer.status, bytes(answer.body.cast(), answer.body_size));
        }
        service::SEND_METHOD_NOT_ALLOWED => {
            recorded.answer = (405, text(params!(abi::OutputPlusArgument, params).argument));
        }
        service::SET_HTTP_ERROR_DETAILS => {
            recorded.answer = (0, text(params!(abi::SetHttpErrorDetails, params).details));
        }
        service::CREATE_JOB => {
            let job = params!(abi::CreateJob, params);
            // SAFETY: the plugin's variable.
            unsafe { job.target.write(ptr::without_provenance_mut(1)) };
            recorded.job = Some(job);
        }
        service::SUBMIT_JOB => {
            let submitted = params!(abi::SubmitJob, params);
            recorded.priority = submitted.priority;
            // SAFETY: the plugin's variable; `free` below does nothing.
            unsafe { submitted.result_id.write(c"id".as_ptr().cast_mut()) };
        }
        _ => return UNKNOWN_RESOURCE,
    }
    0
}

unsafe extern "C" fn free(_: *mut c_void) {}

/// The initialized plugin. Only one exists at a time, because the crate's state is static.
struct Initialized {
    _one: MutexGuard<'static, ()>,
}

impl Drop for Initialized {
    fn drop(&mut self) {
        entry::finalize();
    }
}

fn initialize() -> Initialized {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock();
    *RECORDED.lock() = Recorded::default();
    // Leaked, because the context must outlive the plugin.
    let context = Box::leak(Box::new(abi::Context {
        plugins_manager: ptr::null_mut(),
        orthanc_version: c"1.10.1".as_ptr(),
        free: Some(free),
        invoke_service: Some(invoke),
    }));
    // SAFETY: the context is never freed.
    assert_eq!(unsafe { entry::initialize::<TestPlugin>(context, module_path!()) }, 0);
    Initialized { _one: one }
}

/// Asserts that there are `count` error lines, and that the last reports a panic in this callback with this message.
#[track_caller]
fn assert_panic_line(count: usize, callback: &str, message: &str) {
    let recorded = RECORDED.lock();
    let last = recorded.errors.last().unwrap();
    assert!(last.starts_with(&format!("Test: panic in {callback} at ")) && last.ends_with(message), "{last}");
    assert_eq!(recorded.errors.len(), count);
}

struct TestPlugin;

impl Plugin for TestPlugin {
    const NAME: &'static CStr = c"Test";
    const VERSION: &'static CStr = c"0";

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        let rest_orthanc = orthanc.clone();
        orthanc.register_rest("/test/(.*)/(.*)", move |request| answer(&rest_orthanc, request))?;
        orthanc.register_on_stop(|| panic!("literal"))?;
        orthanc.register_job_unserializer(|job_type, saved| match job_type {
            "Panic" => panic!("literal"),
            "Faults" => Some(Box::new(Faults {
                fault: saved["Fault"].as_str()?.to_owned(),
                steps: saved["Steps"].as_u64()?,
            })),
            _ => None,
        })?;
        Ok(Self)
    }
}

/// Resumes the panic of another thread, as waiting for a task does.
fn resume_panic() -> ! {
    let Err(payload) = thread::spawn(|| panic!("literal")).join();
    std::panic::resume_unwind(payload)
}

fn answer(orthanc: &Orthanc, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    let argument = request.groups()[1];
    match request.groups()[0] {
        "panic" => panic!("literal"),
        "panic-with-data" => panic!("{argument}"),
        "resumed-panic" => resume_panic(),
        "status" => return Err(RestFailure::Status { status: 418, message: "teapot".to_owned() }),
        "not-allowed" => return Err(RestFailure::MethodNotAllowed { allow: "GET" }),
        "not-found" => return Err(RestFailure::not_found("nothing here")),
        "get" => return Ok(RestAnswer::bytes("text/plain", orthanc.rest_get("/missing")?)),
        "job" => {
            let job = Faults { fault: argument.to_owned(), steps: 0 };
            return Ok(RestAnswer::bytes("text/plain", orthanc.submit_job("Faults", Box::new(job), 7)?));
        }
        _ => {}
    }
    let query = request.query().iter().map(|(key, value)| format!("{key}={value}"));
    Ok(RestAnswer::json(&json!({
        "Method": format!("{:?}", request.method()), "Path": request.path(), "Groups": request.groups(),
        "Query": query.collect::<Vec<_>>(), "Header": request.header("x-test"),
        "Body": String::from_utf8_lossy(request.body()),
    })))
}

/// A job that panics in one of its methods.
struct Faults {
    fault: String,
    steps: u64,
}

impl Faults {
    fn maybe(&self, method: &str) {
        assert!(self.fault != method || self.steps == 0, "fault in {method}");
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.maybe("drop");
    }
}

impl Job for Faults {
    fn step(&mut self) -> JobStep {
        self.steps += 1;
        self.maybe("step");
        match self.fault.as_str() {
            "slow" => thread::sleep(Duration::from_millis(300)),
            "resumed-panic" => resume_panic(),
            _ => {}
        }
        if self.steps >= 3 { JobStep::Success } else { JobStep::Continue }
    }

    fn stop(&mut self, reason: StopReason) {
        assert!(self.fault != "stop" && reason == StopReason::Paused, "fault in stop");
    }

    fn reset(&mut self) {
        self.maybe("reset");
        self.steps = 0;
    }

    fn progress(&self) -> f32 {
        self.maybe("progress");
        if self.fault == "nan" { f32::NAN } else { self.steps as f32 }
    }

    fn content(&self) -> Value {
        self.maybe("content");
        if self.fault == "array" { json!([1]) } else { json!({"Steps": self.steps}) }
    }

    fn serialized(&self) -> Option<Value> {
        self.maybe("serialized");
        (self.fault != "none").then(|| json!({"Fault": self.fault, "Steps": self.steps, "Type": "must go"}))
    }
}

/// Calls the route with the groups `kind` and `argument`, and returns its error code.
fn request(method: i32, kind: &str, argument: &str) -> i32 {
    let strings = [&format!("/test/{kind}"), kind, argument, "key", "value", "x-test", "yes"];
    let owned = strings.map(|string| CString::new(string).unwrap());
    let pointers = owned.each_ref().map(|string| string.as_ptr());
    let request = abi::HttpRequest {
        method,
        groups_count: 2,
        groups: &raw const pointers[1],
        get_count: 1,
        get_keys: &raw const pointers[3],
        get_values: &raw const pointers[4],
        body: c"body".as_ptr().cast(),
        body_size: 4,
        headers_count: 1,
        headers_keys: &raw const pointers[5],
        headers_values: &raw const pointers[6],
    };
    let route = RECORDED.lock().route.unwrap();
    // SAFETY: all arguments live until the callback returns; the plugin only passes the output on.
    unsafe { route(ptr::without_provenance_mut(1), pointers[0], &raw const request) }
}

/// A job of the plugin, as Orthanc sees it.
struct RawJob(abi::CreateJob);

// SAFETY: the plugin's callbacks may be called from any thread.
unsafe impl Sync for RawJob {}

impl RawJob {
    fn submit(fault: &str) -> Self {
        assert_eq!(request(http_method::POST, "job", fault), 0);
        Self(RECORDED.lock().job.take().unwrap())
    }

    fn step(&self) -> i32 {
        // SAFETY: a number identifies the job, so any value is valid. So for the other callbacks.
        unsafe { self.0.step.unwrap()(self.0.job) }
    }

    fn stop(&self, reason: i32) -> i32 {
        // SAFETY: as for `step`.
        unsafe { self.0.stop.unwrap()(self.0.job, reason) }
    }

    fn reset(&self) -> i32 {
        // SAFETY: as for `step`.
        unsafe { self.0.reset.unwrap()(self.0.job) }
    }

    fn finalize(&self) {
        // SAFETY: as for `step`.
        unsafe { self.0.finalize.unwrap()(self.0.job) };
    }

    fn progress(&self) -> f32 {
        // SAFETY: as for `step`.
        unsafe { self.0.get_progress.unwrap()(self.0.job) }
    }

    fn content(&self) -> Value {
        // SAFETY: as for `step`.
        serde_json::from_str(&text(unsafe { self.0.get_content.unwrap()(self.0.job) })).unwrap()
    }

    fn serialized(&self) -> Option<Value> {
        // SAFETY: as for `step`.
        let pointer = unsafe { self.0.get_serialized.unwrap()(self.0.job) };
        (!pointer.is_null()).then(|| serde_json::from_str(&text(pointer)).unwrap())
    }

    fn unserialize(job_type: &CStr, saved: &Value) -> Option<Self> {
        let saved_text = CString::new(saved.to_string()).unwrap();
        let unserializer = RECORDED.lock().unserializer.unwrap();
        // SAFETY: both strings live until the callback returns.
        let handle = unsafe { unserializer(job_type.as_ptr(), saved_text.as_ptr()) };
        (!handle.is_null()).then(|| Self(RECORDED.lock().job.take().unwrap()))
    }
}

#[test]
fn route_gets_the_request_and_answers() {
    let plugin = initialize();
    assert_eq!(request(http_method::PUT, "a", "b"), 0);
    let (status, body) = RECORDED.lock().answer.clone();
    let expected = json!({
        "Method": "Put", "Path": "/test/a", "Groups": ["a", "b"], "Query": ["key=value"], "Header": "yes",
        "Body": "body",
    });
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, expected));
    assert_eq!(request(0, "a", "b"), 3, "unknown method");
    for (kind, code, status, text) in [
        ("status", 0, 418, "teapot"),
        ("not-allowed", 0, 405, "GET"),
        ("not-found", UNKNOWN_RESOURCE, 0, "nothing here"),
        ("get", UNKNOWN_RESOURCE, 0, "GET /missing failed in Orthanc: UnknownResource (17)"),
    ] {
        assert_eq!(request(http_method::GET, kind, "x"), code);
        assert_eq!(RECORDED.lock().answer, (status, text.to_owned()));
    }
    drop(plugin);
    assert_eq!(request(http_method::GET, "a", "b"), 6, "after finalize");
}

#[test]
fn panic_in_a_route_is_an_error_and_a_log_line() {
    let _plugin = initialize();
    assert_eq!(request(http_method::GET, "panic", "x"), PLUGIN);
    assert_panic_line(1, "a REST route", ": literal");
    assert_eq!(request(http_method::GET, "panic-with-data", "PATIENT"), PLUGIN);
    assert_panic_line(2, "a REST route", ": (message withheld)");
    assert_eq!(request(http_method::GET, "resumed-panic", "x"), PLUGIN);
    assert_panic_line(3, "a thread of the plugin", ": literal");
}

#[test]
fn change_callback_panic_is_logged() {
    let _plugin = initialize();
    let on_change = RECORDED.lock().on_change.unwrap();
    // SAFETY: Orthanc passes null for changes that do not concern a resource.
    let signal = |change| unsafe { on_change(change, 0, ptr::null()) };
    assert_eq!(signal(0), 0, "other changes are not passed on");
    assert_eq!(signal(change_type::ORTHANC_STOPPED), PLUGIN);
    assert_panic_line(1, "a change", ": literal");
}

#[test]
fn job_runs_and_is_recreated() {
    let plugin = initialize();
    let job = RawJob::submit("x");
    assert_eq!(RECORDED.lock().priority, 7);
    assert_eq!(job.step(), job_step::CONTINUE);
    let saved = job.serialized().unwrap();
    assert_eq!(saved, json!({"Fault": "x", "Steps": 1}), "`Type` is Orthanc's");
    assert_eq!((job.step(), job.step()), (job_step::CONTINUE, job_step::SUCCESS));
    assert_eq!(job.progress(), 1.0, "progress is at most 1");
    assert_eq!((job.stop(job_stop::PAUSED), job.reset()), (0, 0));
    assert_eq!(job.content(), json!({"Steps": 0}));
    job.finalize();
    assert_eq!(job.step(), job_step::FAILURE, "an ended job");

    assert_eq!(RawJob::unserialize(c"Faults", &saved).unwrap().content(), json!({"Steps": 1}));
    assert!(RawJob::unserialize(c"Other", &saved).is_none());
    assert!(RawJob::unserialize(c"Faults", &json!({})).is_none());
    drop(plugin);
    assert!(RawJob::unserialize(c"Faults", &saved).is_none(), "after finalize");
}

#[test]
fn panic_in_a_job_is_a_failure_and_a_log_line() {
    let _plugin = initialize();
    assert_eq!(RawJob::submit("step").step(), job_step::FAILURE);
    assert_panic_line(1, "job step", "(message withheld)");
    assert_eq!(RawJob::submit("resumed-panic").step(), job_step::FAILURE);
    assert_panic_line(2, "a thread of the plugin", ": literal");
    let job = RawJob::submit("stop");
    assert_eq!(job.stop(job_stop::PAUSED), PLUGIN);
    assert_eq!(job.stop(99), 3, "unknown reason");
    assert_panic_line(3, "job stop", "fault in stop");
    let job = RawJob::submit("reset");
    job.step();
    assert_eq!(job.reset(), PLUGIN);
    assert_panic_line(4, "job reset", "(message withheld)");

    // Getters that panic return the last known value.
    let job = RawJob::submit("progress");
    assert_eq!((job.progress(), job.step(), job.progress()), (0.0, job_step::CONTINUE, 0.0));
    assert_panic_line(5, "job progress", "(message withheld)");
    let job = RawJob::submit("content");
    job.step();
    assert_eq!(job.content(), json!({"Steps": 0}));
    assert_panic_line(6, "job content", "(message withheld)");
    let job = RawJob::submit("serialized");
    job.step();
    assert_eq!(job.serialized(), Some(json!({"Fault": "serialized", "Steps": 0})));
    assert_panic_line(7, "job serialization", "(message withheld)");

    assert!(RawJob::unserialize(c"Panic", &json!({})).is_none());
    assert_panic_line(8, "job unserializer", ": literal");
    let job = RawJob::submit("drop");
    job.step();
    job.finalize();
    assert_panic_line(9, "job finalize", "(message withheld)");
}

#[test]
fn invalid_values_of_a_job_are_replaced() {
    let _plugin = initialize();
    assert_eq!(RawJob::submit("array").content(), json!({}));
    assert_eq!(RawJob::submit("none").serialized(), None);
    let job = RawJob::submit("nan");
    job.step();
    assert_eq!(job.progress(), 0.0);
}

#[test]
fn getters_do_not_wait_for_a_step() {
    let _plugin = initialize();
    let job = &RawJob::submit("slow");
    thread::scope(|scope| {
        scope.spawn(move || job.step());
        thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        assert_eq!((job.content(), job.progress()), (json!({"Steps": 0}), 0.0));
        assert!(job.serialized().is_some());
        assert!(since.elapsed() < Duration::from_millis(100));
    });
    assert_eq!(job.content(), json!({"Steps": 1}));
}
