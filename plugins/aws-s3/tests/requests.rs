//! What the plugin asks of the bucket: how many requests, on how many connections, and that every byte comes back.

mod common;

use std::time::Duration;

use anyhow::{Context, Result};
use common::{
    BAD_RANGE, DICOM, DICOM_UNTIL_PIXEL_DATA, INEXISTENT_FILE, KEY, STORAGE_AREA_PLUGIN, Setup, UUID,
    configuration, content, done, section, uuid, with,
};
use serde_json::json;
use test_bucket::{BucketServer, Operation, Options};
use test_host::LogLevel;

const MIB: usize = 1024 * 1024;

#[test]
fn a_create_is_one_request_with_tags_class_encryption_and_checksum() -> Result<()> {
    let setup = Setup::with(&json!({
        "Tags": {"department": "radiology", "odd & key": "50 % of ü/?"},
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "KmsKeyId": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
    }))?;
    done(setup.host.create(UUID, DICOM, b"123456789"))?;

    let requests = setup.server.last_requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!((requests[0].operation, requests[0].status), (Operation::PutObject, Some(200)));
    let stored = setup.server.object("bucket", KEY).context("not stored")?;
    assert_eq!(stored.bytes, &b"123456789"[..]);
    let tags = [("department", "radiology"), ("odd & key", "50 % of ü/?")];
    assert_eq!(stored.tags, tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(stored.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(stored.server_side_encryption.as_deref(), Some("aws:kms"));
    assert_eq!(stored.kms_key_id.as_deref(), Some("arn:aws:kms:eu-west-1:111122223333:key/1234abcd"));
    // The catalogue's check value of CRC-64/NVME, AE8B14860A799888.
    assert_eq!(stored.checksum_crc64nvme, "rosUhgp5mIg=");
    setup.check()
}

#[test]
fn each_operation_is_one_request() -> Result<()> {
    let setup = Setup::start()?;
    let bytes = content(100_000);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert_eq!(setup.requests(), 1);
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, bytes);
    assert_eq!(setup.requests(), 1);
    assert_eq!(done(setup.host.read_range(UUID, DICOM, 1000, 500))?, bytes[1000..1500]);
    assert_eq!(setup.ranges(), [Some("bytes=1000-1499".to_owned())]);
    assert_eq!(setup.server.requests().body_bytes_sent, 500);
    assert_eq!(setup.requests(), 1);
    assert_eq!(done(setup.host.read_range(UUID, DICOM, 5, 0))?, b"");
    assert_eq!(setup.requests(), 0, "no bytes are known without a request");
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!(setup.requests(), 1);
    assert!(setup.server.keys("bucket").is_empty());
    setup.check()
}

#[test]
fn the_check_at_the_start_is_one_request() -> Result<()> {
    let server = BucketServer::start(Options::default())?;
    let configuration = configuration(&section(&server));
    let host = test_host::TestHost::load(
        common::library()?,
        test_host::HostOptions::with_configuration(configuration),
    )?;
    let requests = server.last_requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!((requests[0].operation, requests[0].status), (Operation::GetObject, Some(404)));
    assert_eq!(host.logs_at(LogLevel::Error), [""; 0]);
    Ok(())
}

#[test]
fn legacy_unknown_files_cost_a_second_request_where_they_are_looked_for() -> Result<()> {
    let setup = Setup::with(&json!({"EnableLegacyUnknownFiles": true}))?;
    let (regular, old) = (format!("{UUID}.dcm.head"), format!("{UUID}.unk"));
    setup.server.insert("bucket", &old, "old");
    assert_eq!(done(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA))?, b"old");
    assert_eq!(setup.requests(), 2);
    assert_eq!(done(setup.host.read_range(UUID, DICOM_UNTIL_PIXEL_DATA, 1, 2))?, b"ld");
    assert_eq!(setup.requests(), 2);
    setup.server.insert("bucket", &regular, "new");
    assert_eq!(done(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA))?, b"new");
    assert_eq!(setup.requests(), 1);
    assert_eq!(setup.errors(), [""; 0], "the first name is allowed to be missing");

    done(setup.host.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((setup.requests(), setup.server.keys("bucket").len()), (2, 0));
    // Only the headers were ever stored under that name.
    setup.server.insert("bucket", &old, "old");
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    assert_eq!(setup.requests(), 1);
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!((setup.requests(), setup.server.keys("bucket").len()), (1, 1));
    setup.check()
}

