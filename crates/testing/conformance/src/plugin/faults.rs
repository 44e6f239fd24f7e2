//! What goes wrong with single requests: what passes by itself is not seen by Orthanc, the rest is one clear error.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fake_cloud::{Fault, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, KEY, Setup, UUID, asks_for_patience, content, done, object_url, request, uuid};

tests![
    what_passes_by_itself_is_tried_again_and_not_seen_by_orthanc,
    a_stall_in_either_direction_ends_and_is_tried_again,
    what_lasts_is_one_error_line_with_operation_object_cause_status_and_request,
    a_broken_network_that_lasts_is_one_error_line_with_its_cause,
    what_no_repetition_heals_is_not_tried_again,
    a_server_that_asks_for_patience_gets_it,
    patience_that_leads_past_the_request_timeout_is_not_begun,
    the_request_timeout_bounds_an_operation_whatever_holds_it_up,
    a_stalled_request_does_not_hold_up_the_others,
    a_failed_create_has_let_go_of_its_content,
    the_request_timeout_bounds_the_wait_for_a_free_connection_too,
    a_slow_transfer_is_no_stall,
];

/// Bytes of the attachment.
const SIZE: usize = 1_000_000;

/// What error lines call an operation.
fn verb(operation: Operation) -> &'static str {
    match operation {
        request::CREATE => "store",
        request::REMOVE => "delete",
        _ => "read",
    }
}

/// Carries out one operation, and checks its effect where it succeeds.
fn operate<C: Cloud>(setup: &Setup<C>, operation: Operation) -> Result<Result<(), i32>> {
    let bytes = content(SIZE);
    let outcome = match operation {
        request::CREATE => setup.host.create(UUID, DICOM, &bytes),
        request::READ => setup.host.read_whole(UUID, DICOM).map(|read| assert!(read == bytes)),
        request::READ_RANGE => setup
            .host
            .read_range(UUID, DICOM, 1000, 900_000)
            .map(|read| assert!(read == bytes[1000..901_000])),
        request::REMOVE => setup.host.remove(UUID, DICOM),
        other => bail!("{other:?} is none of Orthanc's operations"),
    };
    if outcome.is_ok() {
        let stored = setup.server.object(C::BUCKET, KEY);
        match operation {
            request::REMOVE => assert!(stored.is_none()),
            _ => assert!(stored.is_some_and(|stored| stored.bytes == bytes)),
        }
    }
    Ok(outcome)
}

/// A plugin whose bucket has the attachment that `operation` needs.
fn prepare<C: Cloud>(setup: &Setup<C>, operation: Operation) {
    setup.server.faults().clear();
    setup.server.clear();
    // Creates the bucket again too.
    setup.server.insert(C::BUCKET, KEY, content(SIZE));
    if operation == request::CREATE {
        setup.server.remove(C::BUCKET, KEY);
    }
    setup.server.reset_counts();
}

/// Faults that one operation can meet and that pass by themselves. None makes the plugin wait for its timeout.
fn passing_faults(operation: Operation) -> Vec<Fault> {
    let mut faults: Vec<_> = [
        (408, "RequestTimeout"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (502, "BadGateway"),
        (503, "SlowDown"),
        (504, "GatewayTimeout"),
        (400, "RequestTimeout"),
    ]
    .map(|(status, code)| Fault::status(status, code))
    .into();
    faults.extend([Fault::CloseBeforeResponse, Fault::CloseAfterRequestBytes(0)]);
    match operation {
        request::CREATE => faults.push(Fault::CloseAfterRequestBytes(300_000)),
        request::READ | request::READ_RANGE => faults.extend([
            Fault::CloseAfterResponseBytes(0),
            Fault::CloseAfterResponseBytes(300_000),
            Fault::ResetAfterResponseBytes(300_000),
        ]),
        _ => {}
    }
    faults
}

fn what_passes_by_itself_is_tried_again_and_not_seen_by_orthanc<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    for operation in request::ALL {
        for fault in passing_faults(operation) {
            prepare(&setup, operation);
            let rule = setup.fault(operation, fault.clone(), 1);
            let outcome = operate(&setup, operation)?;
            assert_eq!(outcome, Ok(()), "{operation:?} with {fault:?}: {:#?}", setup.errors());
            assert_eq!((rule.fired(), setup.requests()), (1, 2), "{operation:?} with {fault:?}");
        }
    }
    assert_eq!(setup.errors(), [""; 0]);
    let warnings = setup.lines(LogLevel::Warning);
    assert_eq!(warnings.len(), 1, "only the one about patient data: {warnings:#?}");
    setup.check()
}

