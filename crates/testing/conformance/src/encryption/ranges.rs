//! Ranges of encrypted objects: exact bytes, with as few requests and transferred bytes as possible.

use anyhow::{Context, Result};
use crypto_envelope::Format;
use fake_orthanc::LogLevel;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE};
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, Random, UUID, content, flat, flat_encrypted, object_url, uuid,
};

tests! {
    OneCloud:
        ranges_are_exact,
        random_ranges_are_exact,
        ranges_beyond_the_end_are_bad_ranges,
        range_near_the_start_is_one_request,
        known_object_saves_a_request,
        range_of_an_a1_object_reads_it_whole,
        whole_range_counts_as_a_read,
        truncated_object_is_reported_with_its_size,
}

const SEGMENT: u64 = 65_536;
/// A segment in the bucket.
const SEALED: u64 = SEGMENT + 16;
/// The header of an object.
const HEADER: u64 = 82;
/// What is read of an unknown object to recognize it.
const BEGINNING: u64 = crypto_envelope::RECOGNIZE_LEN as u64;

fn ranges_are_exact<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let segment = 65_536;
    let size = 5 * segment + 1234;
    let whole = content(size);
    let ranges = [
        (0, 1),
        (0, 4096),
        (0, segment),
        (0, segment + 1),
        (segment - 1, 2),
        (segment, segment),
        (100, 4 * segment),
        (3 * segment - 1, 1),
        (4 * segment, 1),
        (5 * segment, 1234),
        (size - 1, 1),
        (size - 70_000, 70_000),
        (0, size),
        (1, size - 1),
    ];
    for (number, (start, len)) in ranges.into_iter().enumerate() {
        let uuid = uuid(number);
        plugin.create(&uuid, &whole)?;
        for is_known in [false, true] {
            let range = plugin.range(&uuid, start as u64, len)?;
            assert!(range == whole[start..start + len], "{start} {len} {is_known}");
        }
    }
    assert_eq!(plugin.range(&uuid(0), 5, 0)?, b"");
    plugin.check()
}

fn random_ranges_are_exact<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let size = 1_000_003;
    let whole = content(usize::try_from(size)?);
    plugin.create(UUID, &whole)?;
    plugin.cost();
    let mut random = Random::new();
    for _ in 0..300 {
        let start = random.below(size);
        let len = usize::try_from(1 + random.below((size - start).min(200_000)))?;
        let first = usize::try_from(start)?;
        assert!(plugin.range(UUID, start, len)? == whole[first..first + len], "{start} {len}");
    }
    // Only the first range may need a second request.
    assert!(plugin.cost().0 <= 301);
    plugin.check()
}

fn ranges_beyond_the_end_are_bad_ranges<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    for (number, size) in [0_u64, 1, SEGMENT, 5 * SEGMENT + 7].into_iter().enumerate() {
        let uuid = uuid(number);
        plugin.create(&uuid, &content(usize::try_from(size)?))?;
        for is_known in [false, true] {
            for (start, len) in [
                (size, 1),
                (size + 1, 1),
                (size.saturating_sub(1), 2),
                (0, 500_000),
                (u64::MAX - 5, 5),
                (u64::MAX, 9),
            ] {
                let read = plugin.orthanc.read_range(&uuid, DICOM, start, len);
                assert_eq!(read, Err(BAD_RANGE), "{size} {start} {is_known}");
            }
            assert_eq!(plugin.read(&uuid)?.len() as u64, size);
        }
    }
    for start in [0, SEGMENT * 9] {
        assert_eq!(plugin.orthanc.read_range(&uuid(99), DICOM, start, 1), Err(INEXISTENT_FILE));
    }
    plugin.check()
}

fn range_near_the_start_is_one_request<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    plugin.create(UUID, &content(20_000_000))?;
    plugin.create(&uuid(1), &content(20_000_000))?;
    plugin.cost();
    plugin.range(UUID, 0, 4096)?;
    assert_eq!(plugin.cost(), (1, HEADER + SEALED));
    plugin.range(UUID, 0, 4096)?;
    assert_eq!(plugin.cost(), (1, SEALED));
    // Three segments from the start of an unknown object cost less than a second request.
    plugin.range(&uuid(1), 2 * SEGMENT - 1, 2)?;
    assert_eq!(plugin.cost(), (1, HEADER + 3 * SEALED));
    plugin.range(&uuid(1), 2 * SEGMENT - 1, 2)?;
    assert_eq!(plugin.cost(), (1, 2 * SEALED));
    Ok(())
}