#[test]
fn legacy_unknown_files_are_left_alone_where_nobody_asks_for_them() -> Result<()> {
    let setup = Setup::start()?;
    setup.server.insert("bucket", &format!("{UUID}.unk"), "old");
    assert_eq!(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA), Err(INEXISTENT_FILE));
    done(setup.host.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((setup.requests(), setup.server.keys("bucket").len()), (2, 1));
    setup.check()
}

/// Stores so many bytes and reads them back, whole and in part.
fn round_trip(setup: &Setup, size: usize) -> Result<()> {
    let bytes = content(size);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert!(
        setup.server.object("bucket", KEY).is_some_and(|stored| stored.bytes == bytes),
        "{size} as stored"
    );
    assert!(done(setup.host.read_whole(UUID, DICOM))? == bytes, "{size} as read");
    if size > 0 {
        let (start, length) = (size / 3, size.div_ceil(2));
        let range = done(setup.host.read_range(UUID, DICOM, start as u64, length))?;
        assert!(range == bytes[start..start + length], "a range of {size}");
    }
    Ok(())
}

#[test]
fn attachments_of_every_size_come_back_byte_for_byte() -> Result<()> {
    let setup = Setup::start()?;
    for size in [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, MIB, MIB + 1, 20_000_000] {
        round_trip(&setup, size)?;
    }
    setup.check()
}

#[test]
fn a_hundred_megabytes_come_back_byte_for_byte() -> Result<()> {
    let setup = Setup::start()?;
    round_trip(&setup, 100_000_000)?;
    setup.check()
}

#[test]
fn a_range_is_exactly_what_was_asked_for() -> Result<()> {
    let setup = Setup::start()?;
    let bytes = content(3 * MIB);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    let end = bytes.len();
    for (start, length) in [(0, 1), (0, end), (1, MIB), (MIB - 1, MIB + 2), (end - 1, 1), (end - 1000, 1000)]
    {
        setup.server.reset_counts();
        let range = done(setup.host.read_range(UUID, DICOM, start as u64, length))?;
        assert!(range == bytes[start..start + length], "{length} bytes from {start}");
        assert_eq!(setup.server.requests().body_bytes_sent, length as u64);
    }
    setup.check()
}

#[test]
fn a_range_beyond_the_end_is_a_bad_range() -> Result<()> {
    let setup = Setup::start()?;
    done(setup.host.create(UUID, DICOM, &content(1000)))?;
    done(setup.host.create(&uuid(1), DICOM, b""))?;
    setup.server.reset_counts();
    let cases = [
        (UUID, 999, 2),
        (UUID, 0, 1001),
        (UUID, 1000, 1),
        (UUID, 5000, 10),
        (UUID, 1 << 62, 5),
        (&uuid(1), 0, 1),
    ];
    for (uuid, start, length) in cases {
        assert_eq!(
            setup.host.read_range(uuid, DICOM, start, length),
            Err(BAD_RANGE),
            "{length} from {start}"
        );
    }
    assert_eq!(setup.requests(), 6, "none of them is tried again");
    let line = format!("AWS S3 Storage: cannot read s3://bucket/{KEY}: the range is outside of the object");
    assert_eq!((setup.errors().len(), setup.errors().first()), (6, Some(&line)));
    // Orthanc could not even ask for these bytes.
    assert_eq!(setup.host.read_range(UUID, DICOM, u64::MAX, 2), Err(BAD_RANGE));
    assert_eq!(setup.requests(), 0);
    setup.check()
}

