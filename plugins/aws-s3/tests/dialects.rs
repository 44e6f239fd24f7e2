//! Servers that understand less than AWS, or something else.

#[path = "common/cloud.rs"]
mod cloud;

use std::thread;

use anyhow::{Result, ensure};
use cloud::S3;
use conformance::{
    Answer, Cloud as _, DICOM, KEY, LoadedPlugin, SmallServer, UUID, configuration, content, done, section,
    uuid, with,
};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options, Quirks, RefusedChecksums};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

const MEBIBYTE: usize = 1024 * 1024;
/// Size of an object of three parts.
const LARGE: usize = 11 * MEBIBYTE + 7;
/// All operations whose requests may have a header for checksums.
const UPLOADS: [Operation; 4] = [
    Operation::PutObject,
    Operation::CreateMultipartUpload,
    Operation::UploadPart,
    Operation::CompleteMultipartUpload,
];
const READS: [Operation; 3] = [Operation::GetObject, Operation::GetObjectRange, Operation::HeadObject];

/// Refusals as servers write them.
fn refusals(operations: &[Operation]) -> Vec<RefusedChecksums> {
    [
        (400, "InvalidArgument", "Unsupported header '{}' received for this API call."),
        (400, "InvalidRequest", "Checksum algorithm provided is unsupported"),
        (403, "AccessDenied", "The header {} is not permitted"),
        (501, "NotImplemented", "Header '{}' with value 'x' not implemented"),
    ]
    .map(|(status, code, message)| RefusedChecksums {
        operations: operations.to_vec(),
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    })
    .into()
}

/// Everything above 5 MiB is uploaded in parts.
fn in_parts() -> Value {
    json!({"UseTransferManager": true})
}

/// Learns from the attachments, not from the check at start.
fn unchecked() -> Value {
    with(in_parts(), &json!({"CheckWrite": false}))
}

fn start(quirks: &Quirks, options: &Value) -> Result<LoadedPlugin<S3>> {
    let server = BucketServer::start(Options { quirks: quirks.clone(), ..Options::default() })?;
    let configuration = configuration::<S3>(section::<S3>(&server, options));
    LoadedPlugin::load(server, configuration)
}

fn refusing(refusal: RefusedChecksums) -> Quirks {
    let quirks = Quirks::default();
    quirks.set().refused_checksums = Some(refusal);
    quirks
}

/// Returns the warnings about something that was learnt.
fn learnt(plugin: &LoadedPlugin<S3>) -> Vec<String> {
    plugin.lines(LogLevel::Warning).into_iter().filter(|line| line.contains("from now on")).collect()
}

/// Stores, reads and deletes a small and a large object. Returns the number of requests.
fn round_trip(plugin: &LoadedPlugin<S3>) -> Result<u64> {
    plugin.requests();
    for (number, size) in [100_000, LARGE].into_iter().enumerate() {
        let uuid = uuid(number);
        plugin.create(&uuid, &content(size))?;
        ensure!(plugin.read(&uuid)? == content(size), "the bytes differ");
        ensure!(plugin.range(&uuid, 7, 9)? == content(size)[7..16], "the range differs");
    }
    ensure!(plugin.server.unfinished_uploads(S3::BUCKET).is_empty(), "an upload is left");
    let requests = plugin.requests();
    for number in 0..2 {
        plugin.remove(&uuid(number))?;
    }
    ensure!(plugin.stored().is_empty(), "not deleted");
    plugin.requests();
    ensure!(plugin.errors().is_empty(), "{:#?}", plugin.errors());
    Ok(requests)
}

/// Requests of a round trip without refusals: one upload, an upload of three parts, two reads and two ranges.
const ROUND_TRIP: u64 = 1 + 5 + 4;

