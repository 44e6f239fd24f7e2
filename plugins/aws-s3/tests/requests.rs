//! Requests and answers of S3 only.

#[path = "common/cloud.rs"]
mod cloud;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cloud::S3;
use conformance::codes::CORRUPTED_FILE;
use conformance::{DICOM, KEY, LoadedPlugin, UUID, configuration, content, eventually, section};
use fake_cloud::{BucketServer, Fault, FaultRule, Odd, Operation, Options};
use fake_orthanc::LogLevel;
use serde_json::json;

const SIZE: usize = 8_000_000;

#[test]
fn upload_sends_tags_class_encryption_checksum() -> Result<()> {
    let key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd";
    let plugin = LoadedPlugin::<S3>::with(&json!({
        "Tags": {"department": "radiology", "odd & key": "50 % of ü/?"},
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "KmsKeyId": key_id,
    }))?;
    plugin.create(UUID, b"123456789")?;

    let requests = plugin.server.last_requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!((requests[0].operation, requests[0].status), (Operation::PutObject, Some(200)));
    let stored = plugin.server.object("bucket", KEY).context("not stored")?;
    assert_eq!(stored.bytes, &b"123456789"[..]);
    let tags = [("department", "radiology"), ("odd & key", "50 % of ü/?")];
    assert_eq!(stored.tags, tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(stored.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(stored.server_side_encryption.as_deref(), Some("aws:kms"));
    assert_eq!(stored.kms_key_id.as_deref(), Some(key_id));
    // AE8B14860A799888, the check value of CRC-64/NVME.
    assert_eq!(stored.checksum_crc64nvme, "rosUhgp5mIg=");
    plugin.check()
}

#[test]
fn bucket_may_be_part_of_the_host_name() -> Result<()> {
    let domain = Some("s3.test".to_owned());
    let server = BucketServer::start(Options { virtual_host_domain: domain, ..Options::default() })?;
    let section = section::<S3>(&server, &json!({"Endpoint": "http://s3.test", "VirtualAddressing": true}));
    let mut configuration = configuration::<S3>(section);
    // The server is also the proxy, so that nothing resolves the host name.
    configuration["AwsS3Storage"]["Proxy"] = json!(server.endpoint());
    configuration["HttpProxy"] = json!("http://127.0.0.1:9");
    let plugin = LoadedPlugin::<S3>::load(server, configuration)?;
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(
        warnings.iter().any(|line| line.contains("http://bucket.s3.test")),
        "not encrypted: {warnings:#?}"
    );
    let infos = plugin.lines(LogLevel::Info);
    let proxy = format!("proxy: {}", plugin.server.endpoint());
    assert!(infos.iter().any(|line| line.contains(&proxy)), "{infos:#?}");
    let bytes = content(100_000);
    plugin.create(UUID, &bytes)?;
    assert_eq!(plugin.read(UUID)?, bytes);
    assert_eq!(plugin.range(UUID, 7, 9)?, bytes[7..16]);
    assert_eq!(plugin.stored(), [KEY]);
    assert!(plugin.server.last_requests().iter().all(|request| request.path == format!("/{KEY}")));
    plugin.remove(UUID)?;
    plugin.check()
}

#[test]
fn answers_may_have_no_etag() -> Result<()> {
    let plugin = LoadedPlugin::<S3>::start()?;
    let rule = plugin.server.faults().push(FaultRule::new(Fault::DropEtag).times(usize::MAX));
    plugin.create(UUID, &content(SIZE))?;
    assert_eq!(plugin.requests(), 2, "the object's checksum replaces the missing confirmation");
    assert!(plugin.read(UUID)? == content(SIZE));
    assert!(plugin.range(UUID, 3, 70_000)? == content(SIZE)[3..70_003]);
    assert_eq!(plugin.requests(), 2);

    let outcome = interrupted_range(&plugin, || {})?;
    assert!(outcome == Ok(content(SIZE)[1..SIZE - 1].to_vec()), "the bytes differ");
    assert_eq!((rule.fired(), plugin.requests()), (6, 2));
    plugin.check()
}

/// Reads a range while the server stops, does `change`, and starts again.
fn interrupted_range(plugin: &LoadedPlugin<S3>, change: impl FnOnce()) -> Result<Result<Vec<u8>, i32>> {
    // The answer takes some seconds, during which the server stops.
    plugin.server.bandwidth_per_connection(Some(4_000_000));
    let sent = plugin.server.requests().body_bytes_sent;
    thread::scope(|scope| {
        let read = scope.spawn(|| plugin.orthanc.read_range(UUID, DICOM, 1, SIZE - 2));
        let has_begun = || plugin.server.requests().body_bytes_sent > sent + 1_000_000;
        eventually("the download begins", Duration::from_secs(30), has_begun)?;
        plugin.server.stop();
        change();
        plugin.server.bandwidth_per_connection(None);
        plugin.server.start_again()?;
        read.join().map_err(|_| anyhow!("panicked"))
    })
}

#[test]
fn read_of_a_replaced_object_starts_over_without_an_etag() -> Result<()> {
    for times in [1, usize::MAX] {
        let plugin = LoadedPlugin::<S3>::start()?;
        plugin.create(UUID, &content(SIZE))?;
        plugin.fault(Operation::GetObjectRange, Fault::DropEtag, times);
        // `Last-Modified` has a resolution of one second.
        thread::sleep(Duration::from_millis(1100));
        let replace = || plugin.server.insert("bucket", KEY, vec![7; SIZE]);
        let outcome = interrupted_range(&plugin, replace)?;
        let bytes = outcome.map_err(|code| anyhow!("{times}: {code}"))?;
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 7), "{times}: bytes of two objects");
        plugin.check()?;
    }
    Ok(())
}

