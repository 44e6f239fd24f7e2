//! Answers of the server that were damaged on the way, and objects that are damaged.

use anyhow::{Result, ensure};
use crypto_envelope::{Format, encrypt};
use fake_cloud::{Fault, FaultRule, Odd, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{
    DICOM, LoadedPlugin, content, flat, flat_encrypted, legacy, object_url, own_lines, request, uuid,
};

tests! {
    EveryCloud:
        damaged_answer_is_asked_for_again;
    OneCloud:
        damaged_envelope_is_not_taken_for_clear,
        shortened_answer_is_asked_for_again,
        damaged_object_is_asked_for_twice,
        missing_key_is_asked_for_twice_once,
}

/// Three segments and a shorter one.
const SIZE: usize = 3 * 65_536 + 1000;
/// Far from the start, so that an unknown object is recognized first.
const FAR: (usize, usize) = (3 * 65_536 + 500, 10);

/// A way to read an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Whole,
    Range(usize, usize),
    /// After another read, so that the form is known.
    Known(usize, usize),
}

impl Read {
    /// The request whose answer is damaged.
    fn operation(self, format: Format) -> Operation {
        match (self, format) {
            (Self::Whole, _) | (Self::Known(..), Format::A1) => request::READ,
            _ => request::READ_RANGE,
        }
    }
}

/// Each way to read an object, with the places of its answers that are damaged, and the requests in all.
fn cases(format: Format) -> Vec<(Read, Vec<u64>, u64)> {
    let last = SIZE as u64;
    match format {
        // Version, key id, EDEK, ciphertext, tag.
        Format::A1 => vec![
            (Read::Whole, vec![0, 50, 100_000, last + 80], 2),
            (Read::Range(0, SIZE), vec![3, last + 80], 2),
            (Read::Known(FAR.0, FAR.1), vec![0, 100], 2),
            // The first part and the rest, and then the whole.
            (Read::Range(0, 4096), vec![3, 60_000], 3),
        ],
        // Version, key id, algorithm, k, W, salt, wrapped key, segments, the last tag.
        Format::A2 => vec![
            (Read::Whole, vec![0, 8, 60, last + 100], 2),
            (Read::Range(0, SIZE), vec![3, 6, 20, 100_000], 2),
            (Read::Range(0, 4096), vec![7, 65_600], 2),
            (Read::Known(FAR.0, FAR.1), vec![0, 1015], 2),
            // The header, the segment, and both again.
            (Read::Range(FAR.0, FAR.1), vec![20], 4),
        ],
    }
}

/// Stores an attachment, and prepares it for the read.
fn prepare<C: Cloud>(plugin: &LoadedPlugin<C>, format: Format, number: usize, read: Read) -> Result<String> {
    let id = uuid(number);
    plugin.insert(&flat_encrypted(&id), plugin.keys.seal(format, &id, &content(SIZE))?);
    if let Read::Known(..) = read {
        plugin.range(&id, 0, 10)?;
    }
    plugin.requests();
    Ok(id)
}

fn perform<C: Cloud>(plugin: &LoadedPlugin<C>, id: &str, read: Read) -> Result<Vec<u8>, i32> {
    match read {
        Read::Whole => plugin.orthanc.read_whole(id, DICOM),
        Read::Range(start, len) | Read::Known(start, len) => {
            plugin.orthanc.read_range(id, DICOM, start as u64, len)
        }
    }
}

fn expected(read: Read) -> Vec<u8> {
    let whole = content(SIZE);
    match read {
        Read::Whole => whole,
        Read::Range(start, len) | Read::Known(start, len) => whole[start..start + len].to_vec(),
    }
}

fn damaged_answer_is_asked_for_again<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let mut number = 0;
    for format in [Format::A1, Format::A2] {
        for (read, places, requests) in cases(format) {
            for place in places {
                number += 1;
                let id = prepare(&plugin, format, number, read)?;
                let rule = plugin.fault(read.operation(format), Fault::CorruptResponseByte(place), 1);
                let outcome = perform(&plugin, &id, read);
                ensure!(outcome == Ok(expected(read)), "{format} {read:?} {place}: {:#?}", plugin.errors());
                assert_eq!(rule.fired(), 1, "{format} {read:?} {place}");
                let is_short = place < 4 && requests > 2;
                assert_eq!(plugin.requests(), requests - u64::from(is_short), "{format} {read:?} {place}");
            }
        }
    }
    assert_eq!(plugin.errors(), [""; 0]);
    // Not one for each of them.
    let lines = plugin.orthanc.logs();
    let reports = |level| own_lines::<C>(&lines, level).into_iter().filter(|line| line.contains("was right"));
    let warnings: Vec<_> = reports(LogLevel::Warning).collect();
    ensure!(warnings.len() == 1 && warnings[0].contains(C::URL), "{warnings:#?}");
    assert_eq!(reports(LogLevel::Info).count(), number - 1);
    plugin.check()
}

