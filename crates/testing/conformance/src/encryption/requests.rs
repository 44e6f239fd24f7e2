//! Requests and bytes of reads in a bucket with clear, A1 and A2 objects.

use anyhow::{Result, ensure};
use crypto_envelope::{Format, RECOGNIZE_LEN};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, content, flat, flat_encrypted, legacy, uuid};

tests! {
    OneCloud:
        reads_of_each_form_are_counted,
        whole_reads_are_one_request_while_a1_is_written,
}

const SIZE: usize = 1_000_000;
const SEALED: u64 = 65_536 + 16;
/// The header of an A2 object.
const HEADER: u64 = 82;
/// What is read of an unknown object to recognize it.
const BEGINNING: u64 = RECOGNIZE_LEN as u64;
/// The ranges that are read, `None` for a whole read: as newer releases of Orthanc read it, at the start, far from it.
const READS: [Option<(usize, usize)>; 4] = [None, Some((0, SIZE)), Some((0, 4096)), Some((SIZE / 2, 4096))];

/// Requests and bytes of the first and of the second read of an attachment.
type Costs = [(u64, u64); 2];

/// Reads an attachment twice.
fn costs<C: Cloud>(plugin: &LoadedPlugin<C>, uuid: &str, read: Option<(usize, usize)>) -> Result<Costs> {
    let whole = content(SIZE);
    let mut costs = [(0, 0); 2];
    for cost in &mut costs {
        plugin.cost();
        let (start, len) = read.unwrap_or((0, SIZE));
        let bytes = match read {
            None => plugin.read(uuid)?,
            Some(_) => plugin.range(uuid, start as u64, len)?,
        };
        ensure!(bytes == whole[start..start + len], "the bytes differ: {read:?}");
        *cost = plugin.cost();
    }
    Ok(costs)
}

/// The costs of all reads of an object in this form.
fn expected(format: Option<Format>) -> [Costs; 4] {
    let size = SIZE as u64;
    let whole = (1, size);
    let a1 = (1, size + 86);
    let a2 = HEADER + size + 16 * size.div_ceil(65_536);
    match format {
        None => [
            [whole; 2],
            [whole; 2],
            // The beginning could be that of an envelope.
            [(1, HEADER + SEALED), (1, 4096)],
            [(2, BEGINNING + 4096), (1, 4096)],
        ],
        // A range of an unknown object is followed by the rest. No byte is read twice.
        Some(Format::A1) => [[a1; 2], [a1; 2], [(2, size + 86), a1], [(2, size + 86), a1]],
        Some(Format::A2) => [
            [(1, a2); 2],
            [(1, a2), (1, a2 - HEADER)],
            [(1, HEADER + SEALED), (1, SEALED)],
            [(2, BEGINNING + SEALED), (1, SEALED)],
        ],
    }
}

fn reads_of_each_form_are_counted<C: Cloud>() -> Result<()> {
    let encryption = json!({"Format": "A2", "ReadUnencrypted": true});
    let structures = [("flat", flat as fn(&str) -> String, flat_encrypted as fn(&str) -> String)];
    for (structure, clear, encrypted) in structures.into_iter().chain([("legacy", legacy as _, legacy as _)])
    {
        let plugin = LoadedPlugin::<C>::encrypted_with(&json!({"StorageStructure": structure}), &encryption)?;
        for (form, format) in [None, Some(Format::A1), Some(Format::A2)].into_iter().enumerate() {
            for (number, (read, expected)) in READS.into_iter().zip(expected(format)).enumerate() {
                let id = uuid(10 * form + number);
                match format {
                    None => plugin.insert(&clear(&id), content(SIZE)),
                    Some(format) => {
                        plugin.insert(&encrypted(&id), plugin.keys.seal(format, &id, &content(SIZE))?);
                    }
                }
                if structure == "legacy" && format.is_none() {
                    // The name says nothing, so two reads look at the beginning.
                    assert_eq!(costs(&plugin, &id, read)?, [expected[0]; 2], "{read:?}");
                    assert_eq!(costs(&plugin, &id, read)?, [expected[1]; 2], "{read:?}");
                    continue;
                }
                let costs = costs(&plugin, &id, read)?;
                if structure == "flat" && format.is_none() {
                    // The encrypted name is tried before each request.
                    assert_eq!(costs.map(|cost| cost.0), expected.map(|cost| 2 * cost.0), "{read:?}");
                } else {
                    assert_eq!(costs, expected, "{structure} {format:?} {read:?}");
                }
            }
        }
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()?;
    }
    Ok(())
}

fn whole_reads_are_one_request_while_a1_is_written<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A1")?;
    for (number, format) in [Format::A1, Format::A2].into_iter().enumerate() {
        let id = uuid(number);
        plugin.insert(&flat_encrypted(&id), plugin.keys.seal(format, &id, &content(SIZE))?);
        assert_eq!(costs(&plugin, &id, None)?, expected(Some(format))[0], "{format}");
    }
    plugin.check()
}
