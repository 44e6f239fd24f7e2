//! `POST /object-storage/restore`.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule, Operation};
use real_orthanc::rest::Uploaded;
use real_orthanc::{Answer, Client};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::within;
use crate::hybrid::support::{JOB, content_of, expect_readable, upload, uuid_of};
use crate::orthanc::fixture::Fixture;

tests! {
    EveryCloud:
        archived_study_is_restored;
    Newest:
        waiting_restore_continues_after_a_restart,
        refused_object_does_not_fail_the_others;
    OneCloud:
        waiting_restore_can_be_cancelled_and_repeated,
}

const ROUTE: &str = "/object-storage/restore";

/// A study of which some objects are archived.
struct Archive<C> {
    fixture: Fixture<C>,
    sent: Vec<(Uploaded, Vec<u8>)>,
    study: String,
    /// The names of the archived objects, in order.
    archived: Vec<String>,
}

impl<C: Cloud> Archive<C> {
    /// A study of three instances, of which `count` are archived; `None` if the cloud has no archives.
    fn with(count: usize) -> Result<Option<Self>> {
        if !C::HAS_ARCHIVES {
            return Ok(None);
        }
        let fixture = Fixture::<C>::configured(&json!({}), |builder| {
            // Otherwise, Orthanc reads what it has received from its memory.
            builder.section("MaximumStorageCacheSize", 0)
        })?;
        let sent = upload(&fixture, 1, 3)?;
        let study = sent[0].0.study.clone();
        let mut archived = Vec::new();
        for (uploaded, _) in &sent[..count] {
            archived.push(format!("{}.dcm", uuid_of(&fixture, &uploaded.id)?));
        }
        archived.sort();
        let archive = Self { fixture, sent, study, archived };
        archive.archive();
        Ok(Some(archive))
    }

    fn archive(&self) {
        self.archived.iter().for_each(|name| self.fixture.bucket.archive(C::BUCKET, name));
    }

    fn restore(&self, body: &Value) -> Result<Answer> {
        self.fixture.rest().post_json(ROUTE, body)
    }

    /// Starts a job that waits, and returns its id when it does.
    fn start(&self) -> Result<String> {
        let answer = self.restore(&json!({"Resources": [self.study]}))?.ok()?.json()?;
        let job = answer["ID"].as_str().context("no ID")?.to_owned();
        self.expect_waiting(&job)?;
        Ok(job)
    }

    /// Waits until the job waits for the server, and holds no worker of Orthanc meanwhile.
    fn expect_waiting(&self, job: &str) -> Result<()> {
        let state = || self.fixture.rest().get_json(&format!("/jobs/{job}"));
        let waits = within(JOB, || {
            state().is_ok_and(|state| {
                state["State"] == "Paused"
                    && state["Content"]["WaitingFor"] == "the server is restoring objects"
            })
        });
        ensure!(waits, "{:#}", state()?);
        let restoring = self.fixture.bucket.restoring(C::BUCKET);
        ensure!(restoring == self.archived, "{restoring:?}");
        Ok(())
    }

    fn end_restores(&self) {
        self.archived.iter().for_each(|name| self.fixture.bucket.end_restore(C::BUCKET, name));
    }

    fn expect_success(&self, job: &str) -> Result<Value> {
        let ended = self.fixture.rest().wait_job(job, JOB)?;
        ensure!(ended["State"] == "Success", "{ended:#}");
        Ok(ended["Content"].clone())
    }

    /// Returns the values of a field of all attachments, by the names of their objects in order.
    fn locations(&self, field: &str) -> Result<Vec<Value>> {
        let path = format!("/object-storage/locations/{}", self.study);
        let mut locations = self.fixture.rest().get_json(&path)?.as_array().cloned().context("no list")?;
        locations.sort_by_key(|location| location["ObjectName"].to_string());
        let archived = |location: &&Value| {
            location["ObjectName"].as_str().is_some_and(|name| self.archived.iter().any(|key| key == name))
        };
        Ok(locations.iter().filter(archived).map(|location| location[field].clone()).collect())
    }

    fn restore_requests(&self) -> u64 {
        self.fixture.bucket.requests().of(Operation::RestoreObject)
    }
}

fn archived_study_is_restored<C: Cloud>() -> Result<()> {
    let Some(archive) = Archive::<C>::with(2)? else {
        let answer = Fixture::<C>::start()?.rest().post(ROUTE, b"")?;
        ensure!(
            answer.status == 400 && answer.text().contains("there is nothing to restore"),
            "{}",
            answer.text()
        );
        return Ok(());
    };
    let Archive { fixture, sent, .. } = &archive;
    ensure!(fixture.rest().get(ROUTE)?.status == 405);
    let refused = archive.restore(&json!({"Tier": "Tape"}))?;
    ensure!(refused.status == 400 && refused.text().contains("Tier must be one of"), "{}", refused.text());
    ensure!(fixture.rest().file(&sent[0].0.id).is_err());
    let errors = fixture.log_lines('E');
    ensure!(errors.iter().any(|line| line.contains("POST /object-storage/restore")), "{errors:#?}");
    ensure!(
        archive.locations("Archived")? == [true, true] && archive.locations("Restoring")? == [false, false]
    );

    let job = archive.start()?;
    ensure!(
        archive.locations("Archived")? == [true, true] && archive.locations("Restoring")? == [true, true]
    );
    // The job passes the first object, and waits for the other one.
    fixture.bucket.end_restore(C::BUCKET, &archive.archived[0]);
    archive.end_restores();
    let content = archive.expect_success(&job)?;
    ensure!(content["RestoresBegun"] == 2 && content["AlreadyReadable"] == 1, "{content:#}");
    ensure!(content["ReadableNow"] == 3 && content["Failures"] == 0, "{content:#}");
    expect_readable(fixture, sent)?;
    ensure!(archive.locations("Archived")? == [false, false] && archive.restore_requests() == 2);
    ensure!(
        archive.locations("RestoredUntil")?.iter().all(|until| until.is_string() == content["Days"].is_u64())
    );

    let content = archive.restore(&json!({"Resources": archive.study, "Synchronous": true}))?.ok()?.json()?;
    ensure!(content["AlreadyReadable"] == 3 && archive.restore_requests() == 2, "{content:#}");
    Ok(())
}

