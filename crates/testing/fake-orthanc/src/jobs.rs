//! The plugin's jobs, run as Orthanc's jobs engine runs them.

use std::ffi::CString;
use std::ptr;

use orthanc_ffi::abi::{self, job_step, job_stop};
use serde_json::Value;

use crate::FakeOrthanc;
use crate::state::{State, code, next_id, text};

/// A job that the plugin has made.
pub(crate) struct JobRecord {
    callbacks: abi::CreateJob,
    job_type: String,
    submitted: Option<(String, i32)>,
}

/// What a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Its last step succeeded.
    Success,
    /// A step failed.
    Failure,
    /// It has further steps.
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
        let job_type = text(callbacks.kind);
        let target = callbacks.target;
        let number = next_id();
        self.jobs.lock().insert(number, JobRecord { callbacks, job_type, submitted: None });
        // SAFETY: the plugin's own variable.
        unsafe { target.write(ptr::without_provenance_mut(number)) };
        code::SUCCESS
    }

    pub(crate) fn free_job(&self, job: *mut abi::JobHandle) -> i32 {
        let record = self.jobs.lock().remove(&job.addr());
        let Some(record) = record else { return code::PARAMETER_OUT_OF_RANGE };
        finish(&record);
        code::SUCCESS
    }

    pub(crate) fn submit_job(&self, job: *mut abi::JobHandle, priority: i32) -> Option<String> {
        let mut jobs = self.jobs.lock();
        let record = jobs.get_mut(&job.addr())?;
        let id = format!("job-{}", job.addr());
        record.submitted = Some((id.clone(), priority));
        Some(id)
    }

    /// Ends all jobs, as Orthanc does before it finalises its plugins.
    pub(crate) fn finish_jobs(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock());
        jobs.values().for_each(finish);
    }
}

fn finish(record: &JobRecord) {
    if let Some(finalize) = record.callbacks.finalize {
        // SAFETY: the plugin's own job, which nobody uses any more.
        unsafe { finalize(record.callbacks.job) };
    }
}

/// A job of the plugin, as Orthanc sees it.
#[derive(Debug, Clone, Copy)]
pub struct TestJob<'a> {
    host: &'a FakeOrthanc,
    number: usize,
}

impl FakeOrthanc {
    /// The jobs that the plugin has submitted and that were not finished, oldest first.
    pub fn submitted_jobs(&self) -> Vec<TestJob<'_>> {
        let jobs = self.state.jobs.lock();
        let submitted = jobs.iter().filter(|(_, record)| record.submitted.is_some());
        let mut numbers: Vec<usize> = submitted.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| TestJob { host: self, number }).collect()
    }

    /// Remakes a job from its type and serialisation, to which Orthanc adds the type. `None`: the plugin does not want it.
    pub fn unserialize(&self, job_type: &str, serialized: &Value) -> Option<TestJob<'_>> {
        let unserializer = (*self.state.unserializer.lock())?;
        let mut serialized = serialized.clone();
        serialized.as_object_mut()?.insert("Type".to_owned(), job_type.into());
        let (job_type, text) = (CString::new(job_type).ok()?, CString::new(serialized.to_string()).ok()?);
        // SAFETY: the plugin's callback gets two strings that live until it returns.
        let job = unsafe { unserializer(job_type.as_ptr(), text.as_ptr()) };
        self.state.submit_job(job, 0)?;
        Some(TestJob { host: self, number: job.addr() })
    }
}

impl TestJob<'_> {
    /// A look at the record; `None` when the job has been finished.
    fn record<R>(&self, look: impl FnOnce(&JobRecord) -> R) -> Option<R> {
        self.host.state.jobs.lock().get(&self.number).map(look)
    }

    fn callback<F>(
        &self,
        choose: impl FnOnce(&abi::CreateJob) -> Option<F>,
    ) -> Option<(F, *mut std::ffi::c_void)> {
        self.record(|record| Some((choose(&record.callbacks)?, record.callbacks.job)))?
    }

    /// The id that Orthanc gave.
    pub fn id(&self) -> String {
        self.record(|record| record.submitted.clone().unwrap_or_default().0).unwrap_or_default()
    }

    /// The priority that the plugin asked for.
    pub fn priority(&self) -> i32 {
        self.record(|record| record.submitted.as_ref().map_or(0, |submitted| submitted.1)).unwrap_or_default()
    }

    /// The type.
    pub fn job_type(&self) -> String {
        self.record(|record| record.job_type.clone()).unwrap_or_default()
    }

    /// One step.
    pub fn step(&self) -> JobOutcome {
        let Some((step, job)) = self.callback(|callbacks| callbacks.step) else { return JobOutcome::Failure };
        // SAFETY: the plugin's own job.
        match unsafe { step(job) } {
            job_step::SUCCESS => JobOutcome::Success,
            job_step::CONTINUE => JobOutcome::Continue,
            _ => JobOutcome::Failure,
        }
    }

    /// Steps until the job ends or `max_steps` are done; after each, Orthanc's questions; at the end, stop.
    pub fn run_to_end(&self, max_steps: usize) -> JobOutcome {
        for _ in 0..max_steps {
            let outcome = self.step();
            let _ = (self.progress(), self.content(), self.serialized());
            let reason = match outcome {
                JobOutcome::Continue => continue,
                JobOutcome::Success => job_stop::SUCCESS,
                JobOutcome::Failure => job_stop::FAILURE,
            };
            // Orthanc ignores what stop returns.
            let _ = self.stop(reason);
            return outcome;
        }
        JobOutcome::Continue
    }

    /// Stops the job for one of `orthanc_ffi::abi::job_stop`.
    ///
    /// # Errors
    ///
    /// The plugin's error code.
    pub fn stop(&self, reason: i32) -> Result<(), i32> {
        let (stop, job) = self.callback(|callbacks| callbacks.stop).ok_or(code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: the plugin's own job.
        let returned = unsafe { stop(job, reason) };
        if returned == code::SUCCESS { Ok(()) } else { Err(returned) }
    }

    /// Starts a failed or cancelled job anew.
    ///
    /// # Errors
    ///
    /// The plugin's error code.
    pub fn reset(&self) -> Result<(), i32> {
        let (reset, job) = self.callback(|callbacks| callbacks.reset).ok_or(code::PARAMETER_OUT_OF_RANGE)?;
        // SAFETY: the plugin's own job.
        let returned = unsafe { reset(job) };
        if returned == code::SUCCESS { Ok(()) } else { Err(returned) }
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f32 {
        let Some((progress, job)) = self.callback(|callbacks| callbacks.get_progress) else { return 0.0 };
        // SAFETY: the plugin's own job.
        unsafe { progress(job) }
    }

    /// The content; null where the plugin gives none, or no JSON object.
    pub fn content(&self) -> Value {
        self.json(|callbacks| callbacks.get_content).unwrap_or_default()
    }

    /// The serialisation; `None` for a job that cannot be serialised.
    pub fn serialized(&self) -> Option<Value> {
        self.json(|callbacks| callbacks.get_serialized)
    }

    fn json(&self, choose: impl FnOnce(&abi::CreateJob) -> Option<abi::JobGetText>) -> Option<Value> {
        let (get, job) = self.callback(choose)?;
        // SAFETY: the plugin's own job.
        let json = unsafe { get(job) };
        serde_json::from_str(&text(json)).ok().filter(Value::is_object)
    }

    /// Ends the job, as Orthanc does when it leaves the history.
    pub fn finish(&self) {
        let _ = self.host.state.free_job(ptr::without_provenance_mut(self.number));
    }
}
