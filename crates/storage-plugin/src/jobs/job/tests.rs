//! Jobs over a computed index.

pub(crate) mod fake;
mod million;
mod reporting;

use std::sync::atomic::Ordering;

use bucket::{Cause, Operation, StorageError};
use hybrid::Side;

use self::fake::{Fake, Second, Shape, resource};
use super::*;
use crate::catalog::Level;
use crate::moving::resume_move;

/// What a saved job takes in addition to the ids of its request.
const STATE: usize = 64 * 1024;

fn job(fake: &Fake, requested: &[Resource]) -> StorageJob {
    with_scope(fake, Scope::resources(requested.to_vec()))
}

fn with_scope(fake: &Fake, scope: Scope) -> StorageJob {
    let mut job = StorageJob::new(fake.host.clone(), Arc::new(fake.clone()), scope);
    job.step = Duration::ZERO;
    job
}

fn patient() -> [Resource; 1] {
    [resource(Level::Patient, 0)]
}

/// What became of a job.
struct Ended {
    result: JobStep,
    steps: usize,
    /// Size of the largest saved state, in bytes.
    state: usize,
}

/// Calls steps until the job ends, and reads the state after each, as Orthanc does.
fn finish(job: &mut StorageJob) -> Ended {
    let mut ended = Ended { result: JobStep::Continue, steps: 0, state: 0 };
    while ended.result == JobStep::Continue {
        ended.result = job.step();
        ended.steps += 1;
        ended.state = ended.state.max(job.serialized().unwrap().to_string().len());
    }
    let succeeded = ended.result == JobStep::Success;
    job.stop(if succeeded { StopReason::Success } else { StopReason::Failure });
    ended
}

/// The job after a restart of Orthanc.
fn restarted(job: StorageJob, fake: &Fake) -> StorageJob {
    let saved = job.serialized().unwrap();
    drop(job);
    let scope = Scope::read(&saved["Content"]);
    let mut restored = resume(fake.host.clone(), Arc::new(fake.clone()), scope, &saved);
    assert_eq!(restored.serialized().unwrap(), saved);
    restored.step = Duration::ZERO;
    restored
}

fn error(cause: Cause) -> StorageError {
    StorageError::new(Operation::Read, "s3://bucket/OBJECT", cause)
}

/// Most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn cost_of_a_long_job_is_linear() {
    let shape = [10, 100, 100];
    let fake = Fake::new(shape);
    let mut job = job(&fake, &patient());
    job.step = Duration::from_millis(1);
    let Ended { result, state, .. } = finish(&mut job);
    assert_eq!(result, JobStep::Success);
    assert!(fake.handled_once(0..100_000));
    assert_eq!(job.content()["Handled"], 100_000);
    // Two calls for each attachment; three for each series, study and patient: to count, to list, and for
    // its own attachments.
    assert_eq!(fake.calls(), 2 * 100_000 + 3 * (1000 + 10 + 1));
    assert!(state < 1000, "{state}");
    #[cfg(target_os = "linux")]
    assert!(peak_memory() < 100_000_000, "{}", peak_memory());
}

/// The whole archive: in the long run, a million attachments of a hundred thousand patients.
#[test]
fn memory_of_a_job_for_everything_is_limited() {
    let is_long = std::env::var_os("ORTHANC_TESTS").is_some_and(|tests| tests == "long");
    let patients = if is_long { 100_000 } else { 10_000 };
    let instances = 10 * patients as usize;
    let mut fake = Fake::with_patients(patients, [1, 1, 10]);
    fake.counts_only = true;
    let mut job = with_scope(&fake, Scope::Everything);
    job.step = STEP;
    let Ended { result, state, .. } = finish(&mut job);
    assert_eq!(result, JobStep::Success);
    assert_eq!(job.content()["Handled"], instances);
    // The patients and their number; two calls for each attachment, and two for each series, study and patient.
    assert_eq!(fake.calls(), 2 + 2 * instances + 2 * 3 * patients as usize);
    assert!(state < 1000, "{state}");
    #[cfg(target_os = "linux")]
    assert!(peak_memory() < 100_000_000, "{}", peak_memory());
}

#[test]
fn long_request_adds_only_its_ids_to_the_state() {
    let shape = Shape([1, 1, 50_000]);
    let fake = Fake::new(shape.0);
    let instances: Vec<Resource> = (0..shape.instances()).map(|id| resource(Level::Instance, id)).collect();
    let mut job = job(&fake, &instances);
    // A step must be long: Orthanc reads the state after each.
    job.step = STEP;
    let Ended { result, steps, state } = finish(&mut job);
    assert_eq!(result, JobStep::Success);
    assert!(fake.handled_once(0..50_000));
    assert!(steps < 500, "{steps} steps are not much fewer than {} batches", 50_000 / 16);
    let ids = 47 * 50_000;
    assert!((ids..ids + STATE).contains(&state), "{state}");
    assert_eq!(fake.calls(), 3 * 50_000 + 2, "the third is for the parent");
    #[cfg(target_os = "linux")]
    assert!(peak_memory() < 100_000_000, "{}", peak_memory());
}

