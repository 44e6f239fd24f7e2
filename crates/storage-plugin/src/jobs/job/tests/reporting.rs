//! The reports of jobs.

use super::fake::with_reports;
use super::*;

#[test]
fn everything_is_handled_and_continued() {
    let mut fake = Fake::with_patients(40, [1, 1, 3]);
    let _folder = with_reports(&mut fake);
    *fake.error.lock() = |instance| (instance % 2 == 0).then(|| error(Cause::CopiesDiffer));
    let mut job = with_scope(&fake, Scope::Everything);
    job.watch().set_job_id("JOB");
    let mut restarts = 0;
    let result = loop {
        let done = job.progress.done;
        match job.step() {
            JobStep::Continue => {}
            result => break result,
        }
        if job.progress.done > done {
            // What a killed process has reported after it was saved last is not reported twice.
            let saved = restarted(job, &fake);
            let mut killed = restarted(saved, &fake);
            let before = killed.serialized().unwrap();
            while killed.progress.done < 110 && killed.serialized().unwrap()["Cursor"] == before["Cursor"] {
                killed.step();
            }
            fake.handled.lock().clear();
            let scope = Scope::read(&before["Content"]);
            job = resume(fake.host.clone(), Arc::new(fake.clone()), scope, &before);
            job.step = Duration::ZERO;
            restarts += 1;
        }
    };
    assert_eq!(result, JobStep::Failure);
    job.stop(StopReason::Failure);
    assert!(restarts > 3);
    let content = job.content();
    assert_eq!((&content["Handled"], &content["Failures"]), (&json!(60), &json!(60)));
    assert_eq!(content["InstancesCount"], 120);
    assert_eq!(content.get("Resources"), None);

    let reports = fake.host.reports.clone().unwrap();
    let page = reports.page("JOB", 0, 1000).unwrap().unwrap();
    let mut found: Vec<u32> =
        page.findings.iter().map(|finding| fake::number(finding["Resource"].as_str().unwrap())).collect();
    found.sort_unstable();
    assert!(found.into_iter().eq((0..120).step_by(2)));
    assert_eq!((&page.summary["State"], &page.summary["Findings"]), (&json!("Failure"), &json!(60)));
    assert_eq!(page.findings[0]["Problem"], "not-counted");
    let rest = reports.page("JOB", 50, 1000).unwrap().unwrap();
    assert_eq!(rest.findings, page.findings[50..]);
    assert_eq!(reports.page("other", 0, 10).unwrap(), None);
}

#[test]
fn job_starts_again_if_its_report_is_lost() {
    let mut fake = Fake::new([1, 1, 50]);
    let folder = with_reports(&mut fake);
    *fake.error.lock() = |_| Some(error(Cause::CopiesDiffer));
    let mut job = job(&fake, &patient());
    while job.progress.done < 32 {
        job.step();
    }
    let saved = job.serialized().unwrap();
    drop(job);
    for report in std::fs::read_dir(folder.path().join("0/reports")).unwrap() {
        std::fs::remove_file(report.unwrap().path()).unwrap();
    }
    *fake.error.lock() = |_| None;
    let scope = Scope::read(&saved["Content"]);
    let mut job = resume(fake.host.clone(), Arc::new(fake.clone()), scope, &saved);
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.handled_once(0..50));
}

/// Orthanc was killed after the job had ended, and before it saved that.
#[test]
fn job_that_has_succeeded_does_not_start_again() {
    let mut fake = Fake::new([1, 1, 50]);
    let _folder = with_reports(&mut fake);
    let mut ended = job(&fake, &patient());
    let without_id = ended.serialized().unwrap();
    ended.watch().set_job_id("JOB");
    let at_start = ended.serialized().unwrap();
    while ended.progress.done < 32 {
        ended.step();
    }
    let in_between = ended.serialized().unwrap();
    assert_eq!(finish(&mut ended).result, JobStep::Success);
    let reports = fake.host.reports.clone().unwrap();
    let report = reports.page("JOB", 0, 1000).unwrap();
    for saved in [without_id, at_start, in_between] {
        let scope = Scope::read(&saved["Content"]);
        let mut restored = resume(fake.host.clone(), Arc::new(fake.clone()), scope, &saved);
        let Ended { result, steps, .. } = finish(&mut restored);
        assert_eq!((result, steps), (JobStep::Success, 1));
        assert_eq!(restored.content(), ended.content());
        assert!((restored.progress() - 1.0).abs() < f32::EPSILON);
        assert_eq!(reports.page("JOB", 0, 1000).unwrap(), report);
        assert!(fake.handled_once(0..50));
    }
}

