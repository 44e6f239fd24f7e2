//! What the scheduler does with jobs that do not run by themselves.

use std::cell::RefCell;

use orthanc_ffi::{Job as _, JobStep, StopReason};
use serde_json::json;

use super::*;
use crate::jobs::StorageJob;
use crate::jobs::fake::{Fake, with_reports};

/// An Orthanc, of which the scheduler sees the jobs.
struct FakeOrthanc {
    fake: Fake,
    database: &'static str,
    memory: RefCell<Memory>,
    /// Whether Orthanc refuses jobs.
    refuses: bool,
    submitted: RefCell<Vec<StorageJob>>,
    begun: RefCell<usize>,
    actions: RefCell<Vec<String>>,
}

impl FakeOrthanc {
    fn new(mut fake: Fake, database: &'static str) -> Self {
        fake.job_type = JOB_TYPE;
        fake.parameters.insert("Scheduled".to_owned(), json!(true));
        fake.parameters.insert("Database".to_owned(), json!(database));
        Self {
            fake,
            database,
            memory: RefCell::default(),
            refuses: false,
            submitted: RefCell::default(),
            begun: RefCell::default(),
            actions: RefCell::default(),
        }
    }

    fn set_state(&self, id: &str, state: &str) {
        let job = json!({"State": state, "ErrorCode": 0});
        self.fake.rest.jobs.lock().insert(id.to_owned(), job);
    }

    /// Looks some seconds from now.
    fn look(&self, is_open: bool, seconds: i64) {
        let now = Utc::now() + chrono::TimeDelta::seconds(seconds);
        let mut memory = self.memory.borrow_mut();
        memory.look(&self.fake.host, self, schedule(), self.database, is_open, now).unwrap();
    }

    /// Looks twice a minute for this time.
    fn look_until(&self, seconds: i64) {
        (0..seconds).step_by(30).for_each(|seconds| self.look(true, seconds));
    }
}

impl Jobs for FakeOrthanc {
    fn begin(&self, _: Depth, database: &str) -> Result<String, RestFailure> {
        assert_eq!(database, self.database);
        *self.begun.borrow_mut() += 1;
        if self.refuses {
            return Err(RestFailure::Status { status: 500, message: "refused".to_owned() });
        }
        let id = format!("{}-{}", self.database, self.begun.borrow());
        let job = StorageJob::new(self.fake.host.clone(), Arc::new(self.fake.clone()), Scope::Everything);
        job.watch().set_job_id(&id);
        self.submitted.borrow_mut().push(job);
        self.set_state(&id, "Pending");
        Ok(id)
    }

    fn control(&self, id: &str, action: &str) -> Result<(), String> {
        self.actions.borrow_mut().push(format!("{action} {id}"));
        Ok(())
    }
}

fn schedule() -> Schedule {
    Schedule { window: Window::parse("02:00-06:00").unwrap(), every: DAY * 30, depth: Depth::Checksum }
}

/// Runs a job to its end.
fn finish(job: &mut StorageJob) {
    while job.step() == JobStep::Continue {}
    job.stop(StopReason::Success);
}

#[test]
fn waiting_job_is_not_started_again() {
    let mut fake = Fake::new([1, 1, 3]);
    let _folder = with_reports(&mut fake);
    let orthanc = FakeOrthanc::new(fake, "A");
    orthanc.look_until(3 * 3600);
    assert_eq!(*orthanc.begun.borrow(), 1);
    // Orthanc is restarted before the job runs.
    *orthanc.memory.borrow_mut() = Memory::default();
    orthanc.look_until(3 * 3600);
    assert_eq!(*orthanc.begun.borrow(), 1);
    orthanc.look(false, 0);
    assert_eq!(*orthanc.actions.borrow(), ["pause A-1"]);
    orthanc.set_state("A-1", "Paused");
    orthanc.look(true, 0);
    assert_eq!(*orthanc.actions.borrow(), ["pause A-1", "resume A-1"]);
    // It is lost.
    orthanc.fake.rest.jobs.lock().clear();
    *orthanc.memory.borrow_mut() = Memory::default();
    orthanc.look(true, 0);
    assert_eq!(*orthanc.begun.borrow(), 2);
}

#[test]
fn orthancs_with_common_reports_verify_their_own_archives() {
    let mut fake = Fake::new([1, 1, 3]);
    let _folder = with_reports(&mut fake);
    let mut other = Fake::new([1, 1, 3]);
    other.host.reports.clone_from(&fake.host.reports);
    let mut orthancs = [FakeOrthanc::new(fake, "A"), FakeOrthanc::new(other, "B")];
    for _ in 0..2 {
        orthancs.iter().for_each(|orthanc| orthanc.look_until(3 * 3600));
        assert!(orthancs.iter().all(|orthanc| *orthanc.begun.borrow() == 1));
    }
    orthancs[0].submitted.borrow_mut().iter_mut().for_each(finish);
    orthancs[0].set_state("A-1", "Success");
    orthancs.iter().for_each(|orthanc| orthanc.look(true, 86_400));
    assert!(orthancs.iter().all(|orthanc| *orthanc.begun.borrow() == 1));
    // The verification of another bucket does not count.
    orthancs[0].fake.host.place = "another bucket".into();
    *orthancs[0].memory.borrow_mut() = Memory::default();
    orthancs[0].look(true, 0);
    assert_eq!(*orthancs[0].begun.borrow(), 2);
}