#[test]
fn restarted_job_continues_at_its_position() {
    let fake = Fake::new([2, 3, 20]);
    let mut job = job(&fake, &patient());
    while fake.instances().len() < 50 {
        assert_eq!(job.step(), JobStep::Continue);
    }
    while job.progress.done < 48 {
        assert_eq!(job.step(), JobStep::Continue);
    }
    let before = job.content();
    assert_eq!((&before["Handled"], &before["InstancesCount"]), (&json!(48), &json!(120)));
    // The series in progress is deleted, and resources before it and after it.
    for (level, instance) in [(Level::Series, 40), (Level::Instance, 7), (Level::Instance, 77)] {
        fake.rest.deleted.lock().insert(resource(level, instance));
    }
    fake.handled.lock().clear();
    let mut job = restarted(job, &fake);
    assert_eq!(job.content()["Handled"], 48);
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.handled_once((60..120).filter(|instance| *instance != 77)), "{:?}", fake.instances());
    assert_eq!(job.content()["Handled"], 48 + 59);
}

#[test]
fn job_can_be_interrupted_after_each_batch() {
    let fake = Fake::new([2, 2, 5]);
    let mut job = job(&fake, &patient());
    let mut restarts = 0;
    loop {
        let done = job.progress.done;
        if job.step() == JobStep::Success {
            break;
        }
        if job.progress.done > done {
            job = restarted(job, &fake);
            restarts += 1;
        }
    }
    assert!(fake.handled_once(0..20), "{:?}", fake.instances());
    assert_eq!((restarts, &job.content()["Handled"]), (2, &json!(20)));
}

#[test]
fn nested_resources_are_handled_once() {
    let fake = Fake::new([2, 2, 5]);
    let requested = [
        resource(Level::Study, 0),
        resource(Level::Series, 5),
        resource(Level::Instance, 3),
        resource(Level::Instance, 12),
    ];
    let mut job = job(&fake, &requested);
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.handled_once((0..10).chain([12])), "{:?}", fake.instances());
    assert_eq!(job.content()["InstancesCount"], 11);
    assert_eq!(job.content()["Resources"]["Series"].as_array().map(Vec::len), Some(1), "as requested");
}

#[test]
fn failures_do_not_end_the_job() {
    let fake = Fake::new([2, 10, 50]);
    *fake.error.lock() =
        |instance| (instance % 5 == 0).then(|| error(Cause::NotAcceptable("x".repeat(10_000))));
    let mut job = job(&fake, &patient());
    let Ended { result, state, .. } = finish(&mut job);
    assert_eq!(result, JobStep::Failure);
    assert!(fake.handled_once((0..1000).filter(|instance| instance % 5 != 0)));
    assert!(state < STATE, "{state}");
    let content = restarted(job, &fake).content();
    assert_eq!((&content["Handled"], &content["Failures"]), (&json!(800), &json!(200)));
    let failed = content["FailedAttachments"].as_array().unwrap();
    assert_eq!(failed.len(), 100);
    assert_eq!(failed[1]["Uuid"], "00000005-0000-4000-8000-000000000000");
    assert_eq!(failed[1]["Name"], "dicom");
    assert_eq!(failed[1]["Resource"], resource(Level::Instance, 5).to_string());
    assert!(failed[1]["Error"].as_str().unwrap().starts_with("cannot read s3://bucket/OBJECT: x"));
    let error = content["Error"].as_str().unwrap();
    assert!(error.contains("200; the first: attachment 00000000-0000-4000-8000-000000000000"), "{error}");
}

#[test]
fn resubmitted_job_tries_failures_again() {
    let fake = Fake::new([1, 1, 50]);
    *fake.error.lock() = |instance| (instance == 5).then(|| error(Cause::CopiesDiffer));
    let mut job = job(&fake, &patient());
    assert_eq!(finish(&mut job).result, JobStep::Failure);
    *fake.error.lock() = |_| None;
    job.reset();
    assert_eq!(job.content().get("Error"), None);
    assert_eq!(job.content()["Failures"], 0);
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.instances().contains(&5));
}

#[test]
fn job_gives_up_when_a_storage_does_not_work() {
    let fake = Fake::new([1, 1, 100]);
    *fake.error.lock() = |instance| (instance >= 32).then(|| error(Cause::Denied));
    let mut job = job(&fake, &patient());
    assert_eq!(finish(&mut job).result, JobStep::Failure);
    let error = job.content()["Error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("gave up after 32 of 100 instances"), "{error}");
    // To count and to list; for each of 48 attachments; to see whether the 16 still exist.
    assert_eq!(fake.calls(), 2 * 3 + 48 * 2 + 16);
    fake.handled.lock().clear();
    *fake.error.lock() = |_| None;
    let mut job = restarted(job, &fake);
    job.reset();
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.handled_once(32..100), "{:?}", fake.instances());
    assert_eq!((&job.content()["Handled"], &job.content()["Failures"]), (&json!(100), &json!(0)));
}

