//! A plugin that keeps attachments in memory and misbehaves on demand, for the tests of what `orthanc-ffi`
//! promises.
//!
//! The configuration's `Initialize` and `PanicOnDrop`, the UUID of a storage call and the path of a chunked request
//! choose what goes wrong.

#![allow(clippy::panic)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use orthanc_ffi::{
    BodyReader, ContentType, ErrorCode, InitializeError, Level, Orthanc, Plugin, Ranges, RestAnswer,
    RestFailure, RestRequest, StorageArea, Target, WholeTarget, set_verbose_targets,
};
use parking_lot::Mutex;

struct TestPlugin {
    orthanc: Orthanc,
    panic_on_drop: bool,
}

impl Plugin for TestPlugin {
    const NAME: &'static CStr = c"Test";
    const VERSION: &'static CStr = c"0";

    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError> {
        orthanc_ffi::install_tracing(&["sibling"]);
        let configuration = orthanc.configuration()?;
        let ranges = if configuration["Ranges"] == false { Ranges::NotServed } else { Ranges::Served };
        orthanc.register_storage_area(Arc::new(Area::default()), ranges)?;
        let chunked_orthanc = orthanc.clone();
        orthanc
            .register_chunked_post("/chunked/(.*)", move |request| Body::open(&chunked_orthanc, request))?;
        match configuration["Initialize"].as_str() {
            Some("fail") => return Err(InitializeError::new("`Initialize` must not be `fail`")),
            Some("panic") => panic!("literal"),
            Some("log") => log_lines(orthanc),
            Some("keep") => {
                // A leaked thread that keeps using Orthanc after finalize.
                let kept_orthanc = orthanc.clone();
                thread::spawn(move || {
                    for _ in 0..500 {
                        kept_orthanc.log(Level::Info, "still here");
                        let _ = kept_orthanc.configuration();
                        thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            _ => {}
        }
        Ok(Self { orthanc: orthanc.clone(), panic_on_drop: configuration["PanicOnDrop"] == true })
    }
}

impl Drop for TestPlugin {
    fn drop(&mut self) {
        self.orthanc.log(Level::Info, "dropped");
        assert!(!self.panic_on_drop, "the drop panics");
    }
}

orthanc_ffi::export_plugin!(TestPlugin);

/// Resumes the panic of another thread, as waiting for a task does.
fn resume_panic() -> ! {
    let Err(payload) = thread::spawn(|| panic!("literal")).join();
    std::panic::resume_unwind(payload)
}

fn log_lines(orthanc: &Orthanc) {
    orthanc.log(Level::Warning, "two\nlines and a \0");
    tracing::info!(size = 3, name = "x y", "own info");
    tracing::debug!("own debug");
    tracing::info!(target: "sibling::module", "sibling info");
    tracing::error!(target: "hyper_util::client", "third-party error");
    set_verbose_targets(&["hyper_util"]);
    tracing::debug!(target: "hyper_util::client", "third-party debug");
    tracing::trace!(target: "hyper_util::client", "third-party trace");
    tracing::debug!(target: "hyper_utilities", "another crate's debug");
    set_verbose_targets(&[]);
    tracing::warn!(target: "hyper_util::client", "third-party warning");
}

/// Attachments in memory. Dropping it joins the threads.
#[derive(Default)]
struct Area {
    attachments: Mutex<HashMap<(String, ContentType), Vec<u8>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Area {
    fn get(&self, uuid: &str, content_type: ContentType) -> Result<Vec<u8>, ErrorCode> {
        let attachments = self.attachments.lock();
        attachments.get(&(uuid.to_owned(), content_type)).cloned().ok_or(ErrorCode::INEXISTENT_FILE)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        for thread in self.threads.get_mut().drain(..) {
            let _ = thread.join();
        }
    }
}

impl StorageArea for Area {
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        match uuid {
            "panic" => panic!("literal"),
            "resumed-panic" => resume_panic(),
            // Leaves the handle of the current thread behind, which is freed when the thread ends.
            "thread" => drop(thread::current()),
            "success-as-error" => return Err(ErrorCode::SUCCESS),
            "error" => return Err(ErrorCode::FULL_STORAGE),
            "panic-with-content" => std::panic::panic_any(content),
            "keep" | "keep-and-panic" => {
                let kept = content.slice(1..);
                self.threads.lock().push(thread::spawn(move || {
                    thread::sleep(Duration::from_millis(300));
                    // Orthanc's buffer must still be there, and unchanged.
                    tracing::info!(sum = kept.iter().map(|byte| usize::from(*byte)).sum::<usize>(), "kept");
                }));
                assert!(uuid == "keep", "panics while a clone is kept");
            }
            _ => {
                self.attachments.lock().insert((uuid.to_owned(), content_type), content.to_vec());
            }
        }
        Ok(())
    }

    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
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
            "empty-after-full" => {
                fill(target.allocate(5)?, b"wrong")?;
                target.allocate(0).map(|_| ())
            }
            "too-long" => fill(target.allocate(2)?, b"abc"),
            "huge" => target.allocate(u64::MAX).map(|_| ()),
            _ => {
                let content = self.get(uuid, content_type)?;
                fill(target.allocate(content.len() as u64)?, &content)
            }
        }
    }

    fn read_range(
        &self,
        uuid: &str,
        content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode> {
        assert!(uuid != "panic", "literal");
        let content = self.get(uuid, content_type)?;
        let start = usize::try_from(start).map_err(|_| ErrorCode::BAD_RANGE)?;
        let end = start.checked_add(target.len()).ok_or(ErrorCode::BAD_RANGE)?;
        let range = content.get(start..end).ok_or(ErrorCode::BAD_RANGE)?;
        let appended = match uuid {
            "short" => target.append(&range[1..]),
            "too-long" => target.append(&[range, b"x"].concat()),
            "nothing" => Ok(()),
            _ => target.append(range),
        };
        appended.map_err(|_| ErrorCode::BAD_RANGE)
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        assert!(uuid != "panic", "literal");
        let removed = self.attachments.lock().remove(&(uuid.to_owned(), content_type));
        removed.map(|_| ()).ok_or(ErrorCode::INEXISTENT_FILE)
    }
}

/// A chunked request, which is repeated in the answer.
struct Body {
    orthanc: Orthanc,
    fault: String,
    text: String,
}

impl Body {
    fn open(orthanc: &Orthanc, request: &RestRequest<'_>) -> Result<Box<dyn BodyReader>, ErrorCode> {
        let fault = request.groups()[0];
        match fault {
            "panic" => panic!("literal"),
            "refuse" => return Err(ErrorCode::UNSUPPORTED_MEDIA_TYPE),
            _ => {}
        }
        let header = request.header("x-test").unwrap_or_default();
        let method = format!("{:?}", request.method()).to_uppercase();
        let text = format!("{method} {} {fault} {header}: ", request.path());
        assert!(request.body().is_empty());
        Ok(Box::new(Self { orthanc: orthanc.clone(), fault: fault.to_owned(), text }))
    }
}

impl BodyReader for Body {
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        match self.fault.as_str() {
            "bad-chunk" => return Err(ErrorCode::BAD_REQUEST),
            "panic-in-chunk" => panic!("literal"),
            _ => self.text.push_str(&String::from_utf8_lossy(bytes)),
        }
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<RestAnswer, RestFailure> {
        match self.fault.as_str() {
            "bad-answer" => Err(RestFailure::bad_request("bad")),
            "panic-in-answer" => panic!("literal"),
            "ok" => Ok(RestAnswer::bytes("text/plain", "fine")),
            _ => Ok(RestAnswer::bytes("text/x-test", self.text.as_str())
                .with_status(202)
                .with_header("Retry-After", "30")),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.orthanc.log(Level::Info, "reader dropped");
        assert!(self.fault != "panic-in-drop", "literal");
    }
}