#[test]
fn failed_starts_are_rare() {
    let mut fake = Fake::new([1, 1, 3]);
    let folder = with_reports(&mut fake);
    let mut refusing = FakeOrthanc::new(fake.clone(), "A");
    refusing.refuses = true;
    refusing.look_until(3 * 3600);
    assert_eq!(*refusing.begun.borrow(), 3);
    // No report can be written.
    std::fs::write(folder.path().join("0/reports"), "").unwrap();
    let orthanc = FakeOrthanc::new(fake, "B");
    orthanc.look(true, 0);
    orthanc.fake.rest.jobs.lock().insert("B-1".to_owned(), json!({"State": "Failure", "ErrorCode": 1}));
    orthanc.look_until(3 * 3600);
    assert_eq!(
        (*orthanc.begun.borrow(), &*orthanc.actions.borrow()),
        (1, &vec!["resubmit B-1".to_owned(); 2])
    );
}

#[test]
fn cancelled_verification_is_not_resubmitted() {
    let mut fake = Fake::new([1, 1, 3]);
    let _folder = with_reports(&mut fake);
    let orthanc = FakeOrthanc::new(fake, "A");
    orthanc.look(true, 0);
    let mut jobs = orthanc.submitted.borrow_mut();
    jobs[0].step();
    jobs[0].stop(StopReason::Paused);
    orthanc.set_state("A-1", "Failure");
    orthanc.look_until(20 * 3600);
    assert_eq!((*orthanc.begun.borrow(), orthanc.actions.borrow().len()), (1, 0));
    drop(jobs);
    orthanc.look(true, 25 * 3600);
    assert_eq!(*orthanc.begun.borrow(), 2);
}

#[test]
fn window_may_contain_midnight() {
    let time = |text| NaiveTime::parse_from_str(text, "%H:%M").unwrap();
    for (window, inside, outside) in [
        ("02:00-06:00", ["02:00", "05:59"], ["01:59", "06:00"]),
        ("22:30 - 4:00", ["23:59", "00:00"], ["04:00", "22:29"]),
    ] {
        let window = Window::parse(window).unwrap();
        assert!(inside.iter().all(|inside| window.contains(time(inside))), "{window}");
        assert!(!outside.iter().any(|outside| window.contains(time(outside))), "{window}");
    }
    for text in ["", "02:00", "02:00-02:00", "2-6", "02:00-24:00", "02:00-06:00-07:00", "a-b"] {
        assert_eq!(Window::parse(text), None, "{text}");
    }
}

#[test]
fn each_state_has_its_action() {
    use Action::{Begin, Nothing, Pause, Resubmit, Resume};
    let schedule = schedule();
    let now = Utc::now();
    let id = || "ID".to_owned();
    // State, days since the start, hours since the end, the job's state; what to do in the window and outside.
    for (state, days, hours, job, open, closed) in [
        ("Success", 29, 1, None, Nothing, Nothing),
        ("Success", 30, 1, None, Begin, Nothing),
        ("Success", 1, 1, Some("Success"), Nothing, Nothing),
        ("Canceled", 0, 1, Some("Failure"), Nothing, Nothing),
        ("Canceled", 1, 24, Some("Failure"), Begin, Nothing),
        // It was paused for some days.
        ("Canceled", 3, 1, Some("Failure"), Nothing, Nothing),
        ("Running", 0, 0, Some("Running"), Nothing, Pause(id())),
        ("Running", 0, 0, Some("Pending"), Nothing, Pause(id())),
        ("Running", 40, 0, Some("Paused"), Resume(id()), Nothing),
        ("Paused", 3, 0, Some("Paused"), Resume(id()), Nothing),
        ("Paused", 3, 0, None, Begin, Nothing),
        // The report could not be written.
        ("Pending", 29, 0, Some("Success"), Nothing, Nothing),
        ("Pending", 30, 0, Some("Success"), Begin, Nothing),
        ("Running", 3, 0, None, Begin, Nothing),
        ("Failure", 0, 0, Some("Failure"), Nothing, Nothing),
        ("Failure", 0, 1, Some("Failure"), Resubmit(id()), Nothing),
        ("Failure", 0, 1, None, Begin, Nothing),
    ] {
        let last = Last {
            id: Some(id()),
            state: state.to_owned(),
            started: now - DAY * days,
            ended: Some(now - REST * hours),
        };
        for (is_open, expected) in [(true, open), (false, closed)] {
            let action = decide(schedule, is_open, now, Some(&last), job);
            assert_eq!(action, expected, "{last:?}, {job:?}, {is_open}");
        }
    }
    assert_eq!(decide(schedule, true, now, None, None), Begin);
    assert_eq!(decide(schedule, false, now, None, None), Nothing);
}
