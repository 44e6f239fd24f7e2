//! The two example plugins of orthanc-ffi, loaded.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LogLevel};
use serde_json::{Value, json};

pub(crate) const PLUGIN: i32 = 1;
pub(crate) const PARAMETER_OUT_OF_RANGE: i32 = 3;
pub(crate) const BAD_SEQUENCE_OF_CALLS: i32 = 6;
pub(crate) const INEXISTENT_FILE: i32 = 13;
pub(crate) const STORAGE_AREA_PLUGIN: i32 = 32;

/// The library of an example, built once for this run.
pub(crate) fn example(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<Vec<Value>> = OnceLock::new();
    let messages = BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "orthanc-ffi", "--examples", "--message-format=json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    });
    let artifact = messages.iter().find(|message| message["target"]["name"] == name);
    PathBuf::from(artifact.unwrap()["filenames"][0].as_str().unwrap())
}

pub(crate) fn memory(configuration: Value) -> FakeOrthanc {
    let options = FakeOrthancOptions::with_configuration(json!({"MemoryPlugin": configuration}));
    FakeOrthanc::load(example("memory_plugin"), options).unwrap()
}

pub(crate) fn faulty(configuration: Value) -> FakeOrthanc {
    FakeOrthanc::load(example("faulty_plugin"), FakeOrthancOptions::with_configuration(configuration))
        .unwrap()
}

#[track_caller]
pub(crate) fn assert_clean(host: &FakeOrthanc) {
    assert_eq!(host.violations(), Vec::<String>::new());
    assert_eq!(host.outstanding_buffers(), 0);
}

/// One error line, made of this callback and this message.
#[track_caller]
pub(crate) fn assert_panic_line(host: &FakeOrthanc, callback: &str, message: &str) {
    let lines = host.logs_at(LogLevel::Error);
    let last = lines.last().unwrap();
    assert!(last.starts_with(&format!("Faulty: panic in {callback} at ")), "{last}");
    assert!(last.contains("faulty_plugin.rs:") && last.ends_with(message), "{last}");
}