#[test]
fn last_reports_are_kept() {
    let mut fake = Fake::new([1, 1, 1]);
    let folder = with_reports(&mut fake);
    for number in 0..25 {
        let mut job = job(&fake, &patient());
        job.watch().set_job_id(&number.to_string());
        finish(&mut job);
    }
    let list = fake.host.reports.clone().unwrap().list().unwrap();
    let ids: Vec<&str> = list.iter().map(|summary| summary["JobId"].as_str().unwrap()).collect();
    assert_eq!(ids, (5..25).rev().map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(list[0]["State"], "Success");
    assert_eq!(std::fs::read_dir(folder.path().join("0/reports")).unwrap().count(), 40);
}

#[test]
fn second_pass_waits_for_attachments_and_is_continued() {
    let fake = Fake::new([1, 1, 40]);
    *fake.second.lock() = Some(Second { later: [20, 30].into(), handled: Vec::new() });
    let mut job = job(&fake, &patient());
    while job.content()["WaitingFor"].is_null() {
        assert_eq!(job.step(), JobStep::Continue);
    }
    assert!(fake.handled_once(0..40));
    // The first batch, and the two others of the second.
    let is_done = |instance: &u32| fake.second.lock().as_ref().unwrap().handled.contains(instance);
    assert!((0..32).all(|instance| is_done(&instance) != [20, 30].contains(&instance)));
    assert!(!is_done(&32));
    assert!(job.progress() > 0.5 && job.progress() < 1.0);
    assert_eq!(job.content()["Handled"], 40);

    job.stop(StopReason::Paused);
    let mut job = restarted(job, &fake);
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!((0..40).all(|instance| is_done(&instance)));
    assert!(fake.handled_once(0..40), "the first pass is not repeated");
    assert_eq!(job.content()["Handled"], 40, "handed back attachments do not count");
    assert_eq!(job.content()["Bytes"], 400 + 40);
}

#[test]
fn job_waits_without_work_until_attachments_are_due() {
    let fake = Fake::new([1, 1, 3]);
    *fake.second.lock() = Some(Second { later: [0, 1, 2].into(), handled: Vec::new() });
    let mut job = job(&fake, &patient());
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert_eq!(fake.second.lock().as_ref().unwrap().handled, [0, 1, 2]);
}

#[test]
fn only_jobs_that_need_their_report_fail_without_it() {
    for needs_report in [false, true] {
        let mut fake = Fake::new([1, 1, 3]);
        fake.needs_report = needs_report;
        let folder = with_reports(&mut fake);
        *fake.error.lock() = |instance| (instance == 0).then(|| error(Cause::CopiesDiffer));
        let own = std::fs::read_dir(folder.path()).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            path.is_dir().then_some(path)
        });
        let place = own.unwrap().join("reports");
        assert!(!place.exists());
        std::fs::write(&place, "in the place of the folder").unwrap();
        let mut job = with_scope(&fake, Scope::Everything);
        while job.step() == JobStep::Continue {}
        job.stop(StopReason::Failure);
        assert_eq!(fake.instances().is_empty(), needs_report);
        let expected = if needs_report { "cannot write the report" } else { "attachments that failed: 1" };
        let error = job.content()["Error"].to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Calls steps until the job has failed because of attachments, and counts them.
fn steps(job: &mut StorageJob) -> usize {
    let Ended { result, steps, .. } = finish(job);
    assert_eq!(result, JobStep::Failure);
    steps
}

#[test]
fn job_goes_on_until_missing_attachments_are_looked_up_again() {
    let looks = |fake: &Fake| fake.calls() - (3 * 3 + 2 * 1000);
    let damaged = Fake::new([1, 1, 1000]);
    *damaged.error.lock() = |_| Some(error(Cause::CopiesDiffer));
    let of_damaged = steps(&mut job(&damaged, &patient()));
    assert_eq!(looks(&damaged), 1000);

    let fake = Fake::new([1, 1, 1000]);
    *fake.error.lock() = |_| Some(error(Cause::NotFound));
    // Orthanc deletes three when they have been found once, and three when they have been found twice.
    let lives = [(1, 1), (17, 1), (999, 1), (2, 2), (18, 2), (998, 2)];
    fake.rest.looks_left.lock().extend(lives);
    let mut job = job(&fake, &patient());
    let of_missing = steps(&mut job);
    let content = job.content();
    assert_eq!((&content["Failures"], &content[crate::jobs::DELETED]), (&json!(994), &json!(6)));
    assert_eq!(looks(&fake), 2 * 1000 - 3);
    // Waiting is a step of a tenth of a second. The job waits for one second in total, and a moment for each of 63 batches;
    // a second for each batch would be 630 steps.
    assert!(of_missing <= of_damaged + 100, "{of_missing} and {of_damaged} steps");
}

#[test]
fn paused_job_keeps_what_is_missing() {
    let mut fake = Fake::new([1, 1, 100]);
    let _folder = with_reports(&mut fake);
    *fake.error.lock() = |_| Some(error(Cause::NotFound));
    let mut first = job(&fake, &patient());
    first.watch().set_job_id("JOB");
    // Four batches, each with a look at its attachments.
    while fake.calls() < 3 * 3 + 3 * 64 {
        assert_eq!(first.step(), JobStep::Continue);
    }
    first.stop(StopReason::Paused);
    assert_eq!(first.content()["Failures"], 64);
    let mut job = restarted(first, &fake);
    assert_eq!(finish(&mut job).result, JobStep::Failure);
    assert_eq!(job.content()["Failures"], 100);
    let page = fake.host.reports.clone().unwrap().page("JOB", 0, 1000).unwrap().unwrap();
    let found: Vec<u32> =
        page.findings.iter().map(|found| fake::number(found["Resource"].as_str().unwrap())).collect();
    assert!(found.iter().copied().eq(0..100), "each once, in their order: {found:?}");
}

#[test]
fn last_report_that_fits_is_found() {
    let mut fake = Fake::new([1, 1, 1]);
    let _folder = with_reports(&mut fake);
    for number in 0..3 {
        let mut job = job(&fake, &patient());
        job.watch().set_job_id(&number.to_string());
        finish(&mut job);
    }
    let reports = fake.host.reports.clone().unwrap();
    let read = Mutex::new(Vec::new());
    let fits = |summary: &Value| {
        read.lock().push(summary["JobId"].clone());
        summary["JobId"] == "1"
    };
    let found = reports.last(&["Fake"], fits).unwrap().unwrap();
    assert_eq!(found["JobId"], "1");
    assert_eq!(*read.lock(), ["2", "1"], "no earlier one is read");
    assert_eq!(reports.last(&["Other"], |_| true).unwrap(), None);
}

#[test]
fn job_that_was_cancelled_while_it_waited_starts_again() {
    let fake = Fake::new([1, 1, 40]);
    *fake.second.lock() = Some(Second { later: [20].into(), handled: Vec::new() });
    let mut job = job(&fake, &patient());
    while job.content()["WaitingFor"].is_null() {
        assert_eq!(job.step(), JobStep::Continue);
    }
    // Orthanc has paused the job meanwhile, cancels it without stopping it, and then resubmits it.
    job.reset();
    fake.handled.lock().clear();
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert!(fake.handled_once(0..40));
}

#[test]
#[cfg(unix)]
fn foreign_files_are_no_reports() {
    let mut fake = Fake::new([1, 1, 1]);
    let folder = with_reports(&mut fake);
    let mut job = job(&fake, &patient());
    job.watch().set_job_id("JOB");
    finish(&mut job);
    let reports = folder.path().join("0/reports");
    let path = |name: &str| reports.join(name);
    std::fs::create_dir(path("folder.json")).unwrap();
    std::os::unix::fs::symlink(path("loop.json"), path("loop.json")).unwrap();
    std::fs::write(path("other.json"), [0xff]).unwrap();
    std::fs::File::create(path("large.json")).unwrap().set_len(1 << 40).unwrap();
    // Reading a pipe without a writer would last for ever.
    let made = std::process::Command::new("mkfifo").arg(path("pipe.json")).status().unwrap();
    assert!(made.success());
    let list = fake.host.reports.clone().unwrap().list().unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["JobId"], "JOB");
}

