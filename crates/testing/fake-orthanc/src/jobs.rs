//! The plugin's jobs, called as Orthanc's jobs engine calls them.

use std::ffi::{CString, c_void};
use std::ptr;

use orthanc_ffi::abi::{self, job_step};
use serde_json::Value;

use crate::FakeOrthanc;
use crate::state::{State, code, next_id, result, text};

/// A job that the plugin has created.
pub(crate) struct JobRecord {
    callbacks: abi::CreateJob,
    /// The priority, once the plugin has submitted the job.
    priority: Option<i32>,
}

/// Result of a job's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// The last step succeeded.
    Success,
    /// The step failed.
    Failure,
    /// There are further steps.
    Continue,
}

impl State {
    pub(crate) fn create_job(&self, callbacks: abi::CreateJob) -> i32 {
        let complete = callbacks.finalize.is_some()
            && callbacks.get_progress.is_some()
            && callbacks.get_content.is_some()
            && callbacks.get_serialized.is_some()
            && callbacks.step.is_some()
            && callbacks.stop.is_some()
            && callbacks.reset.is_some();
        if !complete || callbacks.job.is_null() || callbacks.kind.is_null() || callbacks.target.is_null() {
            return code::NULL_POINTER;
        }
        let target = callbacks.target;
        let number = next_id();
        self.jobs.lock().insert(number, JobRecord { callbacks, priority: None });
        // SAFETY: `target` is the plugin's variable.
        unsafe { target.write(ptr::without_provenance_mut(number)) };
        code::SUCCESS
    }

    pub(crate) fn free_job(&self, job: *mut abi::JobHandle) -> i32 {
        let record = self.jobs.lock().remove(&job.addr());
        let Some(record) = record else { return code::PARAMETER_OUT_OF_RANGE };
        finalize(&record);
        code::SUCCESS
    }

    /// Returns the job's id.
    pub(crate) fn submit_job(&self, job: *mut abi::JobHandle, priority: i32) -> Option<String> {
        self.jobs.lock().get_mut(&job.addr())?.priority = Some(priority);
        Some(format!("job-{}", job.addr()))
    }

    /// Ends all jobs, as Orthanc does before it finalises its plugins.
    pub(crate) fn finalize_jobs(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock());
        jobs.values().for_each(finalize);
    }
}

fn finalize(record: &JobRecord) {
    if let Some(finalize) = record.callbacks.finalize {
        // SAFETY: the record was removed, so nothing uses the job afterwards.
        unsafe { finalize(record.callbacks.job) };
    }
}

/// A job of the plugin, as Orthanc sees it.
#[derive(Debug, Clone, Copy)]
pub struct TestJob<'a> {
    orthanc: &'a FakeOrthanc,
    number: usize,
}

impl FakeOrthanc {
    /// The jobs that the plugin has submitted and that have not ended, oldest first.
    pub fn submitted_jobs(&self) -> Vec<TestJob<'_>> {
        let jobs = self.state.jobs.lock();
        let submitted = jobs.iter().filter(|(_, record)| record.priority.is_some());
        let mut numbers: Vec<usize> = submitted.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| TestJob { orthanc: self, number }).collect()
    }

    /// Recreates a job from its type and serialization. `None`: the plugin refuses.
    pub fn unserialize(&self, job_type: &str, serialized: &Value) -> Option<TestJob<'_>> {
        let unserializer = (*self.state.unserializer.lock())?;
        let mut saved = serialized.clone();
        // Orthanc adds the type.
        saved.as_object_mut()?.insert("Type".to_owned(), job_type.into());
        let saved_text = CString::new(saved.to_string()).ok()?;
        let type_text = CString::new(job_type).ok()?;
        // SAFETY: both strings live until the plugin's callback returns.
        let job = unsafe { unserializer(type_text.as_ptr(), saved_text.as_ptr()) };
        self.state.submit_job(job, 0)?;
        Some(TestJob { orthanc: self, number: job.addr() })
    }
}

impl TestJob<'_> {
    /// One of the callbacks and the job that it takes; `None` when the job has ended.
    fn callback<F>(&self, choose: impl FnOnce(&abi::CreateJob) -> Option<F>) -> Option<(F, *mut c_void)> {
        let jobs = self.orthanc.state.jobs.lock();
        let callbacks = &jobs.get(&self.number)?.callbacks;
        Some((choose(callbacks)?, callbacks.job))
    }

    /// The priority that the plugin asked for.
    pub fn priority(&self) -> Option<i32> {
        self.orthanc.state.jobs.lock().get(&self.number)?.priority
    }

    /// Runs one step.
    pub fn step(&self) -> JobOutcome {
        let Some((step, job)) = self.callback(|callbacks| callbacks.step) else { return JobOutcome::Failure };
        // SAFETY: `job` is the plugin's job, which has not ended.
        match unsafe { step(job) } {
            job_step::SUCCESS => JobOutcome::Success,
            job_step::CONTINUE => JobOutcome::Continue,
            _ => JobOutcome::Failure,
        }
    }

    /// Stops the job for one of the reasons in `orthanc_ffi::abi::job_stop`.
    ///
    /// # Errors
    ///
    /// The plugin's error code.
    pub fn stop(&self, reason: i32) -> Result<(), i32> {
        let (stop, job) = self.callback(|callbacks| callbacks.stop).ok_or(code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: `job` is the plugin's job, which has not ended.
        result(unsafe { stop(job, reason) })
    }

    /// Prepares a failed or cancelled job to start again.
    ///
    /// # Errors
    ///
    /// The plugin's error code.
    pub fn reset(&self) -> Result<(), i32> {
        let (reset, job) = self.callback(|callbacks| callbacks.reset).ok_or(code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: `job` is the plugin's job, which has not ended.
        result(unsafe { reset(job) })
    }

    /// The progress, from 0 to 1.
    pub fn progress(&self) -> f32 {
        let Some((progress, job)) = self.callback(|callbacks| callbacks.get_progress) else { return 0.0 };
        // SAFETY: `job` is the plugin's job, which has not ended.
        unsafe { progress(job) }
    }

    /// The content; `None` where the plugin returns no JSON object.
    pub fn content(&self) -> Option<Value> {
        self.json(|callbacks| callbacks.get_content)
    }

    /// The serialization; `None` for a job that cannot be serialized.
    pub fn serialized(&self) -> Option<Value> {
        self.json(|callbacks| callbacks.get_serialized)
    }

    fn json(&self, choose: impl FnOnce(&abi::CreateJob) -> Option<abi::JobGetText>) -> Option<Value> {
        let (get, job) = self.callback(choose)?;
        // SAFETY: `job` is the plugin's job, which has not ended.
        let json = unsafe { get(job) };
        serde_json::from_str(&text(json)).ok().filter(Value::is_object)
    }
}