fn a_stall_in_either_direction_ends_and_is_tried_again<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"ConnectionTimeout": 1}))?;
    let silence = Fault::Delay(Duration::from_secs(20));
    for (operation, fault, requests) in [
        (request::CREATE, Fault::StallRequestAfter(0), 2),
        (request::CREATE, Fault::StallRequestAfter(100_000), 2),
        (request::CREATE, silence.clone(), 2),
        (request::READ, Fault::StallResponseAfter(0), 2),
        (request::READ, Fault::StallResponseAfter(300_000), 2),
        (request::READ_RANGE, Fault::StallResponseAfter(300_000), 2),
        (request::READ, silence.clone(), 2),
        (request::REMOVE, silence, 2),
    ] {
        prepare(&setup, operation);
        setup.fault(operation, fault.clone(), 1);
        let start = Instant::now();
        assert_eq!(operate(&setup, operation)?, Ok(()), "{operation:?} with {fault:?}");
        assert_eq!(setup.server.requests().total, requests, "{operation:?} with {fault:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{operation:?} with {fault:?}");
    }
    setup.check()
}

fn what_lasts_is_one_error_line_with_operation_object_cause_status_and_request<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"MaxRetries": 2}))?;
    for operation in request::ALL {
        for (status, code) in [(429, "TooManyRequests"), (500, "InternalError"), (503, "SlowDown")] {
            prepare(&setup, operation);
            setup.fault(operation, Fault::status(status, code), usize::MAX);
            let before = setup.errors().len();
            assert_eq!(operate(&setup, operation)?, Err(STORAGE_AREA_PLUGIN));
            assert_eq!(setup.requests(), 3, "{operation:?} with {status}");
            let errors = setup.errors().split_off(before);
            let beginning = format!(
                "cannot {} {}: the server cannot serve the request now (HTTP {status} \
                 {}: Injected by the test server, request ",
                verb(operation),
                object_url::<C>(KEY),
                C::error_code(code)
            );
            let [line] = errors.as_slice() else { bail!("not one line: {errors:#?}") };
            let rest = line.strip_prefix(&beginning).with_context(|| line.clone())?;
            let id = rest.strip_suffix("), after 3 attempts").with_context(|| line.clone())?;
            assert!(C::is_request_id(id), "{line}");
        }
    }
    setup.check()
}

fn a_broken_network_that_lasts_is_one_error_line_with_its_cause<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"MaxRetries": 1, "ConnectionTimeout": 1}))?;
    for operation in request::ALL {
        let mut faults = vec![
            (Fault::CloseBeforeResponse, "the connection broke: "),
            (Fault::CloseAfterRequestBytes(0), "the connection broke: "),
            (Fault::Delay(Duration::from_secs(20)), "nothing moved for 1 s, "),
        ];
        match operation {
            request::CREATE => {
                faults.push((Fault::StallRequestAfter(100_000), "nothing moved for 1 s, "));
            }
            request::READ | request::READ_RANGE => {
                faults.push((Fault::CloseAfterResponseBytes(0), "the connection broke: "));
                faults.push((Fault::StallResponseAfter(0), "nothing moved for 1 s, "));
            }
            _ => {}
        }
        for (fault, cause) in faults {
            prepare(&setup, operation);
            let before = setup.errors().len();
            // The rest of a whole read is asked for as a range.
            for request in request::ALL {
                setup.fault(request, fault.clone(), usize::MAX);
            }
            assert_eq!(operate(&setup, operation)?, Err(STORAGE_AREA_PLUGIN), "{operation:?} with {fault:?}");
            let errors = setup.errors().split_off(before);
            let beginning = format!("cannot {} {}: {cause}", verb(operation), object_url::<C>(KEY));
            assert_eq!(errors.len(), 1, "{operation:?} with {fault:?}: {errors:#?}");
            assert!(errors[0].starts_with(&beginning), "{operation:?} with {fault:?}: {errors:#?}");
            assert!(errors[0].ends_with("after 2 attempts"), "{operation:?} with {fault:?}: {errors:#?}");
            assert_eq!(setup.requests(), 2, "{operation:?} with {fault:?}");
        }
    }
    setup.check()
}