fn known_object_saves_a_request<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    plugin.create(UUID, &content(20_000_000))?;
    plugin.cost();
    plugin.range(UUID, 10_000_000, 4096)?;
    assert_eq!(plugin.cost(), (2, BEGINNING + SEALED));
    for start in [15_000_000, 10_000_000, 5] {
        plugin.range(UUID, start, 4096)?;
        assert_eq!(plugin.cost(), (1, SEALED));
    }
    plugin.range(UUID, 19_999_999, 1)?;
    assert_eq!(plugin.cost(), (1, 20_000_000 % SEGMENT + 16));

    // A whole read makes an object known too.
    plugin.create(&uuid(1), &content(1_000_000))?;
    plugin.read(&uuid(1))?;
    plugin.cost();
    plugin.range(&uuid(1), 900_000, 10)?;
    assert_eq!(plugin.cost().0, 1);
    Ok(())
}

fn range_of_an_a1_object_reads_it_whole<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let whole = content(500_000);
    let mut object = plugin.keys.seal(Format::A1, UUID, &whole)?;
    plugin.insert(&flat_encrypted(UUID), object.clone());
    for (start, len) in [(0, 10), (250_000, 100_000), (499_999, 1), (0, 500_000)] {
        assert!(plugin.range(UUID, start as u64, len)? == whole[start..start + len], "{start}");
    }
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 499_999, 2), Err(BAD_RANGE));
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, u64::MAX, 2), Err(BAD_RANGE));
    *object.last_mut().context("the object is empty")? ^= 1;
    plugin.insert(&flat_encrypted(UUID), object);
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 0, 10), Err(CORRUPTED_FILE));
    plugin.check()
}

/// Newer releases of Orthanc read whole attachments as ranges.
fn whole_range_counts_as_a_read<C: Cloud>() -> Result<()> {
    let encrypted = LoadedPlugin::<C>::encrypted("A2")?;
    let clear = LoadedPlugin::<C>::start()?;
    let whole = content(200_000);
    encrypted.insert(&flat_encrypted(&uuid(1)), encrypted.keys.seal(Format::A1, &uuid(1), &whole)?);
    encrypted.create(&uuid(2), &whole)?;
    clear.create(&uuid(3), &whole)?;
    for (plugin, uuid) in [(&encrypted, uuid(1)), (&encrypted, uuid(2)), (&clear, uuid(3))] {
        // The second round knows the object.
        for _ in 0..2 {
            for (start, len, what) in
                [(0, 200_000, "read "), (0, 199_999, "read a range of "), (1, 199_999, "read a range of ")]
            {
                assert!(plugin.range(&uuid, start, len)? == whole[usize::try_from(start)?..][..len]);
                let line = plugin.lines(LogLevel::Info).pop().context("no line")?;
                assert!(line.starts_with(&format!("{what}{}", C::URL)), "{start} {len}: {line}");
            }
        }
    }
    Ok(())
}

fn truncated_object_is_reported_with_its_size<C: Cloud>() -> Result<()> {
    let encrypted = LoadedPlugin::<C>::encrypted("A2")?;
    let clear = LoadedPlugin::<C>::start()?;
    let whole = content(200_000);
    // What remains is a shorter A1 or A2 attachment.
    for (plugin, key, object) in [
        (&encrypted, flat_encrypted(UUID), encrypted.keys.seal(Format::A1, UUID, &whole[..1000])?),
        (&encrypted, flat_encrypted(UUID), encrypted.keys.seal(Format::A2, UUID, &whole[..1000])?),
        (&clear, KEY.to_owned(), whole[..1000].to_vec()),
        (&clear, flat(UUID), Vec::new()),
    ] {
        let size = if object.is_empty() { 0 } else { 1000 };
        plugin.insert(&key, object);
        for (start, len) in [(0, 200_000), (199_990, 10), (999, 2)] {
            assert_eq!(plugin.orthanc.read_range(UUID, DICOM, start, len), Err(BAD_RANGE));
            let line = plugin.new_error()?;
            let end = start + len as u64;
            let range =
                format!("cannot read bytes {start} to {end} (exclusive) of {}", object_url::<C>(&key));
            assert!(line.starts_with(&range), "{line}");
            assert!(
                line.contains(&format!("which has {size} bytes;")) && line.contains("truncated"),
                "{line}"
            );
        }
        plugin.check()?;
    }
    Ok(())
}
