//! Faults of single requests: Orthanc does not notice transient ones, and each other one is a single error
//! line.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use fake_cloud::{Fault, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, KEY, LoadedPlugin, UUID, content, object_url, request, retry_after, uuid};

tests! {
    EveryCloud:
        transient_faults_are_retried,
        lasting_faults_are_one_error_line,
        permanent_errors_are_not_retried,
        acknowledgement_may_take_longer_than_the_stall_limit;
    OneCloud:
        stalled_requests_are_retried,
        broken_network_is_one_error_line,
        retry_after_is_respected,
        retry_after_beyond_the_timeout_fails_at_once,
        request_timeout_limits_every_operation,
        request_timeout_includes_the_queue,
        failed_create_releases_its_content,
        slow_transfer_is_not_a_stall,
}

/// Bytes of the attachment.
const SIZE: usize = 1_000_000;
/// Bytes of an attachment that the buffers of the system and the server cannot hold.
const LARGER_THAN_BUFFERS: usize = 15_000_000;

/// Runs one operation and checks its effect if it succeeds.
fn operate<C: Cloud>(plugin: &LoadedPlugin<C>, operation: Operation) -> Result<Result<(), i32>> {
    let bytes = content(SIZE);
    let orthanc = &plugin.orthanc;
    let outcome = match operation {
        request::CREATE => orthanc.create(UUID, DICOM, &bytes),
        request::READ => orthanc.read_whole(UUID, DICOM).map(|read| assert!(read == bytes)),
        request::READ_RANGE => {
            let range = orthanc.read_range(UUID, DICOM, 1000, 900_000);
            range.map(|read| assert!(read == bytes[1000..901_000]))
        }
        other => bail!("{other:?} is not a callback"),
    };
    if outcome.is_ok() {
        let stored = plugin.server.object(C::BUCKET, KEY);
        assert!(stored.is_some_and(|stored| stored.bytes == bytes));
    }
    Ok(outcome)
}

/// Prepares the bucket for `operation`.
fn prepare<C: Cloud>(plugin: &LoadedPlugin<C>, operation: Operation) {
    plugin.server.faults().clear();
    // What a failed store may have left is deleted.
    plugin.settle();
    plugin.server.clear();
    // Also creates the bucket again.
    plugin.insert(KEY, content(SIZE));
    if operation == request::CREATE {
        plugin.server.remove(C::BUCKET, KEY);
    }
    plugin.server.reset_counts();
}

/// Checks that `operation` fails while all its requests meet `fault`. Returns the one error line, which names
/// the object, and the number of requests.
fn failure<C: Cloud>(plugin: &LoadedPlugin<C>, operation: Operation, fault: &Fault) -> Result<(String, u64)> {
    prepare(plugin, operation);
    plugin.fault(operation, fault.clone(), usize::MAX);
    if operation == request::READ {
        // The rest of an interrupted whole read is a range.
        plugin.fault(request::READ_RANGE, fault.clone(), usize::MAX);
    }
    assert_eq!(operate(plugin, operation)?, Err(STORAGE_AREA_PLUGIN), "{operation:?} with {fault:?}");
    let line = plugin.new_error()?;
    assert!(line.contains(&object_url::<C>(KEY)), "{operation:?} with {fault:?}: {line}");
    Ok((line, plugin.requests()))
}

/// Transient faults of an operation that do not make the plugin wait for its timeout.
fn transient_faults(operation: Operation) -> Vec<Fault> {
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

fn transient_faults_are_retried<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for operation in request::ALL {
        for fault in transient_faults(operation) {
            prepare(&plugin, operation);
            let rule = plugin.fault(operation, fault.clone(), 1);
            let outcome = operate(&plugin, operation)?;
            assert_eq!(outcome, Ok(()), "{operation:?} with {fault:?}: {:#?}", plugin.errors());
            assert_eq!((rule.fired(), plugin.requests()), (1, 2), "{operation:?} with {fault:?}");
        }
    }
    assert_eq!(plugin.errors(), [""; 0]);
    let warnings = plugin.lines(LogLevel::Warning);
    assert_eq!(warnings.len(), 1, "only the one about missing encryption: {warnings:#?}");
    plugin.check()
}

