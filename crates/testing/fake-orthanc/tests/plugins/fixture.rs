//! The example plugin of `orthanc-ffi`, loaded.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel};
use serde_json::Value;

pub(crate) const PLUGIN: i32 = 1;
pub(crate) const PARAMETER_OUT_OF_RANGE: i32 = 3;
pub(crate) const INEXISTENT_FILE: i32 = 13;
pub(crate) const STORAGE_AREA_PLUGIN: i32 = 32;

/// The plugin's library, built once per process.
fn library() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "orthanc-ffi", "--example", "test_plugin"])
            .arg("--message-format=json")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let mut plugins = messages.filter(|message| message["target"]["name"] == "test_plugin");
        plugins.find_map(|message| message["filenames"][0].as_str().map(PathBuf::from)).unwrap()
    })
}

pub(crate) fn load(configuration: Value) -> FakeOrthanc {
    try_load(FakeOrthancOptions::with_configuration(configuration)).unwrap()
}

pub(crate) fn try_load(options: FakeOrthancOptions) -> Result<FakeOrthanc, LoadError> {
    FakeOrthanc::load(library(), options)
}

#[track_caller]
pub(crate) fn assert_clean(orthanc: &FakeOrthanc) {
    assert_eq!(orthanc.violations(), Vec::<String>::new());
    assert_eq!(orthanc.outstanding_buffers(), 0);
}

/// Asserts that the last error line reports a panic in this callback with this message.
#[track_caller]
pub(crate) fn assert_panic_line(orthanc: &FakeOrthanc, callback: &str, message: &str) {
    let lines = orthanc.logs_at(LogLevel::Error);
    let last = lines.last().unwrap();
    assert!(last.starts_with(&format!("Test: panic in {callback} at ")), "{last}");
    assert!(last.contains("test_plugin.rs:") && last.ends_with(message), "{last}");
}
