//! The requests and connections of single operations.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fake_cloud::{Fault, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, INEXISTENT_FILE, PARAMETER_OUT_OF_RANGE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, DICOM_UNTIL_PIXEL_DATA, KEY, LoadedPlugin, UUID, configuration, content, done, load, object_url,
    own_lines, request, section, uuid,
};

tests! {
    EveryCloud:
        start_reads_writes_and_deletes,
        attachments_come_back_byte_for_byte,
        range_beyond_the_end_is_a_bad_range,
        missing_objects_and_buckets_are_reported;
    OneCloud:
        legacy_unknown_files_are_found_if_enabled,
        many_threads_store_read_and_delete,
        connections_are_limited,
        connections_are_reused,
        malformed_uuids_cause_no_request,
        each_operation_logs_one_info_line,
}

fn start_reads_writes_and_deletes<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let orthanc = load::<C>(configuration::<C>(section::<C>(&server, &json!({}))))??;
    let requests = server.last_requests();
    assert_eq!(requests.len() as u64, C::REQUESTS_AT_START, "{requests:#?}");
    let operations: Vec<_> = requests.iter().map(|check| check.operation).collect();
    assert_eq!(operations, [request::READ, request::CREATE, request::REMOVE]);
    assert_eq!(requests[0].status, Some(404));
    assert_eq!(own_lines::<C>(&orthanc.logs(), LogLevel::Error), [""; 0]);
    assert_eq!(server.keys(C::BUCKET), [""; 0]);
    Ok(())
}

fn legacy_unknown_files_are_found_if_enabled<C: Cloud>() -> Result<()> {
    let old = format!("{UUID}.unk");
    let read = |plugin: &LoadedPlugin<C>| plugin.orthanc.read_whole(UUID, DICOM_UNTIL_PIXEL_DATA);
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.insert(&old, "old");
    assert_eq!(read(&plugin), Err(INEXISTENT_FILE));
    assert_eq!(plugin.requests(), 5, "four for the names of other configurations");
    done(plugin.orthanc.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((plugin.requests(), plugin.stored().len()), (1, 1));

    let plugin = LoadedPlugin::<C>::with(&json!({"EnableLegacyUnknownFiles": true}))?;
    plugin.insert(&old, "old");
    assert_eq!(done(read(&plugin))?, b"old");
    assert_eq!(plugin.requests(), 2);
    assert_eq!(done(plugin.orthanc.read_range(UUID, DICOM_UNTIL_PIXEL_DATA, 1, 2))?, b"ld");
    assert_eq!(plugin.requests(), 2);
    plugin.insert(&format!("{UUID}.dcm.head"), "new");
    assert_eq!(done(read(&plugin))?, b"new");
    assert_eq!(plugin.requests(), 1);
    assert_eq!(plugin.errors(), [""; 0], "the first name may be missing");
    done(plugin.orthanc.remove(UUID, DICOM_UNTIL_PIXEL_DATA))?;
    assert_eq!((plugin.requests(), plugin.stored().len()), (1, 0), "one request for both names");

    // Only headers were ever stored under that name.
    plugin.insert(&old, "old");
    assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    assert_eq!(plugin.requests(), 3, "two for the names of other configurations");
    plugin.remove(UUID)?;
    assert_eq!((plugin.requests(), plugin.stored().len()), (1, 1));
    plugin.check()
}

fn attachments_come_back_byte_for_byte<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for size in [0, 1, 64 * 1024, 20_000_000, 100_000_000] {
        let bytes = content(size);
        plugin.create(UUID, &bytes)?;
        assert!(plugin.object(KEY)? == bytes, "{size} bytes as stored");
        assert!(plugin.read(UUID)? == bytes, "{size} bytes as read");
        let start = size / 3;
        let length = size.div_ceil(2);
        let range = plugin.range(UUID, start as u64, length)?;
        assert!(range == bytes[start..start + length], "a range of {size} bytes");
    }
    plugin.check()
}

fn range_beyond_the_end_is_a_bad_range<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.create(UUID, &content(1000))?;
    plugin.create(&uuid(1), b"")?;
    plugin.server.reset_counts();
    for (uuid, start, length) in [
        (UUID, 999, 2),
        (UUID, 0, 1001),
        (UUID, 1000, 1),
        (UUID, 5000, 10),
        (UUID, 1 << 62, 5),
        (&uuid(1), 0, 1),
    ] {
        let outcome = plugin.orthanc.read_range(uuid, DICOM, start, length);
        assert_eq!(outcome, Err(BAD_RANGE), "{length} bytes from {start}");
        let line = plugin.new_error()?;
        let size = if uuid == UUID { 1000 } else { 0 };
        let object = object_url::<C>(&format!("{uuid}.dcm"));
        assert!(line.contains(&format!("{object}, which has {size} bytes;")), "{line}");
        assert_eq!(plugin.requests(), 2, "no retries; the second request is for the size");
    }
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, u64::MAX, 2), Err(BAD_RANGE));
    assert_eq!(plugin.range(UUID, 5, 0)?, b"");
    assert_eq!(plugin.requests(), 0, "an impossible and an empty range");
    plugin.check()
}

