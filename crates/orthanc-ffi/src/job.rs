//! Jobs: Orthanc's job callbacks, as calls to a [`Job`].
//!
//! Orthanc is given a number instead of an address for each job. So a callback for a job that is gone finds nothing,
//! instead of reading freed memory.
//!
//! Orthanc's getters return C strings that stay with the plugin, and Orthanc says nothing on how long it looks at them;
//! it may also ask while a step runs, from another thread and holding the lock of its jobs registry. Hence: a getter never
//! waits for a step (it answers what was last known), and a string stays valid until the same thread asks the same job for
//! it again, or the job ends.
//!
//! From SDK 1.11.3 there is a newer service (9004) whose getters fill buffers of Orthanc. It is not used: it would end
//! only a warning in newer hosts' logs, and the sources of an Orthanc that has it take the answer of the content's getter for
//! that of the serialisation, so that its jobs would not survive a restart.

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

/// What makes a job from its type and its serialisation.
pub(crate) type Unserializer = dyn Fn(&str, &serde_json::Value) -> Option<Box<dyn Job>> + Send + Sync;

/// A job for Orthanc's jobs engine, which calls [`step`](Self::step) until it is done.
///
/// Calls never overlap. Between two steps Orthanc saves the job, shows its progress, and looks whether a user wants it
/// paused or cancelled: keep steps short.
pub trait Job: Send + 'static {
    /// Does a part of the work.
    fn step(&mut self) -> JobStep;

    /// The job leaves the running state. After [`StopReason::Paused`] it may go on with further steps.
    fn stop(&mut self, reason: StopReason);

    /// A failed or cancelled job is started anew from its beginning.
    fn reset(&mut self);

    /// From 0 to 1.
    fn progress(&self) -> f32;

    /// What Orthanc shows as the job's content: a JSON object (anything else is shown as an empty one).
    fn content(&self) -> serde_json::Value;

    /// What [`Orthanc::register_job_unserializer`]'s closure makes the job from after a restart of Orthanc: a JSON object, or
    /// `None` for a job that ends with Orthanc. The field `Type` is Orthanc's, and left out.
    fn serialized(&self) -> Option<serde_json::Value>;
}

/// What a step of a job came to.
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
    /// It may go on later, also after a restart of Orthanc.
    Paused,
    /// A user cancelled it, and may start it anew.
    Canceled,
    /// It is done.
    Success,
    /// It failed, and a user may start it anew.
    Failure,
}

/// A job that Orthanc knows by its number.
pub(crate) struct JobSlot {
    job: Mutex<Box<dyn Job>>,
    /// What was last known, for getters while a step runs.
    known: Mutex<Known>,
    /// The strings that Orthanc may still look at.
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
            let progress = job.progress();
            let progress = if progress.is_finite() { progress.clamp(0.0, 1.0) } else { 0.0 };
            self.known.lock().progress = progress;
        }
        self.known.lock().progress
    }

    /// Asks the job for a text, unless a step is running.
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

    /// The last known text, at an address that holds until this thread asks again or the job ends.
    fn show(&self, text: Text) -> *const c_char {
        let known = self.known.lock();
        let current = match text {
            Text::Content => Some(known.content.clone()),
            Text::Serialized => known.serialized.clone(),
        };
        drop(known);
        let Some(current) = current else { return ptr::null() };
        let mut shown = self.shown.lock();
        let entry = shown.entry((thread::current().id(), text)).insert_entry(current);
        entry.get().as_ptr()
    }
}

/// The text of a JSON object without the field that is Orthanc's. JSON texts have no NUL characters.
fn json_object(value: Option<serde_json::Value>) -> Option<CString> {
    let serde_json::Value::Object(mut object) = value? else { return None };
    object.remove("Type");
    CString::new(serde_json::Value::Object(object).to_string()).ok()
}

/// Numbers of jobs; never used twice, not by a later generation either.
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl Orthanc {
    /// Gives a job to Orthanc's jobs engine; jobs of higher priority go first. Returns the job's id.
    ///
    /// # Errors
    ///
    /// What Orthanc returns; the job is dropped then.
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
            // Orthanc did not take the job, so it is still ours to free; freeing ends it through its own callback.
            let params = abi::FreeJob { job: handle };
            // SAFETY: the parameters are those of this service, and the job was not submitted.
            let _ = unsafe { self.invoke("FreeJob", service::FREE_JOB, &params) };
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

    /// Has Orthanc remake saved jobs through `unserializer`, which gets the job's type and what
    /// [`Job::serialized`] returned (with Orthanc's field `Type`), and answers `None` for types that it does not know.
    /// During `initialize` only.
    pub fn register_job_unserializer(
        &self,
        unserializer: impl Fn(&str, &serde_json::Value) -> Option<Box<dyn Job>> + Send + Sync + 'static,
    ) -> Result<(), OrthancError> {
        self.registrations().unserializer = Some(Arc::new(unserializer));
        let params = abi::RegisterJobsUnserializer { unserializer: Some(unserialize) };
        // SAFETY: the parameters are those of this service; the function lives as long as the library.
        unsafe { self.invoke("RegisterJobsUnserializer", service::REGISTER_JOBS_UNSERIALIZER, &params) }
    }

    /// Makes a job known to Orthanc, which ends it through `finalize`.
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
        // SAFETY: the parameters are those of this service; `handle` and `kind` outlive the call, the functions live as
        // long as the library.
        let created = unsafe { self.invoke("CreateJob", service::CREATE_JOB, &params) };
        let created = created.and_then(|()| match handle.is_null() {
            true => Err(OrthancError::Service { service: "CreateJob", code: ErrorCode::NULL_POINTER }),
            false => Ok(handle),
        });
        if created.is_err() {
            // Whether or not Orthanc has ended it already.
            drop(self.take_job(number));
        }
        created
    }

    fn take_job(&self, number: usize) -> Option<Arc<JobSlot>> {
        self.registrations().jobs.remove(&number)
    }
}

/// The job that Orthanc means, if it has not ended.
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
    let Some(slot) = slot(job) else { return 0.0 };
    let last = slot.known.lock().progress;
    guarded("job progress", last, || slot.progress())
}

unsafe extern "C" fn get_content(job: *mut c_void) -> *const c_char {
    text(job, "job content", Text::Content)
}

unsafe extern "C" fn get_serialized(job: *mut c_void) -> *const c_char {
    text(job, "job serialization", Text::Serialized)
}

/// Null is "nothing" to Orthanc: an empty content, or a job that cannot be serialised.
fn text(job: *mut c_void, callback: &'static str, text: Text) -> *const c_char {
    let Some(slot) = slot(job) else { return ptr::null() };
    // After a panic, what was last known is shown.
    guarded(callback, (), || slot.refresh(text));
    guarded(callback, ptr::null(), || slot.show(text))
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
    let reason = match reason {
        job_stop::SUCCESS => StopReason::Success,
        job_stop::PAUSED => StopReason::Paused,
        job_stop::FAILURE => StopReason::Failure,
        job_stop::CANCELED => StopReason::Canceled,
        _ => return ErrorCode::PARAMETER_OUT_OF_RANGE.as_raw(),
    };
    change(job, "job stop", |job| job.stop(reason))
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
    let job_type = unsafe { CStr::from_ptr(job_type) }.to_str().ok()?;
    // SAFETY: as above.
    let serialized = unsafe { CStr::from_ptr(serialized) };
    let serialized = serde_json::from_slice(serialized.to_bytes()).ok()?;
    let job = unserializer(job_type, &serialized)?;
    orthanc.create_job(job_type, job).ok()
}