#[test]
fn job_of_another_bucket_starts_again_and_its_census_does_not_count() {
    let mut fake = Fake::new([1, 1, 40]);
    let _folder = with_reports(&mut fake);
    fake.parameters.insert("Forms".to_owned(), json!([]));
    let reports = fake.host.reports.clone().unwrap();
    let mut job = with_scope(&fake, Scope::Everything);
    while job.progress.done < 32 {
        assert_eq!(job.step(), JobStep::Continue);
    }
    fake.host.place = "another bucket".into();
    fake.handled.lock().clear();
    let saved = job.serialized().unwrap();
    drop(job);
    let mut restored = resume(fake.host.clone(), Arc::new(fake.clone()), Scope::Everything, &saved);
    assert_eq!(finish(&mut restored).result, JobStep::Success);
    assert!(fake.handled_once(0..40), "{:?}", fake.instances());
    assert_eq!(reports.list().unwrap()[0]["Place"], "another bucket");
    assert!(reports.census(&["Fake"], "another bucket").unwrap().is_some());
    assert_eq!(reports.census(&["Fake"], "memory").unwrap(), None);
}

#[test]
fn small_jobs_do_not_evict_reports_of_unended_and_complete_ones() {
    let mut fake = Fake::with_patients(4, [1, 1, 10]);
    let _folder = with_reports(&mut fake);
    let reports = fake.host.reports.clone().unwrap();
    let run = |id: &str, scope: Scope| {
        let mut job = with_scope(&fake, scope);
        job.watch().set_job_id(id);
        finish(&mut job);
    };
    run("COMPLETE", Scope::Everything);
    let mut paused = with_scope(&fake, Scope::Everything);
    paused.watch().set_job_id("PAUSED");
    while paused.progress.done < 16 {
        assert_eq!(paused.step(), JobStep::Continue);
    }
    paused.stop(StopReason::Paused);
    let done = paused.progress.done;
    for number in 0..25 {
        run(&number.to_string(), Scope::resources(vec![resource(Level::Instance, 0)]));
    }
    let listed = |id: &str| reports.page(id, 0, 1).unwrap().is_some();
    assert!(listed("COMPLETE") && listed("PAUSED") && listed("24") && !listed("0"));
    fake.handled.lock().clear();
    assert_eq!(finish(&mut paused).result, JobStep::Success);
    assert_eq!(fake.instances().len() as u64, 40 - done, "the job continues");
}