fn what_no_repetition_heals_is_not_tried_again<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    let denied = "access denied: check the credentials and their permissions on the bucket";
    let refused = "the server refused the request";
    for operation in request::ALL {
        for (status, code, cause) in [
            (400, "InvalidRequest", refused),
            (400, "ExpiredToken", denied),
            (403, "AccessDenied", denied),
            (403, "SignatureDoesNotMatch", denied),
            (405, "MethodNotAllowed", refused),
            (409, "OperationAborted", refused),
            (501, "NotImplemented", refused),
        ] {
            prepare(&setup, operation);
            setup.fault(operation, Fault::status(status, code), usize::MAX);
            let before = setup.errors().len();
            assert_eq!(
                operate(&setup, operation)?,
                Err(STORAGE_AREA_PLUGIN),
                "{operation:?} with {status} {code}"
            );
            assert_eq!(setup.requests(), 1, "{operation:?} with {status} {code}");
            let errors = setup.errors().split_off(before);
            let beginning = format!(
                "cannot {} {}: {cause} (HTTP {status} {}: ",
                verb(operation),
                object_url::<C>(KEY),
                C::error_code(code)
            );
            assert_eq!(errors.len(), 1, "{errors:#?}");
            assert!(errors[0].starts_with(&beginning) && errors[0].ends_with(')'), "{errors:#?}");
        }
    }
    for operation in [request::READ, request::READ_RANGE] {
        prepare(&setup, operation);
        setup.fault(operation, Fault::status(404, C::NO_SUCH_OBJECT), usize::MAX);
        assert_eq!(operate(&setup, operation)?, Err(INEXISTENT_FILE));
        assert_eq!(setup.requests(), 1);
    }
    setup.check()
}

fn a_server_that_asks_for_patience_gets_it<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    for operation in request::ALL {
        prepare(&setup, operation);
        setup.fault(operation, asks_for_patience(503, 1), 1);
        let start = Instant::now();
        assert_eq!(operate(&setup, operation)?, Ok(()));
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(setup.server.requests().total, 2);
    }
    setup.check()
}

fn patience_that_leads_past_the_request_timeout_is_not_begun<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"RequestTimeout": 60}))?;
    setup.fault(request::CREATE, asks_for_patience(503, 600), 1);
    let start = Instant::now();
    assert_eq!(operate(&setup, request::CREATE)?, Err(STORAGE_AREA_PLUGIN));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(setup.server.requests().total, 1);
    Ok(())
}

fn the_request_timeout_bounds_an_operation_whatever_holds_it_up<C: Cloud>() -> Result<()> {
    let setup =
        Setup::<C>::with(&json!({"RequestTimeout": 2, "ConnectionTimeout": 600, "MaxRetries": 1000}))?;
    for operation in request::ALL {
        let mut faults = vec![Fault::slow_down(), Fault::Delay(Duration::from_secs(60))];
        match operation {
            request::CREATE => faults.push(Fault::StallRequestAfter(100_000)),
            request::REMOVE => {}
            _ => faults.push(Fault::StallResponseAfter(100_000)),
        }
        for fault in faults {
            prepare(&setup, operation);
            setup.fault(operation, fault.clone(), usize::MAX);
            let before = setup.errors().len();
            let start = Instant::now();
            assert_eq!(operate(&setup, operation)?, Err(STORAGE_AREA_PLUGIN), "{operation:?} with {fault:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{operation:?} with {fault:?}");
            let errors = setup.errors().split_off(before);
            assert_eq!(errors.len(), 1, "{errors:#?}");
            if !matches!(fault, Fault::Status { .. }) {
                let cause = format!(
                    "cannot {} {}: not done within 2 s (RequestTimeout)",
                    verb(operation),
                    object_url::<C>(KEY)
                );
                assert!(errors[0].starts_with(&cause), "{errors:#?}");
            }
        }
    }
    setup.check()
}

