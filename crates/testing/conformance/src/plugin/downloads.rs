//! Interrupted downloads, and content that differs from what was stored.

use anyhow::Result;
use crypto_envelope::Format;
use fake_cloud::{Fault, FaultRule, Odd, Operation};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, content, flat_encrypted, object_url, own_lines, request,
};

tests! {
    EveryCloud:
        broken_download_resumes_where_it_stopped,
        read_of_a_replaced_object_starts_over,
        changed_byte_is_read_again,
        changed_object_is_an_error,
        whole_object_read_as_a_range_is_verified,
        wrong_checksum_of_an_encrypted_object_is_a_warning;
    OneCloud:
        stalled_download_resumes_where_it_stopped,
        progress_resets_the_retries_of_a_download,
        download_without_progress_is_given_up,
        resumed_download_is_retried,
}

/// Bytes of the attachment.
const SIZE: usize = 8_000_000;

/// Loads a plugin whose bucket contains the attachment.
fn with_attachment<C: Cloud>(options: &Value) -> Result<LoadedPlugin<C>> {
    let plugin = LoadedPlugin::<C>::with(options)?;
    plugin.insert(KEY, content(SIZE));
    Ok(plugin)
}

/// Checks the ranges of all requests, `-` for a whole read.
fn assert_ranges<C: Cloud>(plugin: &LoadedPlugin<C>, expected: &[&str]) {
    let ranges = plugin.ranges().into_iter().map(|range| range.unwrap_or_else(|| "-".to_owned()));
    assert_eq!(ranges.collect::<Vec<_>>(), expected);
}

fn broken_download_resumes_where_it_stopped<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({}))?;
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_001), 1);
    assert!(plugin.read(UUID)? == content(SIZE));
    assert_ranges(&plugin, &["-", "bytes=3000001-7999999"]);
    assert_eq!(plugin.cost(), (2, SIZE as u64), "no byte is sent twice");

    plugin.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(1_000_000), 1);
    assert!(plugin.range(UUID, 5, 4_000_000)? == content(SIZE)[5..4_000_005]);
    assert_ranges(&plugin, &["bytes=5-4000004", "bytes=1000005-4000004"]);
    assert_eq!(plugin.cost(), (2, 4_000_000), "no byte is sent twice");

    // A reset discards bytes that the kernel has not delivered yet. They are requested again.
    plugin.fault(request::READ, Fault::ResetAfterResponseBytes(3_000_000), 1);
    assert!(plugin.read(UUID)? == content(SIZE));
    assert_eq!(plugin.requests(), 2);
    plugin.check()
}

fn stalled_download_resumes_where_it_stopped<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({"ConnectionTimeout": 1}))?;
    plugin.fault(request::READ, Fault::StallResponseAfter(1_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::StallResponseAfter(3_000_000), 1);
    assert!(plugin.read(UUID)? == content(SIZE));
    assert_ranges(&plugin, &["-", "bytes=1000000-7999999", "bytes=4000000-7999999"]);
    plugin.check()
}

fn progress_resets_the_retries_of_a_download<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({"MaxRetries": 1}))?;
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(1_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(2_000_000), 3);
    assert!(plugin.read(UUID)? == content(SIZE));
    let starts = [1_000_000, 3_000_000, 5_000_000, 7_000_000].map(|start| format!("bytes={start}-7999999"));
    assert_ranges(&plugin, &["-", &starts[0], &starts[1], &starts[2], &starts[3]]);
    assert_eq!(plugin.cost().1, SIZE as u64);
    plugin.check()
}

fn download_without_progress_is_given_up<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({"MaxRetries": 2}))?;
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(0), usize::MAX);
    assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(plugin.requests(), 3);
    let line = plugin.new_error()?;
    assert!(line.contains(&object_url::<C>(KEY)) && line.contains("3 attempts"), "{line}");
    plugin.check()
}

fn resumed_download_is_retried<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({}))?;
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::slow_down(), 2);
    assert!(plugin.read(UUID)? == content(SIZE));
    assert_eq!(plugin.requests(), 4);
    plugin.check()
}

fn read_of_a_replaced_object_starts_over<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for (size, new_size, is_range) in [
        (SIZE, SIZE, false),
        (SIZE, SIZE, true),
        (SIZE, SIZE + 1, false),
        (SIZE, 3_500_000, false),
        (SIZE, 3_500_000, true),
        (SIZE, 0, true),
        // Its first bytes are used when all have arrived.
        (100_000, 100_000, false),
        (100_000, 100_000, true),
    ] {
        plugin.insert(KEY, content(size));
        let operation = if is_range { request::READ_RANGE } else { request::READ };
        plugin.fault(operation, Fault::CloseAfterResponseBytes(size as u64 * 3 / 8), 1);
        let replacement = Fault::ReplaceObject(vec![7; new_size].into());
        plugin.server.faults().push(FaultRule::new(replacement).on(request::READ_RANGE));
        let outcome = if is_range {
            plugin.orthanc.read_range(UUID, DICOM, 1, size - 2)
        } else {
            plugin.orthanc.read_whole(UUID, DICOM)
        };
        let expected = match is_range {
            false => Ok(vec![7; new_size]),
            true if new_size == size => Ok(vec![7; size - 2]),
            true => Err(BAD_RANGE),
        };
        assert!(outcome == expected, "{new_size}, range: {is_range}: {:?}", plugin.errors());
        assert!(plugin.requests() <= 4, "each read starts over once");
    }
    let infos = own_lines::<C>(&plugin.orthanc.logs(), LogLevel::Info);
    let changed =
        infos.iter().filter(|line| line.contains("changed") && line.contains(&object_url::<C>(KEY)));
    assert_eq!(changed.count(), 8, "{infos:#?}");
    plugin.check()
}