#[test]
fn refused_checksums_are_found_out_at_the_start() -> Result<()> {
    for refusal in refusals(&[&UPLOADS[..], &READS].concat()) {
        let status = refusal.status;
        let quirks = refusing(refusal);
        quirks.set().demands_md5 = true;
        let plugin = start(&quirks, &in_parts())?;
        let warnings = learnt(&plugin);
        assert_eq!(warnings.len(), 2, "one for uploads, one for reads: {warnings:#?}");
        assert!(warnings.iter().all(|line| line.contains(&status.to_string())), "{warnings:#?}");
        assert!(warnings.iter().any(|line| line.contains("\"Checksum\": \"md5\"")), "{warnings:#?}");
        assert!(plugin.server.keys(S3::BUCKET).is_empty(), "the check leaves something");
        assert_eq!(round_trip(&plugin)?, ROUND_TRIP, "{status}");
        assert_eq!(learnt(&plugin).len(), 2);
        plugin.check()?;
    }
    Ok(())
}

/// Without `s3:ListBucket`, S3 denies access to objects that do not exist.
#[test]
fn checksums_are_found_out_without_permission_to_list() -> Result<()> {
    let quirks = refusing(refusals(&UPLOADS).remove(0));
    let server = BucketServer::start(Options { quirks, ..Options::default() })?;
    let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(Operation::GetObject);
    let rule = server.faults().push(denied);
    let configuration = configuration::<S3>(section::<S3>(&server, &in_parts()));
    let plugin = LoadedPlugin::<S3>::load(server, configuration)?;
    assert_eq!((rule.fired(), learnt(&plugin).len()), (1, 1));
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    plugin.check()
}

#[test]
fn what_was_learnt_outlives_a_reset() -> Result<()> {
    let quirks = refusing(refusals(&[Operation::PutObject]).remove(0));
    let server = BucketServer::start(Options { quirks, ..Options::default() })?;
    let configuration = configuration::<S3>(section::<S3>(&server, &unchecked()));
    let mut plugin = LoadedPlugin::<S3>::load(server, configuration.clone())?;
    plugin.create(UUID, &content(9))?;
    assert_eq!(plugin.requests(), 2);
    plugin.remove(UUID)?;
    plugin.settle();
    plugin.orthanc.reset(fake_orthanc::FakeOrthancOptions::with_configuration(configuration))?;
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    assert_eq!(learnt(&plugin), [""; 0], "the log begins again with the reset");
    plugin.check()
}

#[test]
fn refusal_of_an_upload_costs_one_request() -> Result<()> {
    for refusal in refusals(&[Operation::PutObject]) {
        let plugin = start(&refusing(refusal), &unchecked())?;
        assert_eq!(learnt(&plugin), [""; 0]);
        assert_eq!(round_trip(&plugin)?, ROUND_TRIP + 1);
        assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
        assert_eq!(learnt(&plugin).len(), 1);
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn simultaneous_uploads_learn_together() -> Result<()> {
    let plugin = start(&refusing(refusals(&[Operation::PutObject]).remove(0)), &unchecked())?;
    let hold = plugin.server.hold(Operation::PutObject);
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..8)
            .map(|number| {
                let plugin = &plugin;
                scope.spawn(move || plugin.orthanc.create(&uuid(number), DICOM, &content(1000)))
            })
            .collect();
        assert!(hold.wait_until(8, std::time::Duration::from_secs(30)), "not simultaneous");
        hold.release();
        for upload in uploads {
            assert_eq!(upload.join().expect("no panic"), Ok(()));
        }
    });
    assert_eq!((plugin.requests(), plugin.stored().len()), (16, 8));
    assert_eq!(learnt(&plugin).len(), 1);
    plugin.check()
}

#[test]
fn upload_in_parts_begins_again_in_another_dialect() -> Result<()> {
    // The number of requests for the large object.
    for (operation, requests) in [
        (Operation::CreateMultipartUpload, 6),
        // At least one part, and the deletion of the first upload.
        (Operation::UploadPart, 5 + 3),
        (Operation::CompleteMultipartUpload, 5 + 5 + 1),
    ] {
        for refusal in refusals(&[operation]) {
            let quirks = Quirks::default();
            let plugin = start(&quirks, &in_parts())?;
            quirks.set().refused_checksums = Some(refusal.clone());
            plugin.create(UUID, &content(LARGE))?;
            let made = plugin.requests();
            // Further parts may be on their way.
            let more = if operation == Operation::UploadPart { 2 } else { 0 };
            assert!((requests..=requests + more).contains(&made), "{made} with {refusal:?}");
            assert_eq!(plugin.server.object(S3::BUCKET, KEY).map(|object| object.bytes.len()), Some(LARGE));
            plugin.remove(UUID)?;
            plugin.settle();
            assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
            assert_eq!(learnt(&plugin).len(), 1, "{:#?}", learnt(&plugin));
            plugin.check()?;
        }
    }
    Ok(())
}

