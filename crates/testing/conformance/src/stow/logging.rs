//! No log line names an object of the gateway, whatever fails: names have UIDs.

use std::time::Duration;

use anyhow::{Result, ensure};
use fake_cloud::{Fault, FaultRule, Operation};
use real_orthanc::Builder;
use real_orthanc::dicom::{Study, uids};
use serde_json::json;

use super::client::send;
use super::failing::begin_large;
use super::gateway;
use super::large::unfinished_uploads;
use crate::Cloud;
use crate::fixture::{eventually, request, with};
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    Newest:
        log_names_no_object;
}

/// Maximum time until an event in the background.
const LIMIT: Duration = Duration::from_secs(30);

fn log_names_no_object<C: Cloud>() -> Result<()> {
    let others = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1, "OutageTimeout": 2});
    let options = with(gateway(&json!({})), &others);
    let mut fixture = Fixture::<C>::configured(&options, Builder::trace)?;
    // The first one is stored with one request, the second one in parts.
    let files = [slices(1, 1)?.remove(0), Study(2).multi_frame(9)?];
    let refused = || Fault::status(403, C::MISSING_PERMISSION);
    let fault = |fault: Fault| vec![FaultRule::new(fault).times(usize::MAX)];
    let on = |operation, fault: Fault| FaultRule::new(fault).times(usize::MAX).on(operation);
    // Azure never answers so: any status of success is one there.
    for (rules, statuses) in [
        (fault(refused()), &[409][..]),
        (fault(Fault::slow_down()), &[503]),
        (fault(Fault::CloseAfterRequestBytes(0)), &[503]),
        (vec![on(request::CREATE, Fault::CloseBeforeResponse)], &[200]),
        (vec![on(Operation::UploadPart, refused()), on(Operation::AbortMultipartUpload, refused())], &[202]),
        (
            vec![on(Operation::CompleteMultipartUpload, Fault::ErrorInSuccess("InternalError".into()))],
            &[202, 200],
        ),
    ] {
        rules.iter().for_each(|rule| drop(fixture.bucket.faults().push(rule.clone())));
        let answer = send(&fixture.orthanc, &files)?;
        ensure!(statuses.contains(&answer.status), "{} instead of {statuses:?}: {rules:?}", answer.status);
        fixture.bucket.faults().clear();
        // An upload succeeds, whatever its answer, if the bucket has the same object from an earlier one.
        fixture.bucket.clear();
    }

    // The audit, which reads an object without credentials, finds only objects of the gateway.
    let answer = send(&fixture.orthanc, &files)?;
    ensure!(answer.status == 200, "{answer:?}");
    let audit = fixture.rest().get("/object-storage/audit")?.ok()?;
    ensure!(audit.text().contains("no attachment is among the first objects"), "{}", audit.text());
    fixture.bucket.clear();

    // Killed during an upload in parts, which cannot be aborted at the next start, but at the one after that.
    let parts = || fixture.bucket.requests().of(Operation::UploadPart);
    let before = parts();
    let large = Study(3).multi_frame(16)?;
    let upload = begin_large(&fixture.orthanc, &files[0], &large)?;
    eventually("a part is stored", LIMIT, || parts() > before)?;
    let mut log = fixture.orthanc.log();
    fixture.bucket.faults().push(on(Operation::AbortMultipartUpload, refused()));
    fixture.start_again_with(&options)?;
    drop(upload);
    // Azure discards the parts by itself, so nothing can fail there.
    let warning = "unfinished upload remain for now";
    let success = "aborted an unfinished upload of ";
    let expected =
        if C::PARTS_CAN_BE_DROPPED { [warning, success] } else { [success, "Orthanc has started"] };
    eventually(expected[0], LIMIT, || fixture.orthanc.log().contains(expected[0]))?;
    log += &fixture.orthanc.log();
    fixture.bucket.faults().clear();
    fixture.start_again_with(&options)?;
    eventually(expected[1], LIMIT, || fixture.orthanc.log().contains(expected[1]))?;
    eventually("nothing is left", LIMIT, || unfinished_uploads(&fixture).is_empty())?;
    log += &fixture.orthanc.log();

    for text in ["path=…", "status=403", "Injected by the test server for "] {
        ensure!(log.contains(text), "the log is not verbose: it has no {text:?}");
    }
    for file in files.iter().chain([&large]) {
        for uid in uids(file)? {
            let line = log.lines().find(|line| line.contains(&uid));
            ensure!(line.is_none(), "{uid}: {line:?}");
        }
    }
    Ok(())
}
