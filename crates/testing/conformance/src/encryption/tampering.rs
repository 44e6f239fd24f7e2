//! Whoever can write to the bucket cannot make the plugin deliver anything that was not stored.

use anyhow::Result;
use bytes::Bytes;
use crypto_envelope::Format;
use fake_cloud::{Fault, FaultRule};
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, Setup, UUID, content, flat, request, uuid};

tests![
    a_changed_bit_anywhere_is_an_error,
    a_truncated_or_extended_object_is_an_error,
    swapped_segments_are_an_error,
    an_a2_object_under_another_name_is_an_error,
    an_object_that_was_replaced_after_its_header_was_read_is_read_anew,
    an_object_that_became_very_short_after_its_header_was_read_is_read_anew,
    a_download_that_is_cut_goes_on_and_decrypts,
    an_object_that_is_replaced_while_it_is_read_is_not_mixed_with_the_new_one,
];

/// Three segments and a piece.
const SIZE: usize = 3 * 65_536 + 1000;
const SEALED: usize = 65_536 + 16;

fn key(uuid: &str) -> String {
    format!("{}.enc", flat(uuid))
}

/// Whether neither the whole nor a range of the first three segments is delivered. What the host hands out after an
/// error is nothing, and it complains where the plugin left something in a buffer that it owns.
fn assert_not_delivered<C: Cloud>(setup: &Setup<C>, what: &str) -> Result<()> {
    let codes = [CORRUPTED_FILE, STORAGE_AREA_PLUGIN, BAD_RANGE];
    for outcome in [
        setup.host.read_whole(UUID, DICOM),
        setup.host.read_range(UUID, DICOM, 0, 3 * 65_536),
        setup.host.read_range(UUID, DICOM, 0, 3 * 65_536),
    ] {
        assert!(
            outcome.as_ref().is_err_and(|code| codes.contains(code)),
            "{what}: {:?}",
            outcome.map(|_| ())
        );
    }
    setup.check()
}

fn a_changed_bit_anywhere_is_an_error<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let setup = Setup::<C>::encrypted("A2")?;
        let object = setup.keys.seal(format, UUID, &content(SIZE))?;
        // Version, key id, algorithm, k, W, salt, wrapped key, first segment, its tag, third segment, and its tag.
        let places = [
            0,
            1,
            2,
            5,
            6,
            7,
            8,
            9,
            10,
            41,
            42,
            81,
            82,
            30_000,
            82 + SEALED - 1,
            2 * SEALED + 90,
            82 + 3 * SEALED - 1,
        ];
        for place in places {
            let mut altered = object.clone();
            altered[place] ^= 1;
            setup.insert(&key(UUID), altered);
            assert_not_delivered(&setup, &format!("{format} byte {place}"))?;
        }
        setup.insert(&key(UUID), object);
        assert!(setup.read(UUID)? == content(SIZE));
    }
    Ok(())
}

fn a_truncated_or_extended_object_is_an_error<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let setup = Setup::<C>::encrypted("A2")?;
        let object = setup.keys.seal(format, UUID, &content(SIZE))?;
        let lengths = [
            0,
            1,
            2,
            6,
            41,
            81,
            82,
            97,
            98,
            82 + SEALED,
            82 + 2 * SEALED,
            82 + 3 * SEALED,
            82 + 3 * SEALED + 16,
            object.len() - 16,
            object.len() - 1,
        ];
        for length in lengths {
            setup.insert(&key(UUID), object[..length].to_vec());
            let whole = setup.host.read_whole(UUID, DICOM);
            assert_eq!(whole, Err(CORRUPTED_FILE), "{format} {length}");
            // A range may be served from segments that are whole and not the last one, and from nothing else.
            let range = setup.host.read_range(UUID, DICOM, SIZE as u64 - 2000, 2000);
            assert!(
                range.is_err_and(|code| [CORRUPTED_FILE, BAD_RANGE].contains(&code)),
                "{format} {length}"
            );
            setup.check()?;
        }
        setup.insert(&key(UUID), [&object[..], b"x"].concat());
        assert_eq!(setup.host.read_whole(UUID, DICOM), Err(CORRUPTED_FILE));
        assert!(setup.host.read_range(UUID, DICOM, SIZE as u64 - 10, 10).is_err());
        setup.check()?;
    }
    Ok(())
}

fn swapped_segments_are_an_error<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let object = setup.keys.seal(Format::A2, UUID, &content(SIZE))?;
    let (header, segments) = object.split_at(82);
    let swapped =
        [header, &segments[SEALED..2 * SEALED], &segments[..SEALED], &segments[2 * SEALED..]].concat();
    setup.insert(&key(UUID), swapped);
    assert_not_delivered(&setup, "swapped segments")?;
    Ok(())
}

