//! Jobs: Orthanc's job callbacks, as calls to a [`Job`].
//!
//! Orthanc gets a number instead of an address for each job, so a callback for an ended job finds nothing
//! instead of reading freed memory.
//!
//! The getters return C strings that the plugin owns, and the SDK does not say how long Orthanc uses them.
//! Orthanc may also call getters while a step runs, from another thread that holds the lock of the jobs
//! registry. So a getter never waits for a step, but returns the last known value, and a string stays valid
//! until the same thread gets it again from the same job or the job ends.
//!
//! The service `CreateJob2` (9004, from Orthanc 1.11.3) has getters that fill Orthanc's buffers. This crate does not
//! use it: with it, Orthanc 1.12.7 and 1.13.0 never call the getter of the serialization, and save no job. A job
//! must continue after a restart; a warning about the older service is the smaller evil.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

use crate::abi::{self, job_step, job_stop, service};
use crate::entry;
use crate::error::{ErrorCode, OrthancError, to_raw};
use crate::orthanc::{Orthanc, c_string};
use crate::panic::guarded;

/// The plugin's function that creates a job from its type and its serialization.
pub(crate) type Unserializer = dyn Fn(&str, &serde_json::Value) -> Option<Box<dyn Job>> + Send + Sync;

/// A job for Orthanc's jobs engine, which calls [`step`](Self::step) until the job is done.
///
/// Calls never overlap. Between two steps Orthanc saves the job, updates its progress, and pauses or
/// cancels it on request: keep steps short.
pub trait Job: Send + 'static {
    /// Does one portion of the work.
    fn step(&mut self) -> JobStep;

    /// Called when the job leaves the running state. After [`StopReason::Paused`], further steps may follow.
    fn stop(&mut self, reason: StopReason);

    /// Called before a failed or cancelled job starts again from the beginning.
    fn reset(&mut self);

    /// The progress, from 0 to 1.
    fn progress(&self) -> f32;

    /// The content that Orthanc shows: a JSON object. Any other value is shown as an empty object.
    fn content(&self) -> serde_json::Value;

    /// The JSON object from which [`Orthanc::register_job_unserializer`]'s closure recreates the job after
    /// a restart, or `None` for a job that ends with Orthanc. The field `Type` is reserved for Orthanc, and
    /// removed.
    fn serialized(&self) -> Option<serde_json::Value>;
}

/// Result of a job's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStep {
    /// The job is done.
    Success,
    /// The job has failed.
    Failure,
    /// There are further steps.
    Continue,
}

/// Why a job leaves the running state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The job may continue later, possibly after a restart of Orthanc.
    Paused,
    /// A user cancelled the job, and may start it again.
    Canceled,
    /// The job is done.
    Success,
    /// The job failed, and a user may start it again.
    Failure,
}

/// A job that Orthanc knows by its number.
pub(crate) struct JobSlot {
    job: Mutex<Box<dyn Job>>,
    /// The last known values, for getters that are called while a step runs.
    known: Mutex<Known>,
    /// The strings that Orthanc may still use.
    shown: Mutex<HashMap<(ThreadId, Text), CString>>,
}

#[derive(Clone)]
struct Known {
    progress: f32,
    content: CString,
    serialized: Option<CString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Text {
    Content,
    Serialized,
}

impl JobSlot {
    fn new(job: Box<dyn Job>) -> Self {
        let known = Mutex::new(Known { progress: 0.0, content: c"{}".to_owned(), serialized: None });
        let slot = Self { job: Mutex::new(job), known, shown: Mutex::default() };
        for text in [Text::Content, Text::Serialized] {
            slot.refresh(text);
        }
        slot
    }

    fn progress(&self) -> f32 {
        if let Some(job) = self.job.try_lock() {
            let reported = job.progress();
            self.known.lock().progress = if reported.is_finite() { reported.clamp(0.0, 1.0) } else { 0.0 };
        }
        self.known.lock().progress
    }

    /// Gets a text from the job, unless a step is running.
    fn refresh(&self, text: Text) {
        let Some(job) = self.job.try_lock() else { return };
        match text {
            Text::Content => {
                let content = json_object(Some(job.content())).unwrap_or_else(|| c"{}".to_owned());
                self.known.lock().content = content;
            }
            Text::Serialized => {
                let serialized = json_object(job.serialized());
                self.known.lock().serialized = serialized;
            }
        }
    }