#[test]
fn reports_of_lost_jobs_do_not_pile_up() {
    let mut fake = Fake::new([1, 1, 1]);
    let folder = with_reports(&mut fake);
    for _ in 0..110 {
        job(&fake, &patient()).step();
    }
    let files = std::fs::read_dir(folder.path().join("0/reports")).unwrap().count();
    assert_eq!(files, 2 * 100);
}

/// The state in the only report, after a comparison with Orthanc's jobs.
fn corrected_state(fake: &Fake) -> Value {
    let mut list = fake.host.reports.as_ref().unwrap().list().unwrap();
    fake.host.corrected(list.remove(0))["State"].take()
}

#[test]
fn paused_job_that_is_cancelled_is_reported() {
    let mut fake = Fake::new([1, 1, 40]);
    let _folder = with_reports(&mut fake);
    let mut job = job(&fake, &patient());
    job.watch().set_job_id("JOB");
    while job.progress.done < 16 {
        assert_eq!(job.step(), JobStep::Continue);
    }
    let set_job = |job: Value| fake.rest.jobs.lock().insert("JOB".to_owned(), job);
    // A job that rests is paused by the plugin.
    job.resting = Some(Duration::from_secs(60));
    job.stop(StopReason::Paused);
    set_job(json!({"State": "Paused", "ErrorCode": 0}));
    assert_eq!(corrected_state(&fake), "Paused");
    job.step();
    assert_eq!(corrected_state(&fake), "Running");
    job.resting = Some(Duration::from_secs(60));
    job.stop(StopReason::Paused);
    set_job(json!({"State": "Failure", "ErrorCode": 37}));
    assert_eq!(corrected_state(&fake), "Canceled");
    // Orthanc forgets the job.
    fake.rest.jobs.lock().clear();
    assert_eq!(corrected_state(&fake), "Canceled");
    // A resubmitted job writes its report again.
    job.reset();
    assert_eq!(finish(&mut job).result, JobStep::Success);
    assert_eq!(job.content()["Handled"], 40);
    assert_eq!(corrected_state(&fake), "Success");
}