#[test]
fn object_lock_demands_md5() -> Result<()> {
    let quirks = Quirks::default();
    quirks.set().demands_md5 = true;
    let plugin = start(&quirks, &in_parts())?;
    assert_eq!(learnt(&plugin).len(), 1);
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    plugin.check()
}

#[test]
fn server_may_know_no_checksum_at_all() -> Result<()> {
    let quirks = refusing(refusals(&UPLOADS).remove(3));
    quirks.set().refuses_md5 = true;
    let plugin = start(&quirks, &in_parts())?;
    let warnings = learnt(&plugin);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings.iter().any(|line| line.contains("\"Checksum\": \"none\"")), "{warnings:#?}");
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    plugin.check()
}

#[test]
fn option_chooses_the_checksum() -> Result<()> {
    let refusal = || refusals(&[&UPLOADS[..], &READS].concat()).remove(0);
    for (value, refused, demands_md5) in [
        ("crc64nvme", None, false),
        ("sha256", None, false),
        ("md5", Some(refusals(&UPLOADS).remove(0)), true),
        ("none", Some(refusal()), false),
    ] {
        let quirks = Quirks::default();
        quirks.set().refused_checksums = refused;
        quirks.set().demands_md5 = demands_md5;
        let options = json!({"Checksum": value, "UseTransferManager": true});
        let plugin = start(&quirks, &options)?;
        assert_eq!(round_trip(&plugin)?, ROUND_TRIP, "{value}");
        assert_eq!(learnt(&plugin), [""; 0], "{value}");
        plugin.check()?;
    }
    // A chosen checksum is not given up.
    let plugin = start(&refusing(refusal()), &json!({"Checksum": "crc64nvme", "CheckWrite": false}))?;
    assert!(plugin.create(UUID, b"x").is_err());
    let line = plugin.new_error()?;
    assert!(line.contains("x-amz-checksum-crc64nvme") && line.contains("400"), "{line}");
    assert_eq!(plugin.requests(), 1);
    plugin.check()?;
    // Without checksums, none is asked for.
    let plugin = start(&Quirks::default(), &json!({"Checksum": "none"}))?;
    let large = content(17 * MEBIBYTE);
    plugin.server.insert(S3::BUCKET, KEY, large.clone());
    ensure!(plugin.range(UUID, 0, large.len())? == large, "the bytes differ");
    assert_eq!(plugin.server.requests().of(Operation::HeadObject), 0);
    plugin.check()
}

