//! Plays Orthanc's side of the plugin interface, so that a built plugin can be tested without Orthanc.
//!
//! A [`FakeOrthanc`] loads a plugin's library, answers its service calls and calls its callbacks, from as many threads as the
//! test likes. It also watches what Orthanc would suffer from without a word: buffers that leak, bytes written beside a
//! range's buffer, services called after finalise. See [`FakeOrthanc::violations`].
//!
//! It does not know what a plugin does, and is no DICOM server: Orthanc's REST API is whatever the test puts into
//! [`FakeOrthancOptions::rest_api`].

#![allow(unsafe_code)]

mod jobs;
mod rest;
mod state;
mod storage;

use std::ffi::{CStr, c_char};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use libloading::Library;
use orthanc_ffi::abi;
use serde_json::{Value, json};

pub use jobs::{JobOutcome, TestJob};
pub use rest::RestReply;
use state::State;
pub use state::{LogLevel, RestApi, StorageAreaVersion};

/// How the host presents itself to the plugin.
#[derive(Clone)]
pub struct FakeOrthancOptions {
    /// Orthanc's version; `1.10.1` by default.
    pub version: String,
    /// Orthanc's whole configuration; `{}` by default.
    pub configuration: Value,
    /// Answers the plugin's calls to Orthanc's REST API; by default every path is unknown (code 17).
    pub rest_api: Arc<RestApi>,
}

impl Default for FakeOrthancOptions {
    fn default() -> Self {
        Self {
            version: "1.10.1".to_owned(),
            configuration: json!({}),
            rest_api: Arc::new(|_method, _path, _body, _after_plugins| Err(17)),
        }
    }
}

impl FakeOrthancOptions {
    /// The default host with this configuration.
    pub fn with_configuration(configuration: Value) -> Self {
        Self { configuration, ..Self::default() }
    }
}