    /// The last known text, at an address that stays valid until this thread calls this again or the job
    /// ends.
    fn show(&self, text: Text) -> *const c_char {
        let known = self.known.lock();
        let last = match text {
            Text::Content => Some(known.content.clone()),
            Text::Serialized => known.serialized.clone(),
        };
        drop(known);
        let Some(current) = last else { return ptr::null() };
        let mut shown = self.shown.lock();
        let entry = shown.entry((thread::current().id(), text)).insert_entry(current);
        entry.get().as_ptr()
    }
}

/// The text of a JSON object, without the field that is reserved for Orthanc. JSON escapes NUL characters.
fn json_object(value: Option<serde_json::Value>) -> Option<CString> {
    let serde_json::Value::Object(mut object) = value? else { return None };
    object.remove("Type");
    CString::new(serde_json::Value::Object(object).to_string()).ok()
}

/// The next job's number. Numbers are never reused, not even after the plugin is initialized again.
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl Orthanc {
    /// Submits a job to Orthanc's jobs engine, which runs jobs of higher priority first. Returns the job's
    /// id.
    ///
    /// # Errors
    ///
    /// Orthanc's error code; the job has been dropped.
    pub fn submit_job(
        &self,
        job_type: &str,
        job: Box<dyn Job>,
        priority: i32,
    ) -> Result<String, OrthancError> {
        let handle = self.create_job(job_type, job)?;
        let mut id: *mut c_char = ptr::null_mut();
        let params = abi::SubmitJob { result_id: &raw mut id, job: handle, priority };
        // SAFETY: the parameters are those of this service, and `id` outlives the call.
        if let Err(error) = unsafe { self.invoke("SubmitJob", service::SUBMIT_JOB, &params) } {
            // Orthanc did not take the job, so the plugin must free it, which calls `finalize`.
            let free_params = abi::FreeJob { job: handle };
            // SAFETY: the parameters are those of this service, and the job was not submitted.
            let _ = unsafe { self.invoke("FreeJob", service::FREE_JOB, &free_params) };
            return Err(error);
        }
        if id.is_null() {
            return Err(OrthancError::Service { service: "SubmitJob", code: ErrorCode::NULL_POINTER });
        }
        // SAFETY: on success the service set `id` to a NUL-terminated string that belongs to this plugin.
        let text = unsafe { CStr::from_ptr(id) }.to_string_lossy().into_owned();
        // SAFETY: `id` came from Orthanc, and is not used after this.
        unsafe { self.free(id.cast()) };
        Ok(text)
    }

    /// Registers the function that recreates saved jobs after a restart. Call it during `initialize` only.
    ///
    /// `unserializer` gets the job's type and the result of [`Job::serialized`] with Orthanc's field
    /// `Type`, and returns `None` for unknown types.
    ///
    /// # Errors
    ///
    /// Orthanc's error code.
    pub fn register_job_unserializer(
        &self,
        unserializer: impl Fn(&str, &serde_json::Value) -> Option<Box<dyn Job>> + Send + Sync + 'static,
    ) -> Result<(), OrthancError> {
        self.registrations().unserializer = Some(Arc::new(unserializer));
        let params = abi::RegisterJobsUnserializer { unserializer: Some(unserialize) };
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterJobsUnserializer", service::REGISTER_JOBS_UNSERIALIZER, &params) }
    }

    /// Registers a job with Orthanc, which ends it through `finalize`.
    fn create_job(&self, job_type: &str, job: Box<dyn Job>) -> Result<*mut abi::JobHandle, OrthancError> {
        let kind = c_string("the type of a job", job_type)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(JobSlot::new(job));
        self.registrations().jobs.insert(number, slot);
        let mut handle: *mut abi::JobHandle = ptr::null_mut();
        let params = abi::CreateJob {
            target: &raw mut handle,
            job: ptr::without_provenance_mut(number),
            finalize: Some(finalize),
            kind: kind.as_ptr(),
            get_progress: Some(get_progress),
            get_content: Some(get_content),
            get_serialized: Some(get_serialized),
            step: Some(step),
            stop: Some(stop),
            reset: Some(reset),
        };
        // SAFETY: the parameters are those of this service; `handle` and `kind` outlive the call, the
        // functions live as long as the library.
        let mut created = unsafe { self.invoke("CreateJob", service::CREATE_JOB, &params) };
        if created.is_ok() && handle.is_null() {
            created = Err(OrthancError::Service { service: "CreateJob", code: ErrorCode::NULL_POINTER });
        }
        if created.is_err() {
            // Orthanc may or may not have called `finalize`.
            drop(self.take_job(number));
        }
        created.map(|()| handle)
    }

    fn take_job(&self, number: usize) -> Option<Arc<JobSlot>> {
        self.registrations().jobs.remove(&number)
    }
}

/// The job with this number, if it has not ended.
fn slot(job: *mut c_void) -> Option<Arc<JobSlot>> {
    entry::current()?.registrations().jobs.get(&job.addr()).cloned()
}

unsafe extern "C" fn finalize(job: *mut c_void) {
    guarded("job finalize", (), || {
        let ended = entry::current().and_then(|orthanc| orthanc.take_job(job.addr()));
        drop(ended);
    });
}

unsafe extern "C" fn get_progress(job: *mut c_void) -> f32 {
    guarded("job progress", 0.0, || {
        let Some(slot) = slot(job) else { return 0.0 };
        let last = slot.known.lock().progress;
        guarded("job progress", last, || slot.progress())
    })
}

unsafe extern "C" fn get_content(job: *mut c_void) -> *const c_char {
    text(job, "job content", Text::Content)
}

unsafe extern "C" fn get_serialized(job: *mut c_void) -> *const c_char {
    text(job, "job serialization", Text::Serialized)
}

/// A text of a job. Orthanc takes null for empty content, or for a job that cannot be serialized.
fn text(job: *mut c_void, callback: &'static str, text: Text) -> *const c_char {
    // The outer guard covers the drop of a job that ends meanwhile.
    guarded(callback, ptr::null(), || {
        let Some(slot) = slot(job) else { return ptr::null() };
        // After a panic, the last known value is returned.
        guarded(callback, (), || slot.refresh(text));
        slot.show(text)
    })
}

unsafe extern "C" fn step(job: *mut c_void) -> i32 {
    guarded("job step", job_step::FAILURE, || {
        let Some(slot) = slot(job) else { return job_step::FAILURE };
        let result = slot.job.lock().step();
        match result {
            JobStep::Success => job_step::SUCCESS,
            JobStep::Failure => job_step::FAILURE,
            JobStep::Continue => job_step::CONTINUE,
        }
    })
}

unsafe extern "C" fn stop(job: *mut c_void, reason: i32) -> abi::RawErrorCode {
    let known = match reason {
        job_stop::SUCCESS => StopReason::Success,
        job_stop::PAUSED => StopReason::Paused,
        job_stop::FAILURE => StopReason::Failure,
        job_stop::CANCELED => StopReason::Canceled,
        _ => return ErrorCode::PARAMETER_OUT_OF_RANGE.as_raw(),
    };
    change(job, "job stop", |job| job.stop(known))
}

unsafe extern "C" fn reset(job: *mut c_void) -> abi::RawErrorCode {
    change(job, "job reset", |job| job.reset())
}

fn change(job: *mut c_void, callback: &'static str, body: impl FnOnce(&mut dyn Job)) -> abi::RawErrorCode {
    guarded(callback, ErrorCode::PLUGIN.as_raw(), || {
        let slot = slot(job).ok_or(ErrorCode::BAD_SEQUENCE_OF_CALLS);
        to_raw(slot.map(|slot| body(&mut **slot.job.lock())))
    })
}

unsafe extern "C" fn unserialize(job_type: *const c_char, serialized: *const c_char) -> *mut abi::JobHandle {
    guarded("job unserializer", ptr::null_mut(), || {
        // SAFETY: Orthanc passes two strings that outlive the callback.
        unsafe { try_unserialize(job_type, serialized) }.unwrap_or(ptr::null_mut())
    })
}

/// # Safety
///
/// Both must be null or NUL-terminated strings.
unsafe fn try_unserialize(job_type: *const c_char, serialized: *const c_char) -> Option<*mut abi::JobHandle> {
    let orthanc = entry::current()?;
    let unserializer = orthanc.registrations().unserializer.clone()?;
    if job_type.is_null() || serialized.is_null() {
        return None;
    }
    // SAFETY: not null, so a string by the caller's promise.
    let type_text = unsafe { CStr::from_ptr(job_type) }.to_str().ok()?;
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(serialized) };
    let saved = serde_json::from_slice(text.to_bytes()).ok()?;
    let job = unserializer(type_text, &saved)?;
    orthanc.create_job(type_text, job).ok()
}