fn an_a2_object_under_another_name_is_an_error<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    setup.create(&uuid(1), &content(SIZE))?;
    setup.insert(&key(UUID), setup.object(&key(&uuid(1)))?);
    assert_not_delivered(&setup, "swapped objects")?;
    assert!(setup.last_error().contains(UUID), "{}", setup.last_error());
    Ok(())
}

fn an_object_that_was_replaced_after_its_header_was_read_is_read_anew<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({"Format": "A2", "ReadUnencrypted": true}))?;
    // Shorter, longer, of the same length, and in A1: each stored by another Orthanc meanwhile.
    let replacements = [
        (Format::A2, SIZE - 100_000),
        (Format::A2, 5 * SIZE),
        (Format::A2, 5 * SIZE),
        (Format::A1, SIZE),
        (Format::A2, SIZE),
    ];
    setup.create(UUID, &content(SIZE))?;
    setup.range(UUID, 0, 10)?;
    for (round, (format, size)) in replacements.into_iter().enumerate() {
        let whole: Vec<u8> = content(size + round)[round..].to_vec();
        setup.insert(&key(UUID), setup.keys.seal(format, UUID, &whole)?);
        let start = size - 10;
        assert!(setup.range(UUID, start as u64, 10)? == whole[start..], "{round}");
        assert!(setup.range(UUID, 70_000, 10)? == whole[70_000..70_010], "{round}");
        assert!(setup.read(UUID)? == whole, "{round}");
    }
    // And in clear, under its clear name.
    setup.range(UUID, 0, 10)?;
    setup.server.remove(C::BUCKET, &key(UUID));
    setup.insert(&flat(UUID), content(100));
    assert_eq!(setup.range(UUID, 90, 10)?, content(100)[90..]);
    setup.check()
}

fn an_object_that_became_very_short_after_its_header_was_read_is_read_anew<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    setup.create(UUID, &content(SIZE))?;
    setup.range(UUID, 0, 10)?;
    setup.insert(&key(UUID), setup.keys.seal(Format::A2, UUID, b"short")?);
    assert_eq!(setup.host.read_range(UUID, DICOM, SIZE as u64 - 10, 10), Err(BAD_RANGE));
    assert_eq!(setup.range(UUID, 0, 5)?, b"short");
    setup.server.remove(C::BUCKET, &key(UUID));
    assert_eq!(setup.host.read_range(UUID, DICOM, 0, 5), Err(INEXISTENT_FILE));
    Ok(())
}

fn a_download_that_is_cut_goes_on_and_decrypts<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let setup = Setup::<C>::encrypted("A2")?;
        let whole = content(20_000_000);
        setup.insert(&key(UUID), setup.keys.seal(format, UUID, &whole)?);
        let mut rules = Vec::new();
        for (operation, fault) in [
            (request::READ, Fault::CloseAfterResponseBytes(7_000_001)),
            (request::READ_RANGE, Fault::ResetAfterResponseBytes(5_000_000)),
        ] {
            rules.push(setup.server.faults().push(FaultRule::new(fault).on(operation)));
        }
        assert!(setup.read(UUID)? == whole, "{format}");
        assert_eq!(rules.iter().map(fake_cloud::PushedRule::fired).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(setup.cost().0, 3);
        // A range likewise.
        let fault = Fault::CloseAfterResponseBytes(100_000);
        let operation = if format == Format::A1 { request::READ } else { request::READ_RANGE };
        let rule = setup.server.faults().push(FaultRule::new(fault).on(operation));
        assert!(setup.range(UUID, 5_000_000, 1_000_000)? == whole[5_000_000..6_000_000], "{format}");
        assert_eq!(rule.fired(), 1);
        setup.check()?;
    }
    Ok(())
}

fn an_object_that_is_replaced_while_it_is_read_is_not_mixed_with_the_new_one<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let (old, new) = (content(20_000_000), vec![9; 20_000_000]);
    setup.create(UUID, &old)?;
    let replacement = Bytes::from(setup.keys.seal(Format::A2, UUID, &new)?);
    setup.server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(7_000_000)).on(request::READ));
    setup.server.faults().push(FaultRule::new(Fault::ReplaceObject(replacement)).on(request::READ_RANGE));
    assert!(setup.host.read_whole(UUID, DICOM).is_err());
    assert!(setup.read(UUID)? == new);
    setup.check()
}