fn a_stalled_request_does_not_hold_up_the_others<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    let hold = setup.server.hold_key(request::CREATE, KEY);
    std::thread::scope(|scope| -> Result<()> {
        let host = &setup.host;
        let stalled = scope.spawn(move || done(host.create(UUID, DICOM, &content(SIZE))));
        assert!(hold.wait_until(1, Duration::from_secs(30)));
        for number in 0..20 {
            done(setup.host.create(&uuid(number), DICOM, b"x"))?;
        }
        assert!(!stalled.is_finished());
        hold.release();
        stalled.join().map_err(|_| anyhow!("panicked"))?
    })?;
    assert_eq!(setup.stored().len(), 21);
    setup.check()
}

fn a_failed_create_has_let_go_of_its_content<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"MaxRetries": 0, "ConnectionTimeout": 1}))?;
    for (fault, bytes) in [
        (Fault::StallRequestAfter(1_000_000), 20_000_000),
        (Fault::StallRequestAfter(0), 20_000_000),
        (Fault::CloseAfterRequestBytes(1_000_000), 20_000_000),
        (Fault::slow_down(), 20_000_000),
    ] {
        setup.fault(request::CREATE, fault, 1);
        let mut bytes = content(bytes);
        assert_eq!(setup.host.create(UUID, DICOM, &bytes), Err(STORAGE_AREA_PLUGIN));
        // What Orthanc does next with its memory. Had a connection still a part of it, it would send this.
        bytes.fill(0xDD);
        drop(bytes);
        assert!(setup.server.object(C::BUCKET, KEY).is_none());
        done(setup.host.create(&uuid(1), DICOM, &content(1_000_000)))?;
        assert_eq!(done(setup.host.read_whole(&uuid(1), DICOM))?, content(1_000_000));
    }
    assert_eq!(setup.errors().len(), 4, "{:#?}", setup.errors());
    setup.check()
}

fn the_request_timeout_bounds_the_wait_for_a_free_connection_too<C: Cloud>() -> Result<()> {
    let setup =
        Setup::<C>::with(&json!({"RequestTimeout": 2, "ConnectionTimeout": 600, "MaxConnections": 1}))?;
    let hold = setup.server.hold(request::CREATE);
    std::thread::scope(|scope| -> Result<()> {
        let host = &setup.host;
        let start = Instant::now();
        let first = scope.spawn(move || host.create(UUID, DICOM, b"x"));
        assert!(hold.wait_until(1, Duration::from_secs(30)));
        assert_eq!(setup.host.create(&uuid(1), DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(first.join().map_err(|_| anyhow!("panicked"))?, Err(STORAGE_AREA_PLUGIN));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        Ok(())
    })?;
    hold.release();
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.check()
}

fn a_slow_transfer_is_no_stall<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"ConnectionTimeout": 3, "MaxRetries": 0}))?;
    let bytes = content(20_000_000);
    setup.server.bandwidth_per_connection(Some(4_000_000));
    let start = Instant::now();
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert!(start.elapsed() > Duration::from_secs(3), "it was not slow: {:?}", start.elapsed());
    let start = Instant::now();
    assert!(done(setup.host.read_whole(UUID, DICOM))? == bytes);
    assert!(start.elapsed() > Duration::from_secs(3), "it was not slow: {:?}", start.elapsed());
    assert_eq!(setup.server.requests().total, 2);
    setup.check()
}