impl fmt::Debug for FakeOrthancOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeOrthancOptions").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Why a plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library could not be copied to a place of its own.
    #[error("the library cannot be copied: {0}")]
    Copy(#[from] std::io::Error),
    /// The library could not be opened, or lacks one of the four functions.
    #[error("the library cannot be loaded: {0}")]
    Library(#[from] libloading::Error),
    /// The version has a NUL character.
    #[error("the version cannot be a C string: {0}")]
    Version(#[from] std::ffi::NulError),
    /// `OrthancPluginInitialize` did not return 0.
    #[error("OrthancPluginInitialize returned {code}; its log: {logs:?}")]
    Initialize {
        /// What it returned.
        code: i32,
        /// What it logged.
        logs: Vec<(LogLevel, String)>,
    },
}

type Initialize = unsafe extern "C" fn(*mut abi::Context) -> i32;
type Finalize = unsafe extern "C" fn();
type GetText = unsafe extern "C" fn() -> *const c_char;

/// A loaded plugin and the host that it sees.
///
/// Each one loads a copy of the library, so that several in one process have statics of their own.
pub struct FakeOrthanc {
    library: Library,
    /// The current generation.
    state: Arc<State>,
    /// Former generations, kept so that a plugin that still uses their context is found out.
    former: Vec<Arc<State>>,
    finalized: bool,
    /// The folder of the library's copy; removed after the library is closed.
    _folder: tempfile::TempDir,
}

impl FakeOrthanc {
    /// Loads a plugin and initialises it.
    ///
    /// # Errors
    ///
    /// The library does not load, or the plugin refuses to be initialised.
    pub fn load(library: impl AsRef<Path>, options: FakeOrthancOptions) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir()?;
        let library = library.as_ref();
        let copy = folder.path().join(library.file_name().unwrap_or_default());
        std::fs::copy(library, &copy)?;
        let state = State::new(options)?;
        // SAFETY: plugins' libraries have no initialisers beyond those of the Rust standard library.
        let library = unsafe { Library::new(&copy) }?;
        // A host that is dropped without having been initialised is not finalised.
        let mut host = Self { state, former: Vec::new(), finalized: true, library, _folder: folder };
        host.initialize()?;
        Ok(host)
    }

    fn initialize(&mut self) -> Result<(), LoadError> {
        // SAFETY: the function has this type in every plugin.
        let initialize = unsafe { self.library.get::<Initialize>(b"OrthancPluginInitialize") }?;
        // SAFETY: the context lives in `state`, which is kept as long as the library.
        let code = unsafe { initialize(self.state.context()) };
        if code != 0 {
            // A plugin that refused must not call the host any more.
            self.state.close();
            return Err(LoadError::Initialize { code, logs: self.logs() });
        }
        self.finalized = false;
        Ok(())
    }

    /// What `POST /tools/reset` does when the library stays loaded: finalise, and initialise with another context.
    ///
    /// # Errors
    ///
    /// The plugin refuses to be initialised.
    pub fn reset(&mut self, options: FakeOrthancOptions) -> Result<(), LoadError> {
        self.finalize();
        let state = State::new(options)?;
        self.former.push(std::mem::replace(&mut self.state, state));
        self.initialize()
    }

    /// Tells the plugin of a change: one of `orthanc_ffi::abi::change_type`.
    pub fn signal(&self, change: i32) {
        let callback = *self.state.on_change.lock();
        if let Some(callback) = callback {
            // SAFETY: the plugin's callback; Orthanc passes null for changes that are not about a resource.
            unsafe { callback(change, 0, std::ptr::null()) };
        }
    }

    /// Ends all jobs and finalises the plugin, as Orthanc does when it stops. Callbacks can still be called afterwards,
    /// to see that they fail. A second call does nothing.
    pub fn finalize(&mut self) {
        if std::mem::replace(&mut self.finalized, true) {
            return;
        }
        self.state.finish_jobs();
        // SAFETY: the function has this type in every plugin.
        if let Ok(finalize) = unsafe { self.library.get::<Finalize>(b"OrthancPluginFinalize") } {
            // SAFETY: called once after a successful initialise.
            unsafe { finalize() };
        }
        self.state.close();
    }

    /// What `OrthancPluginGetName` returns.
    pub fn name(&self) -> String {
        self.text(b"OrthancPluginGetName")
    }

    /// What `OrthancPluginGetVersion` returns.
    pub fn version(&self) -> String {
        self.text(b"OrthancPluginGetVersion")
    }

    fn text(&self, symbol: &[u8]) -> String {
        // SAFETY: the function has this type in every plugin.
        let Ok(get) = (unsafe { self.library.get::<GetText>(symbol) }) else { return String::new() };
        // SAFETY: the function has no parameters.
        let text = unsafe { get() };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: not null, so a static string of the plugin.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// The description that the plugin has set.
    pub fn description(&self) -> Option<String> {
        self.state.description.lock().clone()
    }

    /// Everything that the plugin has logged since it was initialised.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.state.logs.lock().clone()
    }

    /// The lines of one level.
    pub fn logs_at(&self, level: LogLevel) -> Vec<String> {
        self.logs().into_iter().filter(|line| line.0 == level).map(|line| line.1).collect()
    }

    /// The last value of each metric.
    pub fn metrics(&self) -> std::collections::BTreeMap<String, f32> {
        self.state.metrics.lock().clone()
    }

    /// The storage area that the plugin has registered.
    pub fn registered(&self) -> StorageAreaVersion {
        self.state.storage.lock().version()
    }

    /// Buffers and strings of the host that the plugin got and did not free or give back.
    pub fn outstanding_buffers(&self) -> usize {
        self.state.outstanding_buffers()
    }

    /// What a plugin must never do, one sentence each: bytes written beside a range's buffer, memory freed that is not the
    /// host's, a service called after finalise. Of all generations.
    pub fn violations(&self) -> Vec<String> {
        let states = self.former.iter().chain([&self.state]);
        let mut violations: Vec<String> = states.flat_map(|state| state.violations.lock().clone()).collect();
        match state::bad_frees() {
            0 => {}
            count => {
                violations.push(format!("{count} addresses were freed in this process that are no host's"));
            }
        }
        violations
    }
}

impl Drop for FakeOrthanc {
    fn drop(&mut self) {
        self.finalize();
    }
}

impl fmt::Debug for FakeOrthanc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeOrthanc").field("name", &self.name()).finish_non_exhaustive()
    }
}