fn stalled_requests_are_retried<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"ConnectionTimeout": 1}))?;
    let silence = Fault::Delay(Duration::from_secs(20));
    for (operation, fault) in [
        (request::READ, Fault::StallResponseAfter(0)),
        (request::READ_RANGE, Fault::StallResponseAfter(300_000)),
        (request::READ, silence),
    ] {
        prepare(&plugin, operation);
        plugin.fault(operation, fault.clone(), 1);
        let start = Instant::now();
        assert_eq!(operate(&plugin, operation)?, Ok(()), "{operation:?} with {fault:?}");
        assert_eq!(plugin.requests(), 2, "{operation:?} with {fault:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{operation:?} with {fault:?}");
    }
    for fault in [Fault::StallRequestAfter(0), Fault::StallRequestAfter(100_000)] {
        prepare(&plugin, request::CREATE);
        plugin.fault(request::CREATE, fault.clone(), 1);
        let start = Instant::now();
        plugin.create(UUID, &content(LARGER_THAN_BUFFERS))?;
        assert_eq!(plugin.requests(), 2, "{fault:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{fault:?}");
    }
    plugin.check()
}

fn acknowledgement_may_take_longer_than_the_stall_limit<C: Cloud>() -> Result<()> {
    let options = json!({"ConnectionTimeout": 1, "MaxRetries": 0, "TransferPoolSize": 4});
    let plugin = LoadedPlugin::<C>::with(&options)?;
    // A slow line, so that the second upload is sent in parts.
    plugin.server.bandwidth_per_connection(Some(12_000_000));
    for size in [20_000_000, 20_000_001] {
        for operation in [
            Operation::PutObject,
            Operation::CreateMultipartUpload,
            Operation::UploadPart,
            Operation::CompleteMultipartUpload,
        ] {
            plugin.fault(operation, Fault::Delay(Duration::from_secs(3)), 1);
        }
        plugin.create(UUID, &content(size))?;
        assert!(plugin.server.object(C::BUCKET, KEY).is_some_and(|stored| stored.bytes == content(size)));
        plugin.server.faults().clear();
    }
    assert_eq!(plugin.server.requests().of(Operation::CompleteMultipartUpload), 1);
    plugin.check()
}

fn lasting_faults_are_one_error_line<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 2}))?;
    for operation in request::ALL {
        for (status, code) in [(429, "TooManyRequests"), (500, "InternalError"), (503, "SlowDown")] {
            let (line, requests) = failure(&plugin, operation, &Fault::status(status, code))?;
            // After three attempts, a look for an object whose confirmation was lost, and its deletion.
            let doubts = u64::from(operation == request::CREATE && status != 429);
            assert_eq!(requests, 3 + 2 * doubts, "{line}");
            let answer = format!("HTTP {status} {}", C::error_code(code));
            assert!(line.contains(&answer) && line.contains("3 attempts"), "{line}");
            let has_id = line.split([' ', ')', ',', ';']).any(C::is_request_id);
            assert!(has_id, "no request id: {line}");
        }
    }
    plugin.check()
}

fn broken_network_is_one_error_line<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 1, "ConnectionTimeout": 1}))?;
    for operation in request::ALL {
        let unanswered = [(Fault::CloseBeforeResponse, ""), (Fault::Delay(Duration::from_secs(20)), "1 s")];
        let mut faults = vec![(Fault::CloseAfterRequestBytes(0), "")];
        match operation {
            // An upload that was carried out without an answer has not failed.
            request::CREATE => {}
            request::READ | request::READ_RANGE => faults
                .extend([(Fault::CloseAfterResponseBytes(0), ""), (Fault::StallResponseAfter(0), "1 s")]),
            _ => {}
        }
        if operation != request::CREATE {
            faults.extend(unanswered);
        }
        for (fault, cause) in faults {
            let (line, requests) = failure(&plugin, operation, &fault)?;
            assert!(line.contains(cause) && line.contains("2 attempts"), "{fault:?}: {line}");
            let doubts = u64::from(operation == request::CREATE);
            assert_eq!(requests, 2 + 2 * doubts, "{fault:?}: {line}");
        }
    }
    plugin.check()
}

fn permanent_errors_are_not_retried<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for operation in request::ALL {
        for (status, code) in [
            (400, "InvalidRequest"),
            (400, "ExpiredToken"),
            (403, "AccessDenied"),
            (403, "SignatureDoesNotMatch"),
            (405, "MethodNotAllowed"),
            (409, "OperationAborted"),
            (501, "NotImplemented"),
        ] {
            let (line, requests) = failure(&plugin, operation, &Fault::status(status, code))?;
            let answer = format!("HTTP {status} {}", C::error_code(code));
            assert!(line.contains(&answer) && !line.contains("attempts"), "{line}");
            assert_eq!(requests, 1, "{line}");
            // Users must be able to distinguish wrong credentials from other refusals.
            let is_denied = status == 403 || code == "ExpiredToken";
            assert_eq!(line.contains("denied"), is_denied, "{line}");
        }
    }
    // The first read looks for the names of two other configurations.
    for (operation, requests) in [(request::READ, 3), (request::READ_RANGE, 1)] {
        prepare(&plugin, operation);
        plugin.fault(operation, Fault::status(404, C::NO_SUCH_OBJECT), usize::MAX);
        assert_eq!(operate(&plugin, operation)?, Err(INEXISTENT_FILE));
        assert_eq!(plugin.requests(), requests);
    }
    plugin.check()
}