#[test]
fn many_threads_store_read_and_delete_at_once() -> Result<()> {
    let setup = Setup::start()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let host = &setup.host;
                scope.spawn(move || -> Result<()> {
                    for round in 0..50 {
                        let (uuid, bytes) =
                            (uuid(thread * 1000 + round), content(2 + thread * 31 + round * 4001));
                        done(host.create(&uuid, DICOM, &bytes))?;
                        assert!(done(host.read_whole(&uuid, DICOM))? == bytes);
                        assert!(done(host.read_range(&uuid, DICOM, 1, bytes.len() - 1))? == bytes[1..]);
                        if round % 2 == 0 {
                            done(host.remove(&uuid, DICOM))?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked")))
    })?;
    assert_eq!(setup.server.keys("bucket").len(), 8 * 25);
    assert_eq!(setup.requests(), 8 * (50 * 3 + 25));
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

#[test]
fn there_are_never_more_connections_than_allowed() -> Result<()> {
    let setup = Setup::with(&json!({"MaxConnections": 3}))?;
    let hold = setup.server.hold(Operation::PutObject);
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..16)
            .map(|thread| {
                let host = &setup.host;
                scope.spawn(move || done(host.create(&uuid(thread), DICOM, &content(1000))))
            })
            .collect();
        assert!(hold.wait_until(3, Duration::from_secs(30)));
        assert!(!hold.wait_until(4, Duration::from_millis(300)), "a fourth request came");
        assert_eq!(setup.server.connections_open(), 3);
        hold.release();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked")))
    })?;
    assert_eq!(setup.server.keys("bucket").len(), 16);
    // One more was opened by the check at the start, before the counts were reset.
    assert!(setup.server.connections_accepted() <= 3, "{}", setup.server.connections_accepted());
    setup.check()
}

#[test]
fn requests_one_after_the_other_share_a_connection() -> Result<()> {
    let setup = Setup::start()?;
    for number in 0..50 {
        done(setup.host.create(&uuid(number), DICOM, &content(10_000)))?;
        assert_eq!(done(setup.host.read_whole(&uuid(number), DICOM))?.len(), 10_000);
    }
    assert_eq!(setup.server.requests().total, 100);
    assert!(setup.server.connections_accepted() <= 2, "{}", setup.server.connections_accepted());
    assert!(setup.server.connections_open() <= 2, "{}", setup.server.connections_open());
    setup.check()
}

#[test]
fn the_bucket_can_be_part_of_the_host_name() -> Result<()> {
    let domain = Some("s3.test".to_owned());
    let server = BucketServer::start(Options { virtual_host_domain: domain, ..Options::default() })?;
    let section = with(section(&server), &json!({"Endpoint": "http://s3.test", "VirtualAddressing": true}));
    let mut configuration = configuration(&section);
    // Nobody knows the name: a proxy finds the way, whose part the server plays.
    configuration["HttpProxy"] = json!(server.endpoint());
    let setup = Setup::load(server, configuration)?;
    let bytes = content(100_000);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, bytes);
    assert_eq!(done(setup.host.read_range(UUID, DICOM, 7, 9))?, bytes[7..16]);
    assert_eq!(setup.server.keys("bucket"), [KEY]);
    assert!(setup.server.last_requests().iter().all(|request| request.path == format!("/{KEY}")));
    done(setup.host.remove(UUID, DICOM))?;
    setup.check()
}

#[test]
fn object_names_are_the_root_path_byte_for_byte() -> Result<()> {
    let roots = [
        "a",
        "a/b/c",
        "with blanks",
        "50% #1",
        "~tilde",
        "Ünïcödé/東京",
        "a+b&c=d?e",
        "quote\"'<>",
        "percent%20",
        "back\\slash",
        "*|^`{}[]",
        "trailing.",
        "a:b@c;d,e!$()",
    ];
    let setup = Setup::start()?;
    let bytes = content(1000);
    for root in roots {
        let section = with(section(&setup.server), &json!({"RootPath": root}));
        let host = test_host::TestHost::load(
            common::library()?,
            test_host::HostOptions::with_configuration(configuration(&section)),
        )
        .with_context(|| root.to_owned())?;
        done(host.create(UUID, DICOM, &bytes)).with_context(|| root.to_owned())?;
        assert_eq!(setup.server.keys("bucket"), [format!("{root}/{KEY}")]);
        assert_eq!(done(host.read_whole(UUID, DICOM))?, bytes);
        done(host.remove(UUID, DICOM))?;
        assert!(setup.server.keys("bucket").is_empty(), "{root}");
    }
    Ok(())
}

#[test]
fn object_names_depend_on_the_structure_and_the_type() -> Result<()> {
    let setup = Setup::start()?;
    let types = [(0, ".unk"), (1, ".dcm"), (2, ".json"), (3, ".dcm.head"), (1024, ".unk"), (65535, ".unk")];
    for (content_type, extension) in types {
        done(setup.host.create(UUID, content_type, b"x"))?;
        assert_eq!(setup.server.keys("bucket"), [format!("{UUID}{extension}")]);
        done(setup.host.remove(UUID, content_type))?;
    }
    let setup = Setup::with(&json!({"StorageStructure": "legacy", "RootPath": "root/"}))?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(setup.server.keys("bucket"), [format!("root/fb/4b/{UUID}")]);
    setup.check()
}