/// A server without checksums.
fn without_checksums() -> Result<LoadedPlugin<S3>> {
    LoadedPlugin::<S3>::with(&json!({"Checksum": "none"}))
}

#[test]
fn damage_is_noticed_by_the_etag() -> Result<()> {
    let plugin = without_checksums()?;
    let size = 100_000;
    plugin.insert(KEY, content(size));
    plugin.requests();
    assert!(plugin.read(UUID)? == content(size) && plugin.range(UUID, 0, size)? == content(size));
    assert_eq!(plugin.requests(), 2);
    for is_range in [false, true] {
        let operation = if is_range { Operation::GetObjectRange } else { Operation::GetObject };
        plugin.fault(operation, Fault::CorruptResponseByte(70_000), 1);
        let read = if is_range { plugin.range(UUID, 0, size)? } else { plugin.read(UUID)? };
        assert!(read == content(size), "range: {is_range}");
        assert_eq!(plugin.requests(), 3, "one more to see whether the ETag is an MD5");
        // Two downloads that differ are an error, since nothing tells which of them is right.
        let rule = FaultRule::new(Fault::CorruptResponseByte(70_000)).on(operation);
        plugin.server.faults().push(rule.clone());
        plugin.server.faults().push(FaultRule::new(Fault::CorruptResponseByte(7)).on(Operation::GetObject));
        plugin.server.faults().push(rule);
        plugin.server.faults().push(FaultRule::new(Fault::CorruptResponseByte(7)).on(Operation::GetObject));
        let outcome = if is_range {
            plugin.orthanc.read_range(UUID, DICOM, 0, size)
        } else {
            plugin.orthanc.read_whole(UUID, DICOM)
        };
        assert_eq!(outcome.map(|bytes| bytes.len()), Err(CORRUPTED_FILE), "range: {is_range}");
        assert_eq!(plugin.requests(), 4);
        plugin.server.faults().clear();
    }
    plugin.check()
}

/// A name and the UUID of an object.
fn object(number: u64) -> (String, String) {
    let uuid = format!("{}{number:04}", &UUID[..UUID.len() - 4]);
    (KEY.replace(UUID, &uuid), uuid)
}

