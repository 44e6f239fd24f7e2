//! The built plugin in a host of its own, on a bucket of its own.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use end_to_end::workspace::{Plugin, Profile, plugin_library};
use serde_json::{Value, json};
use test_bucket::{BucketServer, Fault, FaultRule, Operation, Options, PushedRule};
use test_host::{HostOptions, LogLevel, TestHost};

/// Content types of Orthanc.
pub const DICOM: i32 = 1;
pub const DICOM_UNTIL_PIXEL_DATA: i32 = 3;

/// Error codes of Orthanc.
pub const INEXISTENT_FILE: i32 = 13;
pub const CORRUPTED_FILE: i32 = 20;
pub const STORAGE_AREA_PLUGIN: i32 = 32;
pub const BAD_RANGE: i32 = 41;

/// An attachment's identifier.
pub const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
/// Where [`UUID`] is as a DICOM file.
pub const KEY: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm";

/// The library, built if need be.
pub fn library() -> Result<PathBuf> {
    Ok(plugin_library(Plugin::AwsS3, Profile::Dev)?)
}

/// An identifier for each number.
pub fn uuid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// Bytes in which no two stretches are the same, so that misplaced ones show.
pub fn content(length: usize) -> Vec<u8> {
    let words =
        (0..length.div_ceil(8) as u64).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (word >> 3));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// An outcome of a callback that must be a success.
pub fn done<T>(outcome: Result<T, i32>) -> Result<T> {
    outcome.map_err(|code| anyhow!("the callback returned {code}"))
}

/// The section of the plugin for the bucket of a default server.
pub fn section(server: &BucketServer) -> Value {
    json!({
        "BucketName": "bucket",
        "Region": "us-east-1",
        "AccessKey": "test-access-key",
        "SecretKey": "test-secret-key",
        "Endpoint": server.endpoint(),
        "VirtualAddressing": false,
        // A busy machine makes connections slow, and requests are counted: transfers in parts have tests of their own.
        "TransferPoolSize": 1,
    })
}

/// `section` with some options added or replaced.
pub fn with(mut section: Value, options: &Value) -> Value {
    for (option, value) in options.as_object().into_iter().flatten() {
        section[option] = value.clone();
    }
    section
}

/// `section` without some options.
pub fn without(mut section: Value, options: &[&str]) -> Value {
    if let Some(section) = section.as_object_mut() {
        section.retain(|option, _| !options.contains(&option.as_str()));
    }
    section
}

/// The configuration of Orthanc with this section.
pub fn configuration(section: &Value) -> Value {
    json!({ "AwsS3Storage": section })
}

/// A plugin at work. Fields are dropped in this order: the plugin ends while its server is still there.
#[derive(Debug)]
pub struct Setup {
    pub host: TestHost,
    pub server: BucketServer,
}

impl Setup {
    /// The plugin with nothing but the necessary options.
    pub fn start() -> Result<Self> {
        Self::with(&json!({}))
    }

    /// The plugin with further options. The request that it makes at its start is not in the counts.
    pub fn with(options: &Value) -> Result<Self> {
        let server = BucketServer::start(Options::default())?;
        let section = with(section(&server), options);
        Self::load(server, configuration(&section))
    }

    /// The plugin in front of a server.
    pub fn load(server: BucketServer, configuration: Value) -> Result<Self> {
        let host = TestHost::load(library()?, HostOptions::with_configuration(configuration))?;
        server.reset_counts();
        Ok(Self { host, server })
    }

    /// Lets requests for `operation` meet a fault so often.
    pub fn fault(&self, operation: Operation, fault: Fault, times: usize) -> PushedRule {
        self.server.faults().push(FaultRule::new(fault).on(operation).times(times))
    }

    /// Requests since the start or the last call of this.
    pub fn requests(&self) -> u64 {
        let total = self.server.requests().total;
        self.server.reset_counts();
        total
    }

    /// The ranges that were asked for, one for each `GET`.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.server.last_requests().into_iter();
        requests.filter(|request| request.method == "GET").map(|request| request.range).collect()
    }

    /// The lines of the log that are errors.
    pub fn errors(&self) -> Vec<String> {
        self.host.logs_at(LogLevel::Error)
    }

    /// The only error line so far.
    #[track_caller]
    pub fn only_error(&self) -> String {
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        errors.concat()
    }

    /// That nothing was done which Orthanc would suffer from.
    pub fn check(&self) -> Result<()> {
        let violations = self.host.violations();
        ensure!(violations.is_empty(), "{violations:#?}");
        ensure!(self.host.outstanding_buffers() == 0, "buffers of the host are left");
        Ok(())
    }
}

/// Waits for something that happens in the background.
pub fn eventually(what: &str, limit: Duration, happened: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !happened() {
        ensure!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