fn damaged_object_is_asked_for_twice<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let mut number = 0;
    for format in [Format::A1, Format::A2] {
        for (read, places, _) in cases(format).into_iter().filter(|case| case.2 == 2) {
            for place in places {
                number += 1;
                let id = prepare(&plugin, format, number, read)?;
                let fault = FaultRule::new(Fault::CorruptResponseByte(place)).on(read.operation(format));
                plugin.server.faults().push(fault.times(usize::MAX));
                let outcome = perform(&plugin, &id, read);
                ensure!(outcome.is_err(), "{format} {read:?} {place}");
                assert_eq!(plugin.requests(), 2, "{format} {read:?} {place}");
                let line = plugin.new_error()?;
                ensure!(line.contains(&object_url::<C>(&flat_encrypted(&id))), "{line}");
                plugin.server.faults().clear();
            }
        }
    }
    let warnings = plugin.lines(LogLevel::Warning);
    assert_eq!(warnings.iter().filter(|line| line.contains("cannot read")).count(), 0, "{warnings:#?}");
    plugin.check()
}

/// Where names say nothing, the damaged beginning of an envelope looks like content in clear.
fn damaged_envelope_is_not_taken_for_clear<C: Cloud>() -> Result<()> {
    let encryption = json!({"Format": "A2", "ReadUnencrypted": true});
    let plugin = LoadedPlugin::<C>::encrypted_with(&json!({"StorageStructure": "legacy"}), &encryption)?;
    let mut number = 0;
    for place in [0, 3, 6, 8] {
        for read in [Read::Range(0, SIZE), Read::Range(0, 4096)] {
            number += 1;
            let id = uuid(number);
            plugin.insert(&legacy(&id), plugin.keys.seal(Format::A2, &id, &content(SIZE))?);
            let rule = plugin.fault(request::READ_RANGE, Fault::CorruptResponseByte(place), 1);
            let outcome = perform(&plugin, &id, read);
            assert_eq!(rule.fired(), 1, "{read:?} {place}");
            // A part of an object without a tag cannot be verified.
            ensure!(
                read != Read::Range(0, SIZE) || outcome == Ok(expected(read)),
                "{place}: {:#?}",
                plugin.errors()
            );
            for _ in 0..2 {
                ensure!(perform(&plugin, &id, read) == Ok(expected(read)), "{read:?} {place}");
            }
        }
    }
    Ok(())
}

fn missing_key_is_asked_for_twice_once<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let ring = plugin.keys.ring(7)?;
    for (number, format) in [Format::A1, Format::A2].into_iter().enumerate() {
        let id = uuid(number);
        plugin.insert(&flat_encrypted(&id), encrypt(&ring, format, &id, &content(SIZE))?);
        plugin.requests();
        for (read, requests) in [(Read::Whole, 2), (Read::Whole, 1), (Read::Range(0, SIZE), 1)] {
            ensure!(perform(&plugin, &id, read) == Err(STORAGE_AREA_PLUGIN), "{format} {read:?}");
            assert_eq!(plugin.requests(), requests, "{format} {read:?}");
            plugin.new_error()?;
        }
        // Other damage of the same attachment is still repaired.
        plugin.insert(&flat_encrypted(&id), plugin.keys.seal(format, &id, &content(SIZE))?);
        plugin.fault(request::READ, Fault::CorruptResponseByte(100_000), 1);
        ensure!(perform(&plugin, &id, Read::Whole) == Ok(content(SIZE)), "{format}");
        assert_eq!(plugin.requests(), 2, "{format}");
    }
    plugin.check()
}

fn shortened_answer_is_asked_for_again<C: Cloud>() -> Result<()> {
    let encrypted = LoadedPlugin::<C>::encrypted("A2")?;
    let clear = LoadedPlugin::<C>::start()?;
    for (number, format) in [None, Some(Format::A1), Some(Format::A2)].into_iter().enumerate() {
        let id = uuid(number);
        let plugin = match format {
            None => {
                clear.insert(&flat(&id), content(SIZE));
                &clear
            }
            Some(format) => {
                let object = encrypted.keys.seal(format, &id, &content(SIZE))?;
                encrypted.insert(&flat_encrypted(&id), object);
                &encrypted
            }
        };
        for (read, operation) in [(Read::Range(0, SIZE), request::READ_RANGE), (Read::Whole, request::READ)] {
            plugin.requests();
            let rule = plugin.fault(operation, Fault::Odd(Odd::Shortened), 1);
            ensure!(perform(plugin, &id, read) == Ok(content(SIZE)), "{format:?}: {:#?}", plugin.errors());
            assert_eq!((rule.fired(), plugin.requests()), (1, 2), "{format:?} {read:?}");
            if let Read::Whole = read {
                let rule = plugin.fault(operation, Fault::Odd(Odd::Shortened), 2);
                ensure!(perform(plugin, &id, read).is_err(), "{format:?}");
                assert_eq!((rule.fired(), plugin.requests()), (2, 2), "{format:?}");
                plugin.new_error()?;
            }
        }
    }
    encrypted.check()?;
    clear.check()
}