/// The plugin's warnings about ETags.
fn e_tag_warnings(plugin: &LoadedPlugin<S3>) -> Vec<String> {
    plugin.lines(LogLevel::Warning).into_iter().filter(|line| line.contains("its ETag")).collect()
}

#[test]
fn etags_that_are_no_md5s_are_found_out() -> Result<()> {
    let plugin = without_checksums()?;
    let objects: Vec<_> = (0..5).map(object).collect();
    for (key, _) in &objects {
        plugin.insert(key, content(100_000));
    }
    plugin.fault(Operation::GetObject, Fault::Odd(Odd::OpaqueEtag), usize::MAX);
    plugin.requests();
    let requests = objects.iter().map(|(_, uuid)| -> Result<u64> {
        assert!(plugin.read(uuid)? == content(100_000));
        Ok(plugin.requests())
    });
    assert_eq!(requests.collect::<Result<Vec<_>>>()?, [2, 2, 2, 1, 1]);
    let warnings = e_tag_warnings(&plugin);
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for (warning, (key, _)) in warnings.iter().zip(&objects) {
        assert!(warning.contains(key), "{warning}");
    }
    plugin.check()
}

#[test]
fn one_damaged_object_does_not_end_the_doubt() -> Result<()> {
    let plugin = without_checksums()?;
    let [(damaged, damaged_uuid), (right, right_uuid)] = [object(1), object(2)];
    plugin.insert(&damaged, content(100_000));
    plugin.insert(&right, content(100_000));
    let always = FaultRule::new(Fault::CorruptResponseByte(70_000)).key(&damaged).times(usize::MAX);
    plugin.server.faults().push(always);
    plugin.requests();
    for _ in 0..5 {
        // Nothing tells that the bytes are wrong, since the ETag need not be an MD5.
        assert!(plugin.read(&damaged_uuid)? != content(100_000));
        assert_eq!(plugin.requests(), 2);
    }
    assert_eq!(e_tag_warnings(&plugin).len(), 1);
    plugin.server.faults().push(FaultRule::new(Fault::CorruptResponseByte(70_000)).key(&right));
    assert!(plugin.read(&right_uuid)? == content(100_000));
    assert_eq!(plugin.requests(), 3);
    let warnings = plugin.lines(LogLevel::Warning);
    let repeated: Vec<_> = warnings.iter().filter(|line| line.contains("was right")).collect();
    assert!(repeated.len() == 1 && repeated[0].contains(&right), "{repeated:#?}");
    assert!(!repeated[0].contains("VerifyChecksums") && !repeated[0].contains("is damaged"), "{repeated:#?}");
    plugin.check()
}

#[test]
fn broken_second_download_does_not_fail_the_read() -> Result<()> {
    let plugin = without_checksums()?;
    plugin.insert(KEY, content(100_000));
    plugin.requests();
    let opaque = || FaultRule::new(Fault::Odd(Odd::OpaqueEtag)).on(Operation::GetObject);
    plugin.server.faults().push(opaque());
    plugin.server.faults().push(FaultRule::new(Fault::OddAndCut(Odd::OpaqueEtag, 50_000)));
    assert!(plugin.read(UUID)? == content(100_000));
    assert_eq!(plugin.requests(), 2);
    // It says nothing about the ETag.
    assert!(e_tag_warnings(&plugin).is_empty());
    plugin.check()
}

#[test]
fn small_object_replaced_before_its_checksum_is_asked_for_is_read_again() -> Result<()> {
    let plugin = LoadedPlugin::<S3>::start()?;
    plugin.insert(KEY, content(100_000));
    plugin.fault(Operation::GetObjectRange, Fault::Odd(Odd::OpaqueEtag), 1);
    plugin.fault(Operation::HeadObject, Fault::ReplaceObject(vec![7; 100_000].into()), 1);
    plugin.requests();
    assert!(plugin.range(UUID, 0, 100_000)? == vec![7; 100_000]);
    assert_eq!(plugin.requests(), 3);
    plugin.check()
}