fn retry_after_is_respected<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for (operation, status) in request::ALL.into_iter().zip([503, 429, 503]) {
        prepare(&plugin, operation);
        plugin.fault(operation, retry_after(status, 1), 1);
        let start = Instant::now();
        assert_eq!(operate(&plugin, operation)?, Ok(()));
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(plugin.requests(), 2);
    }
    plugin.check()
}

fn retry_after_beyond_the_timeout_fails_at_once<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"RequestTimeout": 60}))?;
    for seconds in [600, 9_999_999_999_999_999_999, u64::MAX] {
        for operation in request::ALL {
            let start = Instant::now();
            let (line, requests) = failure(&plugin, operation, &retry_after(429, seconds))?;
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
            assert_eq!(requests, 1);
            assert!(line.contains("HTTP 429"), "{line}");
        }
    }
    plugin.check()
}

fn request_timeout_limits_every_operation<C: Cloud>() -> Result<()> {
    let options = json!({"RequestTimeout": 2, "ConnectionTimeout": 600, "MaxRetries": 1000});
    let plugin = LoadedPlugin::<C>::with(&options)?;
    for operation in request::ALL {
        let stall = match operation {
            request::CREATE => Fault::StallRequestAfter(100_000),
            _ => Fault::StallResponseAfter(100_000),
        };
        let silence = match operation {
            request::CREATE => Fault::StallRequestAfter(0),
            _ => Fault::Delay(Duration::from_secs(60)),
        };
        for fault in [stall, silence] {
            let start = Instant::now();
            let (line, _) = failure(&plugin, operation, &fault)?;
            assert!(start.elapsed() < Duration::from_secs(10), "{operation:?} with {fault:?}");
            if !matches!(fault, Fault::Status { .. }) {
                assert!(line.contains("2 s") && line.contains("RequestTimeout"), "{line}");
            }
        }
    }
    plugin.check()
}

fn request_timeout_includes_the_queue<C: Cloud>() -> Result<()> {
    let options = json!({"RequestTimeout": 2, "ConnectionTimeout": 600, "MaxConnections": 1});
    let plugin = LoadedPlugin::<C>::with(&options)?;
    let hold = plugin.server.hold(request::CREATE);
    thread::scope(|scope| -> Result<()> {
        let start = Instant::now();
        let first = scope.spawn(|| plugin.orthanc.create(UUID, DICOM, b"x"));
        assert!(hold.wait_until(1, Duration::from_secs(30)));
        assert_eq!(plugin.orthanc.create(&uuid(1), DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(first.join().map_err(|_| anyhow!("panicked"))?, Err(STORAGE_AREA_PLUGIN));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        Ok(())
    })?;
    hold.release();
    plugin.create(UUID, b"x")?;
    plugin.check()
}

fn failed_create_releases_its_content<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 0, "ConnectionTimeout": 1}))?;
    for fault in [
        Fault::StallRequestAfter(1_000_000),
        Fault::StallRequestAfter(0),
        Fault::CloseAfterRequestBytes(1_000_000),
        Fault::slow_down(),
    ] {
        plugin.fault(request::CREATE, fault, 1);
        let mut bytes = content(20_000_000);
        assert_eq!(plugin.orthanc.create(UUID, DICOM, &bytes), Err(STORAGE_AREA_PLUGIN));
        // Orthanc reuses its memory. A connection that still read from it would send these bytes.
        bytes.fill(0xDD);
        drop(bytes);
        assert!(plugin.server.object(C::BUCKET, KEY).is_none());
        plugin.create(&uuid(1), &content(1_000_000))?;
        assert_eq!(plugin.read(&uuid(1))?, content(1_000_000));
        plugin.new_error()?;
    }
    plugin.check()
}

fn slow_transfer_is_not_a_stall<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"ConnectionTimeout": 3, "MaxRetries": 0}))?;
    let bytes = content(20_000_000);
    plugin.server.bandwidth_per_connection(Some(4_000_000));
    let start = Instant::now();
    plugin.create(UUID, &bytes)?;
    assert!(start.elapsed() > Duration::from_secs(3), "the upload was fast: {:?}", start.elapsed());
    let start_of_read = Instant::now();
    assert!(plugin.read(UUID)? == bytes);
    assert!(start_of_read.elapsed() > Duration::from_secs(3), "{:?}", start_of_read.elapsed());
    assert_eq!(plugin.requests(), 2);
    plugin.check()
}