fn waiting_restore_continues_after_a_restart<C: Cloud>() -> Result<()> {
    let Some(mut archive) = Archive::<C>::with(2)? else { return Ok(()) };
    let job = archive.start()?;
    archive.fixture.restart()?;
    archive.expect_waiting(&job)?;
    archive.fixture.orthanc.kill()?;
    archive.fixture.orthanc.start_again()?;
    archive.expect_waiting(&job)?;
    archive.fixture.bucket.stop();
    archive.end_restores();
    archive.fixture.bucket.start_again()?;
    let content = archive.expect_success(&job)?;
    ensure!(content["RestoresBegun"] == 2 && content["ReadableNow"] == 3, "{content:#}");
    ensure!(archive.restore_requests() == 2);
    expect_readable(&archive.fixture, &archive.sent)
}

fn waiting_restore_can_be_cancelled_and_repeated<C: Cloud>() -> Result<()> {
    let Some(archive) = Archive::<C>::with(1)? else { return Ok(()) };
    let rest = archive.fixture.rest();
    let job = archive.start()?;
    // For example, since its copy was deleted before the job came back to it.
    archive.archive();
    let ended = rest.wait_job(&job, JOB)?;
    let content = &ended["Content"];
    ensure!(
        ended["State"] == "Failure" && content["StillArchived"] == 1 && content["Failures"] == 1,
        "{ended:#}"
    );

    let job = archive.start()?;
    rest.post(&format!("/jobs/{job}/cancel"), b"")?.ok()?;
    let ended = rest.wait_job(&job, JOB)?;
    ensure!(ended["State"] == "Failure", "{ended:#}");
    // The server goes on, and a synchronous call waits for the end.
    let patient = Client::with_timeout(archive.fixture.orthanc.url(), JOB);
    let body = json!({"Resources": archive.study, "Synchronous": true});
    let content = thread::scope(|scope| {
        let call = scope.spawn(|| patient.post_json(ROUTE, &body)?.ok()?.json());
        let is_paused = |job: &Value| job["State"] == "Paused" && job["Type"] == "RestoreStorage";
        let jobs = || rest.get_json("/jobs?expand");
        let waits = within(JOB, || {
            jobs().is_ok_and(|jobs| jobs.as_array().is_some_and(|jobs| jobs.iter().any(is_paused)))
        });
        archive.end_restores();
        ensure!(waits, "{:#}", jobs()?);
        call.join().map_err(|_| anyhow!("the call panicked"))?
    })?;
    ensure!(content["AlreadyRestoring"] == 1 && content["ReadableNow"] == 3, "{content:#}");
    ensure!(archive.restore_requests() == 2);
    ensure!(rest.get_json(&format!("/jobs/{job}"))?["State"] == "Failure", "the first job was resumed");
    Ok(())
}

fn refused_object_does_not_fail_the_others<C: Cloud>() -> Result<()> {
    let Some(archive) = Archive::<C>::with(3)? else { return Ok(()) };
    let refusal = Fault::status(403, C::MISSING_PERMISSION);
    let rule =
        FaultRule::new(refusal).on(Operation::RestoreObject).key(&archive.archived[1]).times(usize::MAX);
    archive.fixture.bucket.faults().push(rule);
    // Everything, without waiting.
    let answer = archive.restore(&json!({"Wait": false}))?.ok()?.json()?;
    let job = answer["ID"].as_str().context("no ID")?;
    let ended = archive.fixture.rest().wait_job(job, JOB)?;
    ensure!(ended["State"] == "Failure", "{ended:#}");
    let content = content_of(&archive.fixture, job)?;
    ensure!(content["RestoresBegun"] == 2 && content["Failures"] == 1, "{content:#}");
    let restoring = archive.fixture.bucket.restoring(C::BUCKET);
    ensure!(restoring == [archive.archived[0].as_str(), archive.archived[2].as_str()], "{restoring:?}");

    let report = archive.fixture.rest().get_json(&format!("/object-storage/reports/{job}"))?;
    let finding = &report["Findings"][0];
    let object = format!("{}/{}", C::URL, archive.archived[1]);
    ensure!(finding["Object"] == object.as_str() && finding["Problem"] == "not-restored", "{report:#}");
    let advice = finding["Advice"].as_str().unwrap_or_default();
    ensure!(advice.starts_with("restoring requires "), "{report:#}");

    archive.fixture.bucket.faults().clear();
    let answer = archive.restore(&json!({"Resources": [archive.study], "Wait": false}))?.ok()?.json()?;
    ensure!(answer["RestoresBegun"] == 1 && answer["AlreadyRestoring"] == 2, "{answer:#}");
    Ok(())
}
