//! What the plugin asks of the bucket: how many requests, on how many connections, and that every byte comes back.

use std::time::Duration;

use anyhow::{Context, Result};
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, INEXISTENT_FILE, PARAMETER_OUT_OF_RANGE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, DICOM_UNTIL_PIXEL_DATA, KEY, Setup, UUID, configuration, content, done, load, object_url,
    own_lines, request, section, uuid,
};

tests![
    each_operation_is_one_request,
    the_check_at_the_start_is_one_request,
    legacy_unknown_files_cost_a_second_request_where_they_are_looked_for,
    legacy_unknown_files_are_left_alone_where_nobody_asks_for_them,
    attachments_of_every_size_come_back_byte_for_byte,
    a_hundred_megabytes_come_back_byte_for_byte,
    a_range_is_exactly_what_was_asked_for,
    a_range_beyond_the_end_is_a_bad_range,
    many_threads_store_read_and_delete_at_once,
    there_are_never_more_connections_than_allowed,
    requests_one_after_the_other_share_a_connection,
    object_names_are_the_root_path_byte_for_byte,
    object_names_depend_on_the_structure_and_the_type,
    an_attachment_that_is_stored_again_is_replaced,
    a_missing_object_is_told_from_a_missing_bucket,
    an_attachment_without_a_proper_uuid_is_refused_without_a_request,
    every_operation_leaves_a_line_with_type_bytes_time_and_speed,
];

const MIB: usize = 1024 * 1024;

fn each_operation_is_one_request<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
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
    assert!(setup.stored().is_empty());
    setup.check()
}

fn the_check_at_the_start_is_one_request<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let host = load::<C>(configuration::<C>(section::<C>(&server, &json!({}))))??;
    let requests = server.last_requests();
    assert_eq!(requests.len() as u64, C::REQUESTS_AT_START, "{requests:#?}");
    let check = requests.last().map(|check| (check.operation, check.status));
    assert_eq!(check, Some((request::READ, Some(404))));
    assert_eq!(own_lines::<C>(&host.logs(), LogLevel::Error), [""; 0]);
    Ok(())
}

fn legacy_unknown_files_cost_a_second_request_where_they_are_looked_for<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"EnableLegacyUnknownFiles": true}))?;
    let (regular, old) = (format!("{UUID}.dcm.head"), format!("{UUID}.unk"));
    setup.server.insert(C::BUCKET, &old, "old");
    assert_eq!(done(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA))?, b"old");
    assert_eq!(setup.requests(), 2);
    assert_eq!(done(setup.host.read_range(UUID, DICOM_UNTIL_PIXEL_DATA, 1, 2))?, b"ld");
    assert_eq!(setup.requests(), 2);
    setup.server.insert(C::BUCKET, &regular, "new");
    assert_eq!(done(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA))?, b"new");
    assert_eq!(setup.requests(), 1);
    assert_eq!(setup.errors(), [""; 0], "the first name is allowed to be missing");

    done(setup.host.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((setup.requests(), setup.stored().len()), (2, 0));
    // Only the headers were ever stored under that name.
    setup.server.insert(C::BUCKET, &old, "old");
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    assert_eq!(setup.requests(), 1);
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!((setup.requests(), setup.stored().len()), (1, 1));
    setup.check()
}

fn legacy_unknown_files_are_left_alone_where_nobody_asks_for_them<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    setup.server.insert(C::BUCKET, &format!("{UUID}.unk"), "old");
    assert_eq!(setup.host.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA), Err(INEXISTENT_FILE));
    done(setup.host.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((setup.requests(), setup.stored().len()), (2, 1));
    setup.check()
}

/// Stores so many bytes and reads them back, whole and in part.
fn round_trip<C: Cloud>(setup: &Setup<C>, size: usize) -> Result<()> {
    let bytes = content(size);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert!(
        setup.server.object(C::BUCKET, KEY).is_some_and(|stored| stored.bytes == bytes),
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

fn attachments_of_every_size_come_back_byte_for_byte<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    for size in [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, MIB, MIB + 1, 20_000_000] {
        round_trip(&setup, size)?;
    }
    setup.check()
}

fn a_hundred_megabytes_come_back_byte_for_byte<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    round_trip(&setup, 100_000_000)?;
    setup.check()
}

fn a_range_is_exactly_what_was_asked_for<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
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

fn a_range_beyond_the_end_is_a_bad_range<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
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
    let object = object_url::<C>(KEY);
    let line = format!("cannot read {object}: the range is outside of the object");
    assert_eq!((setup.errors().len(), setup.errors().first()), (6, Some(&line)));
    // Orthanc could not even ask for these bytes.
    assert_eq!(setup.host.read_range(UUID, DICOM, u64::MAX, 2), Err(BAD_RANGE));
    assert_eq!(setup.requests(), 0);
    setup.check()
}