#[test]
fn other_refusals_are_not_about_the_dialect() -> Result<()> {
    for (status, code, requests) in [
        (403, "AccessDenied", 1),
        (403, "SignatureDoesNotMatch", 1),
        (403, "InvalidAccessKeyId", 1),
        (400, "InvalidArgument", 1),
        (400, "XAmzContentChecksumMismatch", 2),
        (400, "BadDigest", 2),
        (501, "NotImplemented", 1),
    ] {
        let plugin = start(&Quirks::default(), &json!({"MaxRetries": 1}))?;
        let rule = plugin.fault(Operation::PutObject, Fault::status(status, code), usize::MAX);
        assert!(plugin.create(UUID, b"x").is_err());
        assert!(plugin.new_error()?.contains(code), "{code}");
        assert_eq!(rule.fired(), requests, "{status} {code}");
        assert_eq!(learnt(&plugin), [""; 0], "{code}");
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn requests_are_signed_with_the_servers_time() -> Result<()> {
    let quirks = Quirks::default();
    quirks.set().clock_ahead = 3600;
    let plugin = start(&quirks, &in_parts())?;
    let warnings = || -> Vec<String> {
        let lines = plugin.lines(LogLevel::Warning).into_iter();
        lines.filter(|line| line.contains("this machine's clock is")).collect()
    };
    let first = warnings();
    assert!(matches!(&first[..], [line] if line.contains(" behind ")), "{first:#?}");
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    // The clocks change. Bulk deletions are corrected too.
    for (number, ahead) in [(2, -3600), (3, 7200)] {
        for object in 0..3 {
            plugin.server.insert(S3::BUCKET, &format!("{}.dcm", uuid(object)), "content");
        }
        plugin.requests();
        quirks.set().clock_ahead = ahead;
        for object in 0..3 {
            plugin.remove(&uuid(object))?;
        }
        assert_eq!(plugin.stored(), [""; 0]);
        let requests = plugin.server.requests();
        assert_eq!(requests.of(Operation::DeleteObject), 0, "{ahead}");
        assert_eq!(warnings().len(), number, "{ahead}");
    }
    assert!(warnings()[1].contains(" ahead of "));
    assert_eq!(round_trip(&plugin)?, ROUND_TRIP);
    plugin.check()
}

#[test]
fn completion_may_fail_with_status_200() -> Result<()> {
    for (code, then_lost) in [("InternalError", false), ("SlowDown", false), ("Whatever", true)] {
        let plugin = start(&Quirks::default(), &in_parts())?;
        let rule =
            plugin.fault(Operation::CompleteMultipartUpload, Fault::ErrorInSuccess(code.to_owned()), 1);
        if then_lost {
            plugin.fault(Operation::CompleteMultipartUpload, Fault::CloseBeforeResponse, 1);
        }
        plugin.create(UUID, &content(LARGE))?;
        let requests = plugin.server.requests();
        let completions = requests.of(Operation::CompleteMultipartUpload);
        assert_eq!((rule.fired(), completions), (1, if then_lost { 3 } else { 2 }), "{code}");
        assert_eq!(requests.of(Operation::UploadPart), 3, "{code}");
        assert!(plugin.read(UUID)? == content(LARGE));
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn bulk_deletion_may_fail_with_status_200() -> Result<()> {
    let plugin = start(&Quirks::default(), &json!({}))?;
    for object in 0..3 {
        plugin.create(&uuid(object), b"x")?;
    }
    plugin.fault(Operation::DeleteObjects, Fault::ErrorInSuccess("InternalError".to_owned()), 1);
    for object in 0..3 {
        plugin.remove(&uuid(object))?;
    }
    assert_eq!(plugin.stored(), [""; 0]);
    plugin.check()
}

#[test]
fn body_limit_leads_to_parts() -> Result<()> {
    let quirks = Quirks::default();
    quirks.set().largest_body = Some(6 * MEBIBYTE as u64);
    // Parts of 16 MB are too large as well.
    let plugin = start(&quirks, &json!({"TransferBufferSize": 16, "TransferPoolSize": 1}))?;
    let bytes = content(20 * MEBIBYTE);
    for number in 0..2 {
        let uuid = uuid(number);
        done(plugin.orthanc.create(&uuid, DICOM, &bytes))?;
        assert!(plugin.read(&uuid)? == bytes);
        let requests = plugin.server.last_requests().into_iter();
        let refusals = requests.filter(|request| request.status == Some(413)).count();
        // The object, a part of 16 MiB, and one of 8 MiB. The answer is lost sometimes.
        let expected = if number == 0 { refusals >= 3 } else { refusals == 0 };
        assert!(expected, "{refusals} {:#?}", plugin.lines(LogLevel::Info));
        let uploads = plugin.server.requests().of(Operation::PutObject);
        assert_eq!(uploads > 0, number == 0, "the limit is known");
        plugin.requests();
    }
    assert!(plugin.server.unfinished_uploads(S3::BUCKET).is_empty());
    plugin.create(&uuid(3), &content(5 * MEBIBYTE))?;
    assert_eq!(plugin.requests(), 1);
    plugin.check()
}

#[test]
fn body_limit_below_the_smallest_part_is_an_error() -> Result<()> {
    let quirks = Quirks::default();
    quirks.set().largest_body = Some(MEBIBYTE as u64);
    let plugin = start(&quirks, &json!({}))?;
    for size in [2 * MEBIBYTE, 8 * MEBIBYTE] {
        assert!(plugin.create(UUID, &content(size)).is_err());
        let line = plugin.new_error()?;
        assert!(line.contains("413") && line.contains("client_max_body_size"), "{line}");
    }
    assert!(plugin.stored().is_empty() && plugin.server.unfinished_uploads(S3::BUCKET).is_empty());
    plugin.create(UUID, &content(MEBIBYTE))?;
    plugin.check()
}

#[test]
fn transfer_manager_sends_parts() -> Result<()> {
    for (flag, size, parts) in [(true, 5 * MEBIBYTE, 0), (true, 5 * MEBIBYTE + 1, 2), (false, LARGE, 0)] {
        let plugin = start(&Quirks::default(), &json!({"UseTransferManager": flag}))?;
        plugin.create(UUID, &content(size))?;
        let requests = plugin.server.requests();
        assert_eq!(requests.of(Operation::UploadPart), parts);
        assert_eq!(requests.of(Operation::PutObject), u64::from(parts == 0));
        plugin.check()?;
    }
    Ok(())
}

/// 307 is what AWS answers while the name of a new bucket is spreading; 308 is for good.
#[test]
fn redirected_requests_are_signed_again() -> Result<()> {
    for (status, warnings) in [(307, 0), (308, 1)] {
        let server = BucketServer::start(Options::default())?;
        let endpoint = server.endpoint();
        let address = format!("set \"Endpoint\" to {}", endpoint.trim_end_matches('/'));
        let redirecting = SmallServer::start(move |request| {
            let path = request.target.split_once(' ').map_or("/", |(_, path)| path);
            Answer(status, vec![("Location", format!("{endpoint}{path}"))], String::new())
        })?;
        let section = section::<S3>(&server, &json!({"Endpoint": redirecting.url("")}));
        let plugin = LoadedPlugin::<S3>::load(server, configuration::<S3>(section))?;
        plugin.create(UUID, b"redirected")?;
        ensure!(plugin.read(UUID)? == b"redirected", "the bytes differ");
        ensure!(plugin.range(UUID, 2, 3)? == b"dir", "the range differs");
        plugin.remove(UUID)?;
        ensure!(plugin.stored().is_empty(), "not deleted");
        ensure!(redirecting.requests().len() >= 5, "requests were not redirected");
        let lines = plugin.lines(LogLevel::Warning);
        assert_eq!(lines.iter().filter(|line| line.contains(&address)).count(), warnings, "{lines:#?}");
    }
    Ok(())
}

#[test]
fn note_is_written_without_conditional_requests() -> Result<()> {
    const NOTE: &str = ".orthanc-object-storage/key-3";
    for has_note in [false, true] {
        let quirks = Quirks::default();
        quirks.set().refuses_conditions = true;
        let server = BucketServer::start(Options { quirks, ..Options::default() })?;
        if has_note {
            // Another Orthanc has written it between the look and the refusal.
            let missing = FaultRule::new(Fault::status(404, "NoSuchKey")).on(Operation::GetObject).skip(1);
            server.faults().push(missing);
            server.insert(S3::BUCKET, NOTE, "of another one");
        }
        let keys = tempfile::tempdir()?;
        let path = keys.path().join("key");
        std::fs::write(&path, "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=")?;
        let options = json!({"StorageEncryption": {"MasterKey": [3, path]}});
        let configuration = configuration::<S3>(section::<S3>(&server, &options));
        let plugin = LoadedPlugin::<S3>::load(server, configuration)?;
        let note = plugin.server.object(S3::BUCKET, NOTE).map(|note| note.bytes);
        assert_eq!(note.is_some_and(|note| note.starts_with(b"of another one")), has_note);
    }
    Ok(())
}