#[test]
fn job_does_not_give_up_because_of_attachments() {
    let fake = Fake::new([1, 1, 100]);
    *fake.error.lock() = |instance| (instance < 64).then(|| error(Cause::CopiesDiffer));
    let mut job = job(&fake, &patient());
    assert_eq!(finish(&mut job).result, JobStep::Failure);
    assert!(fake.handled_once(64..100), "{:?}", fake.instances());
}

#[test]
fn jobs_take_turns() {
    let fake = Fake::new([2, 2, 50]);
    let mut first = job(&fake, &patient());
    while fake.instances().is_empty() {
        first.step();
    }
    let mut second = job(&fake, &[resource(Level::Series, 50)]);
    fake.handled.lock().clear();
    while second.content().get("WaitingFor").is_none() {
        assert_eq!(second.step(), JobStep::Continue);
    }
    assert_eq!(second.step(), JobStep::Continue);
    assert!(fake.instances().is_empty());
    // A paused job does not hold up others, and waits for them when it is resumed.
    first.stop(StopReason::Paused);
    while second.content().get("WaitingFor").is_some() {
        assert_eq!(second.step(), JobStep::Continue);
    }
    while first.content().get("WaitingFor").is_none() {
        assert_eq!(first.step(), JobStep::Continue);
    }
    drop(second);
    assert_eq!(finish(&mut first).result, JobStep::Success);
    assert_eq!(first.content()["Handled"], 200);
}

#[test]
fn last_attachments_of_a_paused_job_end_first() {
    let fake = Fake::new([1, 1, 50]);
    fake.is_slow.store(true, Ordering::Relaxed);
    let mut first = job(&fake, &patient());
    while fake.instances().is_empty() {
        first.step();
    }
    first.stop(StopReason::Paused);
    let mut second = job(&fake, &patient());
    fake.is_slow.store(false, Ordering::Relaxed);
    while second.content().get("WaitingFor").is_none() {
        assert_eq!(second.step(), JobStep::Continue);
    }
    *fake.in_progress.lock() = None;
    assert_eq!(finish(&mut second).result, JobStep::Success);
}

#[test]
fn stopped_job_does_not_call_orthanc() {
    let fake = Fake::new([2, 2, 50]);
    let mut job = job(&fake, &patient());
    for _ in 0..20 {
        job.step();
    }
    fake.host.stop.now();
    let calls = fake.calls();
    assert_eq!(job.step(), JobStep::Continue);
    job.step = STEP;
    assert_eq!(job.step(), JobStep::Continue);
    assert_eq!(fake.calls(), calls);
}

#[test]
fn step_ends_in_time() {
    let fake = Fake::new([10, 100, 100]);
    let mut job = job(&fake, &patient());
    let calls = fake.calls();
    assert_eq!(job.step(), JobStep::Continue);
    assert!(fake.calls() <= calls + 4);
}

#[test]
fn jobs_of_earlier_plugins_start_again() {
    let study = resource(Level::Study, 0).id;
    let instances: Vec<String> = (0..4).map(|id| resource(Level::Instance, id).id).collect();
    let cpp = json!({
        "Type": "MoveStorage", "Content": {"Studies": [study]}, "Instances": instances, "TargetStorage": "file-system",
    });
    let without_resources = json!({"Content": {}, "Instances": instances, "TargetStorage": "file-system"});
    let earlier = json!({
        "Content": {"Resources": {"Studies": [study]}, "Handled": 2}, "TargetStorage": "file-system",
        "Instances": instances, "Parents": {"Studies": [study]}, "Position": 2,
    });
    for saved in [cpp, without_resources, earlier] {
        let fake = Fake::new([2, 2, 2]);
        let work = |target| -> Arc<dyn Work> {
            assert_eq!(target, Side::FileSystem);
            Arc::new(fake.clone())
        };
        let mut job = resume_move(fake.host.clone(), &saved, work).unwrap();
        assert_eq!(finish(&mut job).result, JobStep::Success);
        assert!(fake.handled_once(0..4), "{saved}: {:?}", fake.instances());
        assert_eq!(job.content()["Handled"], 4);
    }
}

#[test]
fn nothing_is_copied_to_a_target_that_is_too_small() {
    // Four series of five attachments, of ten bytes each.
    let series = |instance| resource(Level::Series, instance);
    let study = resource(Level::Study, 0);
    for (requested, size) in [
        (vec![series(0), series(5), series(10)], 150),
        // What is named twice counts once.
        (vec![study, series(0), resource(Level::Instance, 7)], 200),
    ] {
        for (capacity, result) in [(size, JobStep::Success), (size - 1, JobStep::Failure)] {
            let mut fake = Fake::new([1, 4, 5]);
            fake.capacity = Some(capacity);
            let mut job = job(&fake, &requested);
            assert_eq!(finish(&mut job).result, result);
            let expected = if result == JobStep::Success { size / 10 } else { 0 };
            assert_eq!(fake.instances().len() as u64, expected, "{requested:?}");
            assert_eq!(job.content()["Error"].is_string(), result == JobStep::Failure);
        }
    }
}