fn many_threads_store_read_and_delete_at_once<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
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
    assert_eq!(setup.stored().len(), 8 * 25);
    assert_eq!(setup.requests(), 8 * (50 * 3 + 25));
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

fn there_are_never_more_connections_than_allowed<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"MaxConnections": 3}))?;
    let hold = setup.server.hold(request::CREATE);
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
    assert_eq!(setup.stored().len(), 16);
    // One more was opened by the check at the start, before the counts were reset.
    assert!(setup.server.connections_accepted() <= 3, "{}", setup.server.connections_accepted());
    setup.check()
}

fn requests_one_after_the_other_share_a_connection<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    for number in 0..50 {
        done(setup.host.create(&uuid(number), DICOM, &content(10_000)))?;
        assert_eq!(done(setup.host.read_whole(&uuid(number), DICOM))?.len(), 10_000);
    }
    assert_eq!(setup.server.requests().total, 100);
    assert!(setup.server.connections_accepted() <= 2, "{}", setup.server.connections_accepted());
    assert!(setup.server.connections_open() <= 2, "{}", setup.server.connections_open());
    setup.check()
}

fn object_names_are_the_root_path_byte_for_byte<C: Cloud>() -> Result<()> {
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
    let setup = Setup::<C>::start()?;
    let bytes = content(1000);
    for root in roots {
        let section = section::<C>(&setup.server, &json!({"RootPath": root}));
        let host = load::<C>(configuration::<C>(section))?.with_context(|| root.to_owned())?;
        done(host.create(UUID, DICOM, &bytes)).with_context(|| root.to_owned())?;
        assert_eq!(setup.stored(), [C::stored_name(&format!("{root}/{KEY}"))]);
        assert_eq!(done(host.read_whole(UUID, DICOM))?, bytes);
        done(host.remove(UUID, DICOM))?;
        assert!(setup.stored().is_empty(), "{root}");
    }
    Ok(())
}

fn object_names_depend_on_the_structure_and_the_type<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    let types = [(0, ".unk"), (1, ".dcm"), (2, ".json"), (3, ".dcm.head"), (1024, ".unk"), (65535, ".unk")];
    for (content_type, extension) in types {
        done(setup.host.create(UUID, content_type, b"x"))?;
        assert_eq!(setup.stored(), [format!("{UUID}{extension}")]);
        done(setup.host.remove(UUID, content_type))?;
    }
    let setup = Setup::<C>::with(&json!({"StorageStructure": "legacy", "RootPath": "root/"}))?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(setup.stored(), [format!("root/fb/4b/{UUID}")]);
    setup.check()
}

fn an_attachment_that_is_stored_again_is_replaced<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, &content(100_000)))?;
    done(setup.host.create(UUID, DICOM, b"shorter"))?;
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, b"shorter");
    assert_eq!(setup.requests(), 3);
    setup.check()
}

fn a_missing_object_is_told_from_a_missing_bucket<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    let line = setup.only_error();
    let (object, code) = (object_url::<C>(KEY), C::NO_SUCH_OBJECT);
    let expected = format!("cannot read {object}: no such object (HTTP 404 {code}: ");
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(setup.host.read_range(UUID, DICOM, 0, 10), Err(INEXISTENT_FILE));
    assert_eq!((setup.requests(), setup.errors().len()), (2, 2), "neither is tried again");
    done(setup.host.remove(UUID, DICOM))?;
    assert_eq!((setup.requests(), setup.errors().len()), (1, 2), "what is not there needs no deletion");

    let code = C::NO_SUCH_BUCKET;
    setup.server.faults().push(FaultRule::new(Fault::status(404, code)).times(4));
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
            "cannot {operation} {object}: the bucket does not exist: create it, or correct its \
             name in the configuration (HTTP 404 {code}: "
        );
        assert!(line.starts_with(&expected), "{line}");
    }
    setup.check()
}

fn an_attachment_without_a_proper_uuid_is_refused_without_a_request<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    for uuid in ["", "../../../../../../etc/passwd-xxxxxxxx", "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1", "x"] {
        assert_eq!(setup.host.create(uuid, DICOM, b"x"), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
        assert_eq!(setup.host.read_whole(uuid, DICOM), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
        assert_eq!(setup.host.remove(uuid, DICOM), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
    }
    assert_eq!(setup.requests(), 0);
    setup.check()
}

fn every_operation_leaves_a_line_with_type_bytes_time_and_speed<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, &content(1_234_567)))?;
    done(setup.host.read_whole(UUID, DICOM))?;
    done(setup.host.read_range(UUID, DICOM, 0, 1000))?;
    done(setup.host.remove(UUID, DICOM))?;
    let lines = setup.lines(LogLevel::Info);
    let beginnings = [("stored", 1_234_567), ("read", 1_234_567), ("read a range of", 1000), ("deleted", 0)];
    let object = object_url::<C>(KEY);
    let beginnings = beginnings.map(|(what, bytes)| format!("{what} {object} (dicom): {bytes} bytes in "));
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
