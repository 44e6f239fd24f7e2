//! A plugin that misbehaves on demand, for the tests of what this crate promises.
//!
//! The configuration's `Initialize` (`fail`, `panic`, `keep`) and the UUID of a storage call choose the fault.

#![allow(clippy::panic)]

use std::ffi::CStr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use orthanc_ffi::{
    ContentType, ErrorCode, InitializeError, Job, JobStep, Level, Orthanc, Plugin, Ranges, RestAnswer,
    RestFailure, StopReason, StorageArea, Target, WholeTarget, set_verbose_targets,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

struct Faulty {
    orthanc: Orthanc,
    panic_on_drop: bool,
}

impl Plugin for Faulty {
    const NAME: &'static CStr = c"Faulty";
    const VERSION: &'static CStr = c"0";

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing(&[]);
        let configuration = orthanc.configuration()?;
        let ranges = if configuration["Ranges"] == false { Ranges::NotServed } else { Ranges::Served };
        orthanc.register_storage_area(Arc::new(Area::default()), ranges)?;
        orthanc.register_rest("/faulty/(.*)/(.*)", {
            let orthanc = orthanc.clone();
            move |request| match request.groups()[0] {
                "panic" => panic!("literal"),
                "panic-with-data" => panic!("{}", request.groups()[1]),
                "status" => Err(RestFailure::Status { status: 418, message: "teapot".to_owned() }),
                "bad-status" => Err(RestFailure::Status { status: 200, message: String::new() }),
                "log" => Ok(log_something(&orthanc)),
                "job" => {
                    let job = Faults { fault: request.groups()[1].to_owned(), steps: 0 };
                    let id = orthanc.submit_job("Faults", Box::new(job), 7)?;
                    Ok(RestAnswer::bytes("text/plain", id))
                }
                "call" => {
                    let path = format!("/{}", request.groups()[1]);
                    Ok(RestAnswer::bytes("text/plain", orthanc.rest_post(&path, request.body(), true)?))
                }
                _ => {
                    let query = request.query().iter().map(|(key, value)| format!("{key}={value}"));
                    let seen = json!({
                        "Method": format!("{:?}", request.method()), "Path": request.path(),
                        "Groups": request.groups(), "Query": query.collect::<Vec<_>>(),
                        "Header": request.header("x-test"), "Body": String::from_utf8_lossy(request.body()),
                    });
                    Ok(RestAnswer::json(&seen))
                }
            }
        })?;
        orthanc.register_job_unserializer(|job_type, saved| match job_type {
            "Panic" => panic!("literal"),
            "Faults" => {
                let fault = saved["Fault"].as_str()?.to_owned();
                Some(Box::new(Faults { fault, steps: 0 }) as Box<dyn Job>)
            }
            _ => None,
        })?;
        match configuration["Initialize"].as_str() {
            Some("fail") => return Err(InitializeError::new("Faulty.Initialize is 'fail'")),
            Some("panic") => panic!("literal"),
            Some("keep") => {
                // A thread that goes on with Orthanc after finalise, as a plugin with a leaked thread would.
                let orthanc = orthanc.clone();
                std::thread::spawn(move || {
                    for _ in 0..500 {
                        orthanc.log(Level::Info, "still here");
                        let _ = orthanc.configuration();
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            _ => {}
        }
        Ok(Self { orthanc: orthanc.clone(), panic_on_drop: configuration["PanicOnDrop"] == true })
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.orthanc.log(Level::Info, "dropped");
        assert!(!self.panic_on_drop, "the drop panics");
    }
}

orthanc_ffi::export_plugin!(Faulty);

fn log_something(orthanc: &Orthanc) -> RestAnswer {
    orthanc.log(Level::Warning, "two\nlines and a \0");
    tracing::info!(size = 3, name = "x y", "own info");
    tracing::debug!("own debug");
    tracing::error!(target: "hyper_util::client", "third-party error");
    tracing::info!(target: "hybrid::parts", "sibling info");
    set_verbose_targets(&["hyper_util"]);
    tracing::debug!(target: "hyper_util::client", "third-party debug");
    tracing::trace!(target: "hyper_util::client", "third-party trace");
    tracing::debug!(target: "hyper_utilities", "another crate's debug");
    set_verbose_targets(&[]);
    tracing::warn!(target: "hyper_util::client", "third-party warning");
    RestAnswer::bytes("text/plain", "logged")
}

/// Its threads are joined when it is dropped.
#[derive(Default)]
struct Area {
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Area {
    fn drop(&mut self) {
        for thread in self.threads.get_mut().drain(..) {
            let _ = thread.join();
        }
    }
}

impl StorageArea for Area {
    fn create(&self, uuid: &str, _content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        match uuid {
            "panic" => panic!("literal"),
            "success-as-error" => Err(ErrorCode::SUCCESS),
            "error" => Err(ErrorCode::FULL_STORAGE),
            "panic-with-content" => std::panic::panic_any(content),
            "keep" | "keep-and-panic" => {
                let kept = content.slice(1..);
                self.threads.lock().push(std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    // Orthanc's buffer must still be there, and unchanged.
                    tracing::info!(sum = kept.iter().map(|byte| usize::from(*byte)).sum::<usize>(), "kept");
                }));
                assert!(uuid == "keep", "panics while a clone is kept");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_whole(
        &self,
        uuid: &str,
        _content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode> {
        let fill = |mut target: Target<'_>, bytes: &[u8]| target.append(bytes).map_err(|_| ErrorCode::PLUGIN);
        match uuid {
            "panic" => panic!("literal"),
            "panic-after-allocate" => {
                fill(target.allocate(3)?, b"ab")?;
                panic!("literal")
            }
            "error-after-allocate" => {
                fill(target.allocate(3)?, b"abc")?;
                Err(ErrorCode::CORRUPTED_FILE)
            }
            "never-allocate" => Ok(()),
            "short" => fill(target.allocate(3)?, b"ab"),
            "twice" => {
                fill(target.allocate(100)?, b"forget this")?;
                fill(target.allocate(5)?, b"right")
            }
            "twice-short" => {
                fill(target.allocate(5)?, b"wrong")?;
                target.allocate(5).map(|_| ())
            }
            "empty" => target.allocate(0).map(|_| ()),
            "empty-after-full" => {
                fill(target.allocate(5)?, b"wrong")?;
                target.allocate(0).map(|_| ())
            }
            "too-long" => fill(target.allocate(2)?, b"abc"),
            "huge" => target.allocate(u64::MAX).map(|_| ()),
            "in-place" => {
                let filled = target.allocate(4)?.append_with(4, |part| {
                    part.copy_from_slice(b"good");
                    Ok::<(), Box<dyn std::error::Error>>(())
                });
                filled.map_err(|_| ErrorCode::PLUGIN)
            }
            _ => Err(ErrorCode::INEXISTENT_FILE),
        }
    }

    fn read_range(
        &self,
        uuid: &str,
        _content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode> {
        let len = target.len();
        let bytes: Vec<u8> = (start..).take(len).map(|at| at.to_le_bytes()[0]).collect();
        match uuid {
            "panic" => panic!("literal"),
            "short" => target.append(&bytes[..len - 1]).map_err(|_| ErrorCode::PLUGIN),
            "too-long" => target.append(&[bytes, vec![0]].concat()).map_err(|_| ErrorCode::BAD_RANGE),
            "nothing" => Ok(()),
            _ => target.append(&bytes).map_err(|_| ErrorCode::PLUGIN),
        }
    }

    fn remove(&self, uuid: &str, _content_type: ContentType) -> Result<(), ErrorCode> {
        match uuid {
            "panic" => panic!("literal"),
            _ => Ok(()),
        }
    }
}

/// A job that panics in one of its methods.
struct Faults {
    fault: String,
    steps: u32,
}

impl Faults {
    fn maybe(&self, method: &str) {
        assert!(self.fault != method || self.steps == 0, "fault in {method}");
    }
}

impl Job for Faults {
    fn step(&mut self) -> JobStep {
        self.steps += 1;
        self.maybe("step");
        if self.fault == "slow" {
            std::thread::sleep(Duration::from_millis(300));
        }
        if self.steps >= 3 { JobStep::Success } else { JobStep::Continue }
    }

    fn stop(&mut self, reason: StopReason) {
        self.maybe("stop");
        tracing::info!(?reason, "stopped");
    }

    fn reset(&mut self) {
        self.maybe("reset");
        self.steps = 0;
    }

    fn progress(&self) -> f32 {
        self.maybe("progress");
        if self.fault == "nan" { f32::NAN } else { self.steps as f32 }
    }

    fn content(&self) -> Value {
        self.maybe("content");
        if self.fault == "array" { json!([1]) } else { json!({"Steps": self.steps}) }
    }

    fn serialized(&self) -> Option<Value> {
        self.maybe("serialized");
        (self.fault != "none").then(|| json!({"Fault": self.fault, "Type": "must go"}))
    }
}
