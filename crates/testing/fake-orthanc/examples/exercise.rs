//! Loads a built plugin and stores, reads and removes attachments through it.
//!
//! Compiled for Windows or ARM and run by an emulator, it exercises libraries that cannot be loaded on the
//! build machine.
//!
//! `exercise LIBRARY CONFIGURATION.json` exits with 0 on success; otherwise it prints the first failure.

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LogLevel, StorageAreaVersion};

/// Orthanc's type of a DICOM file.
const DICOM: i32 = 1;
const INEXISTENT_FILE: i32 = 13;

/// Sizes in bytes: one byte, a slice, and several chunks of everything that works in chunks.
const SIZES: [usize; 3] = [1, 135_000, 9_000_000];

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, configuration] = arguments.as_slice() else {
        eprintln!("exercise LIBRARY CONFIGURATION.json");
        return ExitCode::FAILURE;
    };
    match exercise(library, configuration) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exercise: {error}");
            ExitCode::FAILURE
        }
    }
}

fn exercise(library: &str, configuration: &str) -> Outcome {
    let configuration = serde_json::from_slice(&fs::read(configuration)?)?;
    let mut orthanc = FakeOrthanc::load(library, FakeOrthancOptions::with_configuration(configuration))?;
    println!("{} {}, storage area {:?}", orthanc.name(), orthanc.version(), orthanc.registered());
    let outcome = attachments(&orthanc);
    orthanc.finalize();
    for line in orthanc.logs_at(LogLevel::Error) {
        println!("logged: {line}");
    }
    outcome?;
    let violations = orthanc.violations();
    if !violations.is_empty() || orthanc.outstanding_buffers() != 0 {
        return Err(format!("{} buffers left; {violations:?}", orthanc.outstanding_buffers()).into());
    }
    Ok(())
}

fn attachments(orthanc: &FakeOrthanc) -> Outcome {
    for (number, size) in SIZES.into_iter().enumerate() {
        let begin = Instant::now();
        let uuid = format!("00000000-0000-4000-8000-{number:012}");
        let content = content(size);
        orthanc.create(&uuid, DICOM, &content).map_err(|code| failed("create", size, code))?;
        let whole = orthanc.read_whole(&uuid, DICOM).map_err(|code| failed("read", size, code))?;
        if whole != content {
            return Err(format!("{size} bytes were stored, {} different ones read", whole.len()).into());
        }
        let with_ranges = orthanc.registered() == StorageAreaVersion::Two;
        if with_ranges {
            ranges(orthanc, &uuid, &content)?;
        }
        orthanc.remove(&uuid, DICOM).map_err(|code| failed("remove", size, code))?;
        wait_until_removed(orthanc, &uuid)?;
        let ranges = if with_ranges { ", ranges" } else { "" };
        println!("{size} bytes: create, read{ranges}, remove: {} ms", begin.elapsed().as_millis());
    }
    Ok(())
}

/// Waits for the deletion in the background.
fn wait_until_removed(orthanc: &FakeOrthanc, uuid: &str) -> Outcome {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if orthanc.read_whole(uuid, DICOM) == Err(INEXISTENT_FILE) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("a removed attachment is still readable".into())
}

/// The beginning, the middle and the end.
fn ranges(orthanc: &FakeOrthanc, uuid: &str, content: &[u8]) -> Outcome {
    let size = content.len();
    let ends = [(0, size.div_ceil(3)), (size / 3, size - size / 4), (size - 1, size)];
    for (start, end) in ends {
        let outcome = orthanc.read_range(uuid, DICOM, start as u64, end - start);
        let range = outcome.map_err(|code| failed("range", size, code))?;
        if range != content[start..end] {
            return Err(format!("bytes {start} to {end} of {size} differ from the stored ones").into());
        }
    }
    Ok(())
}

fn failed(what: &str, size: usize, code: i32) -> String {
    format!("{what} of {size} bytes: the plugin returned {code}")
}

/// Bytes that differ from position to position.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}