fn many_threads_store_read_and_delete<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    let work = |thread: usize| -> Result<()> {
        for round in 0..50 {
            let uuid = uuid(thread * 1000 + round);
            let bytes = content(2 + thread * 31 + round * 4001);
            plugin.create(&uuid, &bytes)?;
            assert!(plugin.read(&uuid)? == bytes);
            assert!(plugin.range(&uuid, 1, bytes.len() - 1)? == bytes[1..]);
            if round % 2 == 0 {
                plugin.remove(&uuid)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    assert_eq!(plugin.stored().len(), 8 * 25);
    let requests = plugin.server.requests();
    let deletions = requests.of(Operation::DeleteObjects) + requests.of(request::REMOVE);
    assert_eq!(requests.total - deletions, 8 * 50 * 3, "{requests:?}");
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn connections_are_limited<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxConnections": 3}))?;
    let hold = plugin.server.hold(request::CREATE);
    thread::scope(|scope| -> Result<()> {
        let store = |number: usize| plugin.create(&uuid(number), &content(1000));
        let threads: Vec<_> = (0..16).map(|number| scope.spawn(move || store(number))).collect();
        assert!(hold.wait_until(3, Duration::from_secs(30)));
        assert!(!hold.wait_until(4, Duration::from_millis(300)), "there is a fourth request");
        assert_eq!(plugin.server.connections_open(), 3);
        hold.release();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    assert_eq!(plugin.stored().len(), 16);
    // The check at the start has opened one of the three connections.
    assert!(plugin.server.connections_accepted() <= 3, "{}", plugin.server.connections_accepted());
    plugin.check()
}

fn connections_are_reused<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for number in 0..50 {
        plugin.create(&uuid(number), &content(10_000))?;
        assert_eq!(plugin.read(&uuid(number))?.len(), 10_000);
    }
    assert_eq!(plugin.server.requests().total, 100);
    assert!(plugin.server.connections_accepted() <= 2, "{}", plugin.server.connections_accepted());
    assert!(plugin.server.connections_open() <= 2, "{}", plugin.server.connections_open());
    plugin.check()
}

fn missing_objects_and_buckets_are_reported<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    let object = object_url::<C>(KEY);
    let operations: [&dyn Fn() -> Result<(), i32>; 3] = [
        &|| plugin.orthanc.read_whole(UUID, DICOM).map(drop),
        &|| plugin.orthanc.read_range(UUID, DICOM, 0, 1).map(drop),
        &|| plugin.orthanc.create(UUID, DICOM, b"x"),
    ];
    // The first read looks for the names of two other configurations.
    for (read, requests) in operations[..2].iter().zip([3, 1]) {
        assert_eq!(read(), Err(INEXISTENT_FILE));
        let line = plugin.new_error()?;
        assert!(line.contains(&object) && line.contains(C::NO_SUCH_OBJECT), "{line}");
        assert_eq!(plugin.requests(), requests, "no retries");
    }
    plugin.remove(UUID)?;
    assert_eq!((plugin.requests(), plugin.errors().len()), (1, 2), "a missing object is already deleted");

    for operation in operations {
        plugin.server.faults().clear();
        let missing = fake_cloud::FaultRule::new(Fault::status(404, C::NO_SUCH_BUCKET));
        plugin.server.faults().push(missing);
        assert_eq!(operation(), Err(STORAGE_AREA_PLUGIN));
        let line = plugin.new_error()?;
        assert!(line.contains(&object) && line.contains(C::NO_SUCH_BUCKET), "{line}");
        assert_eq!(plugin.requests(), 1, "no retries");
    }
    plugin.check()
}

fn malformed_uuids_cause_no_request<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for uuid in ["", "../../../../../../etc/passwd-xxxxxxxx", "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1", "x"] {
        assert_eq!(plugin.orthanc.create(uuid, DICOM, b"x"), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
        assert_eq!(plugin.orthanc.read_whole(uuid, DICOM), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
        assert_eq!(plugin.orthanc.remove(uuid, DICOM), Err(PARAMETER_OUT_OF_RANGE), "{uuid}");
    }
    assert_eq!(plugin.requests(), 0);
    plugin.check()
}

fn each_operation_logs_one_info_line<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.server.latency(Duration::from_millis(20));
    plugin.create(UUID, &content(1_234_567))?;
    plugin.read(UUID)?;
    plugin.range(UUID, 0, 1000)?;
    plugin.remove(UUID)?;
    plugin.settle();
    let mut lines = plugin.lines(LogLevel::Info);
    let start = lines.iter().position(|line| line.starts_with("credentials: ")).unwrap_or_default();
    lines.drain(..=start);
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(
        lines[3].contains("marked for deletion") && lines[3].contains(&object_url::<C>(KEY)),
        "{lines:#?}"
    );
    assert!(lines[4].contains("deleted: 1"), "{lines:#?}");
    for (line, bytes) in lines.iter().zip([1_234_567, 1_234_567, 1000]) {
        assert!(line.contains(&object_url::<C>(KEY)) && line.contains("dicom"), "{line}");
        // The number before a unit.
        let figure = |unit: &str| -> Result<f64> {
            let number = line.split(&format!(" {unit}")).next().and_then(|text| text.rsplit(' ').next());
            Ok(number.unwrap_or_default().parse()?)
        };
        assert_eq!(figure("bytes")?, f64::from(bytes), "{line}");
        let milliseconds = figure("ms")?;
        assert!((20.0..10_000.0).contains(&milliseconds), "{line}");
        // The log cuts off milliseconds, and the speed has one decimal.
        let least = f64::from(bytes) / 1e3 / (milliseconds + 1.0) - 0.06;
        let most = f64::from(bytes) / 1e3 / milliseconds + 0.06;
        assert!((least..=most).contains(&figure("MB/s")?), "{line}");
    }
    plugin.check()
}