#[test]
fn an_attachment_that_is_stored_again_is_replaced() -> Result<()> {
    let setup = Setup::start()?;
    done(setup.host.create(UUID, DICOM, &content(100_000)))?;
    done(setup.host.create(UUID, DICOM, b"shorter"))?;
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, b"shorter");
    assert_eq!(setup.requests(), 3);
    setup.check()
}

#[test]
fn a_missing_object_is_told_from_a_missing_bucket() -> Result<()> {
    let setup = Setup::start()?;
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    let line = setup.only_error();
    let expected =
        format!("AWS S3 Storage: cannot read s3://bucket/{KEY}: no such object (HTTP 404 NoSuchKey: ");
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(setup.host.read_range(UUID, DICOM, 0, 10), Err(INEXISTENT_FILE));
    assert_eq!((setup.requests(), setup.errors().len()), (2, 2), "neither is tried again");
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!((setup.requests(), setup.errors().len()), (1, 2), "what is not there needs no deletion");

    let fault = test_bucket::Fault::status(404, "NoSuchBucket");
    setup.server.faults().push(test_bucket::FaultRule::new(fault).times(4));
    let outcomes = [
        setup.host.create(UUID, DICOM, b"x"),
        setup.host.read_whole(UUID, DICOM).map(drop),
        setup.host.read_range(UUID, DICOM, 0, 1).map(drop),
        setup.host.remove(UUID, DICOM),
    ];
    assert_eq!(outcomes, [Err(STORAGE_AREA_PLUGIN); 4]);
    assert_eq!((setup.requests(), setup.errors().len()), (4, 6));
    for (line, operation) in setup.errors()[2..].iter().zip(["store", "read", "read", "delete"]) {
        let expected = format!(
            "AWS S3 Storage: cannot {operation} s3://bucket/{KEY}: the bucket does not exist: create it, or correct its \
             name in the configuration (HTTP 404 NoSuchBucket: "
        );
        assert!(line.starts_with(&expected), "{line}");
    }
    setup.check()
}

#[test]
fn an_attachment_without_a_proper_uuid_is_refused_without_a_request() -> Result<()> {
    let setup = Setup::start()?;
    for uuid in ["", "../../../../../../etc/passwd-xxxxxxxx", "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1", "x"] {
        assert_eq!(setup.host.create(uuid, DICOM, b"x"), Err(3), "{uuid}");
        assert_eq!(setup.host.read_whole(uuid, DICOM), Err(3), "{uuid}");
        assert_eq!(setup.host.remove(uuid, DICOM), Err(3), "{uuid}");
    }
    assert_eq!(setup.requests(), 0);
    setup.check()
}

#[test]
fn every_operation_leaves_a_line_with_type_bytes_time_and_speed() -> Result<()> {
    let setup = Setup::start()?;
    done(setup.host.create(UUID, DICOM, &content(1_234_567)))?;
    done(setup.host.read_whole(UUID, DICOM))?;
    done(setup.host.read_range(UUID, DICOM, 0, 1000))?;
    done(setup.host.remove(UUID, DICOM))?;
    let lines = setup.host.logs_at(LogLevel::Info);
    let beginnings = [("stored", 1_234_567), ("read", 1_234_567), ("read a range of", 1000), ("deleted", 0)];
    let beginnings = beginnings
        .map(|(what, bytes)| format!("AWS S3 Storage: {what} s3://bucket/{KEY} (dicom): {bytes} bytes in "));
    assert_eq!(lines.len(), beginnings.len(), "{lines:#?}");
    for (line, beginning) in lines.iter().zip(&beginnings) {
        let rest = line.strip_prefix(beginning.as_str()).with_context(|| line.clone())?;
        let (milliseconds, speed) = rest.split_once(" ms, ").with_context(|| line.clone())?;
        let speed = speed.strip_suffix(" MB/s").with_context(|| line.clone())?;
        milliseconds.parse::<u64>()?;
        speed.parse::<f64>()?;
    }
    setup.check()
}
