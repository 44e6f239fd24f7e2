//! Ranges of A2 objects: the right bytes, and as few of them over the network as the segments allow.

use anyhow::{Context, Result};
use crypto_envelope::Format;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE};
use crate::fixture::{DICOM, Setup, UUID, content, done, flat, uuid};

tests![
    every_kind_of_range_is_the_slice_whether_the_header_is_known_or_not,
    random_ranges_are_slices,
    ranges_beyond_the_end_are_bad_ranges,
    a_range_near_the_start_is_one_request_of_header_and_segments,
    a_range_far_from_the_start_is_two_requests_and_one_when_the_object_is_known,
    after_a_whole_read_the_object_is_known,
    a_range_of_an_a1_object_is_taken_from_the_whole,
];

const SEGMENT: u64 = 65_536;
/// A segment in the bucket.
const SEALED: u64 = SEGMENT + 16;
/// The header of an object.
const HEADER: u64 = 82;

fn every_kind_of_range_is_the_slice_whether_the_header_is_known_or_not<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let size = 5 * 65_536 + 1234;
    let whole = content(size);
    let segment = 65_536;
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
        setup.create(&uuid, &whole)?;
        for known in [false, true] {
            let range = setup.range(&uuid, start as u64, len)?;
            assert!(range == whole[start..start + len], "{start} {len} {known}");
        }
    }
    assert_eq!(done(setup.host.read_range(&uuid(0), DICOM, 5, 0))?, b"");
    setup.check()
}

fn random_ranges_are_slices<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let size: usize = 1_000_003;
    let whole = content(size);
    setup.create(UUID, &whole)?;
    setup.cost();
    let mut state = 42_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    for _ in 0..300 {
        let start = random(size);
        let len = 1 + random((size - start).min(200_000));
        assert!(setup.range(UUID, start as u64, len)? == whole[start..start + len], "{start} {len}");
    }
    // One request each, and two for the first one, perhaps.
    assert!(setup.cost().0 <= 301);
    setup.check()
}

fn ranges_beyond_the_end_are_bad_ranges<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    for (number, size) in [0_u64, 1, SEGMENT, 5 * SEGMENT + 7].into_iter().enumerate() {
        let uuid = uuid(number);
        setup.create(&uuid, &content(usize::try_from(size)?))?;
        for (start, len) in [
            (size, 1),
            (size + 1, 1),
            (size.saturating_sub(1), 2),
            (0, 500_000),
            (u64::MAX - 5, 5),
            (u64::MAX, 9),
        ] {
            for known in [false, true] {
                let read = setup.host.read_range(&uuid, DICOM, start, len);
                assert_eq!(read, Err(BAD_RANGE), "{size} {start} {known}");
                if known {
                    assert_eq!(setup.read(&uuid)?.len() as u64, size);
                }
            }
        }
    }
    assert_eq!(setup.host.read_range(&uuid(99), DICOM, 0, 1), Err(INEXISTENT_FILE));
    assert_eq!(setup.host.read_range(&uuid(99), DICOM, SEGMENT * 9, 1), Err(INEXISTENT_FILE));
    setup.check()
}

fn a_range_near_the_start_is_one_request_of_header_and_segments<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    setup.create(UUID, &content(20_000_000))?;
    setup.cost();
    setup.range(UUID, 0, 4096)?;
    assert_eq!(setup.cost(), (1, HEADER + SEALED));
    setup.range(UUID, 0, 4096)?;
    assert_eq!(setup.cost(), (1, SEALED));
    // Of another object, with two segments in vain.
    setup.create(&uuid(1), &content(20_000_000))?;
    setup.cost();
    setup.range(&uuid(1), 2 * SEGMENT - 1, 2)?;
    assert_eq!(setup.cost(), (1, HEADER + 3 * SEALED));
    setup.range(&uuid(1), 2 * SEGMENT - 1, 2)?;
    assert_eq!(setup.cost(), (1, 2 * SEALED));
    Ok(())
}

fn a_range_far_from_the_start_is_two_requests_and_one_when_the_object_is_known<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    setup.create(UUID, &content(20_000_000))?;
    setup.cost();
    setup.range(UUID, 10_000_000, 4096)?;
    assert_eq!(setup.cost(), (2, HEADER + SEALED));
    for start in [15_000_000, 10_000_000, 5] {
        setup.range(UUID, start, 4096)?;
        assert_eq!(setup.cost(), (1, SEALED));
    }
    let last = 20_000_000 % SEGMENT + 16;
    setup.range(UUID, 19_999_999, 1)?;
    assert_eq!(setup.cost(), (1, last));
    Ok(())
}

fn after_a_whole_read_the_object_is_known<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    setup.create(UUID, &content(1_000_000))?;
    setup.read(UUID)?;
    setup.cost();
    setup.range(UUID, 900_000, 10)?;
    assert_eq!(setup.cost().0, 1);
    Ok(())
}

fn a_range_of_an_a1_object_is_taken_from_the_whole<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let whole = content(500_000);
    let key = format!("{}.enc", flat(UUID));
    let object = setup.keys.seal(Format::A1, UUID, &whole)?;
    setup.insert(&key, object.clone());
    for (start, len) in [(0, 10), (250_000, 100_000), (499_999, 1), (0, 500_000)] {
        assert!(setup.range(UUID, start as u64, len)? == whole[start..start + len], "{start}");
    }
    assert_eq!(setup.host.read_range(UUID, DICOM, 499_999, 2), Err(BAD_RANGE));
    assert_eq!(setup.host.read_range(UUID, DICOM, u64::MAX, 2), Err(BAD_RANGE));
    let mut altered = object;
    *altered.last_mut().context("it is empty")? ^= 1;
    setup.insert(&key, altered);
    assert_eq!(setup.host.read_range(UUID, DICOM, 0, 10), Err(CORRUPTED_FILE));
    setup.check()
}