/// Reads the attachment as a whole, or as a range, as newer releases of Orthanc do.
fn read<C: Cloud>(plugin: &LoadedPlugin<C>, operation: Operation, size: usize) -> Result<Vec<u8>, i32> {
    match operation {
        request::READ => plugin.orthanc.read_whole(UUID, DICOM),
        _ => plugin.orthanc.read_range(UUID, DICOM, 0, size),
    }
}

fn changed_byte_is_read_again<C: Cloud>() -> Result<()> {
    for operation in [request::READ, request::READ_RANGE] {
        for offset in [0, 5_000_000, SIZE as u64 - 1] {
            let plugin = with_attachment::<C>(&json!({}))?;
            plugin.fault(operation, Fault::CorruptResponseByte(offset), 1);
            assert!(read(&plugin, operation, SIZE) == Ok(content(SIZE)), "{operation:?}");
            assert_eq!(downloads(&plugin), 2, "{operation:?}");
            plugin.check()?;
        }
    }
    let plugin = with_attachment::<C>(&json!({}))?;
    // The same in the rest of a resumed download.
    plugin.requests();
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::CorruptResponseByte(17), 1);
    assert!(plugin.read(UUID)? == content(SIZE));
    assert_ranges(&plugin, &["-", "bytes=3000000-7999999", "-"]);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn changed_object_is_an_error<C: Cloud>() -> Result<()> {
    for operation in [request::READ, request::READ_RANGE] {
        for fault in [Fault::CorruptResponseByte(5_000_000), Fault::Odd(Odd::WrongChecksum)] {
            if operation == request::READ_RANGE && fault == Fault::Odd(Odd::WrongChecksum) {
                continue;
            }
            let plugin = with_attachment::<C>(&json!({}))?;
            damage(&plugin, &fault);
            let outcome = read(&plugin, operation, SIZE).map(|bytes| bytes.len());
            assert_eq!(outcome, Err(CORRUPTED_FILE), "{operation:?} {fault:?}");
            assert_eq!(downloads(&plugin), 2, "read again once: {operation:?} {fault:?}");
            let line = plugin.new_error()?;
            assert!(
                line.contains(&object_url::<C>(KEY)) && line.contains("\"VerifyChecksums\": false"),
                "{line}"
            );
            plugin.check()?;

            let plugin = with_attachment::<C>(&json!({"VerifyChecksums": false}))?;
            damage(&plugin, &fault);
            assert_eq!(read(&plugin, operation, SIZE).map(|bytes| bytes.len()), Ok(SIZE));
            assert_eq!(plugin.requests(), 1);
            plugin.check()?;
        }
    }
    Ok(())
}

/// Damages all answers to reads, with and without a range: a whole object may be read without one.
fn damage<C: Cloud>(plugin: &LoadedPlugin<C>, fault: &Fault) {
    for operation in [request::READ, request::READ_RANGE] {
        plugin.fault(operation, fault.clone(), usize::MAX);
    }
}

/// Number of requests for content.
fn downloads<C: Cloud>(plugin: &LoadedPlugin<C>) -> u64 {
    let requests = plugin.server.requests();
    requests.of(request::READ) + requests.of(request::READ_RANGE)
}

fn whole_object_read_as_a_range_is_verified<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    // The MD5 of a large object takes longer than a request.
    for (size, checksum_requests) in [(1, 0), (100_000, 0), (20_000_000, C::CHECKSUM_REQUESTS)] {
        plugin.insert(KEY, content(size));
        plugin.requests();
        assert!(plugin.range(UUID, 0, size)? == content(size), "{size}");
        assert_eq!(plugin.server.requests().of(request::HEAD), checksum_requests, "{size}");
        assert_eq!(plugin.requests(), 1 + checksum_requests, "{size}");

        damage(&plugin, &Fault::CorruptResponseByte(size as u64 / 2));
        assert_eq!(
            read(&plugin, request::READ_RANGE, size).map(|bytes| bytes.len()),
            Err(CORRUPTED_FILE),
            "{size}"
        );
        // An ETag that is not the MD5 may be something else, so the server is asked. The answer to a request without a range
        // has the checksum.
        let each = if size == 100_000 { 1 } else { 1 + C::CHECKSUM_REQUESTS };
        assert_eq!(plugin.requests(), 2 * each, "{size}");
        plugin.new_error()?;
        // A part of the object has no checksum.
        if size > 1 {
            assert_eq!(plugin.range(UUID, 0, size - 1)?.len(), size - 1);
            assert_eq!(plugin.requests(), 1);
        }
        plugin.server.faults().clear();
    }
    plugin.check()
}

fn wrong_checksum_of_an_encrypted_object_is_a_warning<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let plugin = LoadedPlugin::<C>::encrypted("A2")?;
        for size in [1000, SIZE] {
            let object = plugin.keys.seal(format, UUID, &content(size))?;
            plugin.insert(&flat_encrypted(UUID), object);
            plugin.fault(request::READ, Fault::Odd(Odd::WrongChecksum), usize::MAX);
            plugin.requests();
            assert!(plugin.read(UUID)? == content(size), "{format} {size}");
            assert_eq!(plugin.requests(), 1, "{format} {size}");
            let warnings = plugin.lines(LogLevel::Warning);
            let is_about_checksum = |line: &&String| {
                line.contains(&object_url::<C>(&flat_encrypted(UUID))) && line.contains("checksum")
            };
            let last = warnings.last().filter(is_about_checksum);
            assert_eq!(last.is_some(), !C::CHECKSUM_IS_MD5, "{warnings:#?}");
        }
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()?;
    }
    Ok(())
}
