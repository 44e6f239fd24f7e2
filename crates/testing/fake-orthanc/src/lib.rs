//! Plays Orthanc's side of the plugin interface, so that a built plugin can be tested without Orthanc.
//!
//! A [`FakeOrthanc`] loads a plugin's library, answers its service calls and calls its callbacks, from any
//! number of threads. It also detects faults that Orthanc itself would not report: leaked buffers, bytes
//! written past a range's buffer, services called after finalize or before the version that has them. See [`FakeOrthanc::violations`].
//!
//! There is no DICOM server behind it, and jobs, routes (except those for chunked requests) and change callbacks
//! are never called.
//!
//! ```no_run
//! use fake_orthanc::{FakeOrthanc, FakeOrthancOptions};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), fake_orthanc::LoadError> {
//! let configuration = json!({"AwsS3Storage": {"BucketName": "orthanc", "Region": "eu-central-1"}});
//! let options = FakeOrthancOptions::with_configuration(configuration);
//! let orthanc = FakeOrthanc::load("target/debug/libOrthancAwsS3Storage.so", options)?;
//! let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
//! assert_eq!(orthanc.create(uuid, 1, b"DICM"), Ok(()));
//! assert_eq!(orthanc.read_whole(uuid, 1), Ok(b"DICM".to_vec()));
//! assert!(orthanc.violations().is_empty());
//! # Ok(())
//! # }
//! ```

#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chunked;
mod state;
mod storage;

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libloading::Library;
use orthanc_ffi::abi;
use serde_json::{Value, json};

pub use chunked::{ChunkedRequest, HttpAnswer};
use state::State;
pub use state::{LogLevel, Metric};
pub use storage::StorageAreaVersion;

const STORAGE: &str = "storage";

/// The Orthanc that the plugin sees.
#[derive(Clone, Debug)]
pub struct FakeOrthancOptions {
    /// Orthanc's version; `1.10.1` by default.
    pub version: String,
    /// Orthanc's whole configuration; `{}` by default. If it has no `StorageDirectory`, it gets a temporary
    /// one.
    pub configuration: Value,
}

impl Default for FakeOrthancOptions {
    fn default() -> Self {
        Self { version: "1.10.1".to_owned(), configuration: json!({}) }
    }
}

impl FakeOrthancOptions {
    /// The default options with this configuration.
    pub fn with_configuration(configuration: Value) -> Self {
        Self { configuration, ..Self::default() }
    }
}

/// Why a plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library could not be copied to a temporary folder.
    #[error("cannot copy the library: {0}")]
    Copy(#[from] std::io::Error),
    /// The library could not be opened, or lacks one of the four functions.
    #[error("cannot load the library: {0}")]
    Library(#[from] libloading::Error),
    /// The version contains a NUL character.
    #[error("cannot pass the version to C: {0}")]
    Version(#[from] std::ffi::NulError),
    /// `OrthancPluginInitialize` did not return 0.
    #[error("OrthancPluginInitialize returned {code}; its log: {logs:?}")]
    Initialize {
        /// Its return value.
        code: i32,
        /// The lines it logged.
        logs: Vec<(LogLevel, String)>,
    },
}

type Initialize = unsafe extern "C" fn(*mut abi::Context) -> i32;
type Finalize = unsafe extern "C" fn();
type GetText = unsafe extern "C" fn() -> *const c_char;

/// A loaded plugin and the Orthanc that it sees.
///
/// Each loads its own copy of the library, so that several in one process do not share statics.
pub struct FakeOrthanc {
    library: Library,
    /// The current generation.
    state: Arc<State>,
    /// Former generations, kept to detect a plugin that still uses their context.
    former: Vec<Arc<State>>,
    finalized: bool,
    /// The folder of the library's copy and of the storage; removed after the library is closed.
    folder: tempfile::TempDir,
}

impl FakeOrthanc {
    /// Loads a plugin and initializes it.
    ///
    /// # Errors
    ///
    /// The library does not load, or the plugin refuses to be initialized.
    pub fn load(library: impl AsRef<Path>, options: FakeOrthancOptions) -> Result<Self, LoadError> {
        let folder = tempfile::tempdir()?;
        let original = library.as_ref();
        let copy = folder.path().join(original.file_name().unwrap_or_default());
        std::fs::copy(original, &copy)?;
        let state = State::new(with_storage(options, folder.path()))?;
        // SAFETY: plugins' libraries have no initializers beyond those of the Rust standard library.
        let loaded = unsafe { Library::new(&copy) }?;
        // Finalized until `initialize` succeeds, so that dropping the value before does not finalize the
        // plugin.
        let mut orthanc = Self { state, former: Vec::new(), finalized: true, library: loaded, folder };
        orthanc.initialize()?;
        Ok(orthanc)
    }

    fn initialize(&mut self) -> Result<(), LoadError> {
        // SAFETY: the function has this type in every plugin.
        let initialize = unsafe { self.library.get::<Initialize>(b"OrthancPluginInitialize") }?;
        // SAFETY: the context lives in `state`, which is kept as long as the library.
        let code = unsafe { initialize(self.state.context()) };
        if code != 0 {
            // A plugin that refused must not call Orthanc again.
            self.state.close();
            return Err(LoadError::Initialize { code, logs: self.logs() });
        }
        self.finalized = false;
        Ok(())
    }

    /// Finalizes the plugin and initializes it with another context, as `POST /tools/reset` does when the
    /// library stays loaded.
    ///
    /// # Errors
    ///
    /// The plugin refuses to be initialized.
    pub fn reset(&mut self, options: FakeOrthancOptions) -> Result<(), LoadError> {
        self.finalize();
        let state = State::new(with_storage(options, self.folder.path()))?;
        self.former.push(std::mem::replace(&mut self.state, state));
        self.initialize()
    }

    /// Finalizes the plugin, as Orthanc does when it stops. Callbacks can still be called
    /// afterwards, to check that they fail. A second call does nothing.
    pub fn finalize(&mut self) {
        if std::mem::replace(&mut self.finalized, true) {
            return;
        }
        // SAFETY: the function has this type in every plugin.
        if let Ok(finalize) = unsafe { self.library.get::<Finalize>(b"OrthancPluginFinalize") } {
            // SAFETY: called once after a successful initialize.
            unsafe { finalize() };
        }
        self.state.close();
    }

    /// The temporary `StorageDirectory`, which the plugin may not have created.
    pub fn storage_folder(&self) -> PathBuf {
        self.folder.path().join(STORAGE)
    }

    /// The result of `OrthancPluginGetName`.
    pub fn name(&self) -> String {
        self.text(b"OrthancPluginGetName")
    }

    /// The result of `OrthancPluginGetVersion`.
    pub fn version(&self) -> String {
        self.text(b"OrthancPluginGetVersion")
    }

    fn text(&self, symbol: &[u8]) -> String {
        // SAFETY: the function has this type in every plugin.
        let Ok(get) = (unsafe { self.library.get::<GetText>(symbol) }) else { return String::new() };
        // SAFETY: the function has no parameters.
        state::text(unsafe { get() })
    }

    /// The description that the plugin has set.
    pub fn description(&self) -> Option<String> {
        self.state.description.lock().clone()
    }

    /// All lines that the plugin has logged since it was initialized.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.state.logs.lock().clone()
    }

    /// The lines of one level.
    pub fn logs_at(&self, level: LogLevel) -> Vec<String> {
        self.logs().into_iter().filter(|line| line.0 == level).map(|line| line.1).collect()
    }

    /// The storage area that the plugin has registered.
    pub fn registered(&self) -> StorageAreaVersion {
        self.state.storage.lock().version
    }

    /// The plugin's metrics, as it sets them when Orthanc shows them.
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        self.state.refresh_metrics()
    }

    /// The names that the plugin has given to its threads and not released.
    pub fn thread_names(&self) -> Vec<String> {
        self.state.thread_names.lock().values().cloned().collect()
    }

    /// Number of buffers and strings that the plugin got from Orthanc and neither freed nor returned.
    pub fn outstanding_buffers(&self) -> usize {
        self.state.outstanding_buffers()
    }

    /// Everything the plugin did that it must never do, one sentence each: bytes written past a range's
    /// buffer, foreign memory freed, a service called after finalize or on an Orthanc that does not have it. Includes all former generations.
    pub fn violations(&self) -> Vec<String> {
        let states = self.former.iter().chain([&self.state]);
        let mut violations: Vec<String> = states.flat_map(|state| state.violations.lock().clone()).collect();
        let bad_frees = state::bad_frees();
        if bad_frees != 0 {
            violations.push(format!("{bad_frees} addresses were freed that Orthanc had not allocated"));
        }
        violations
    }
}

/// Adds a `StorageDirectory` below `folder`, so that tests do not share Orthanc's default one.
fn with_storage(mut options: FakeOrthancOptions, folder: &Path) -> FakeOrthancOptions {
    if let Some(configuration) = options.configuration.as_object_mut() {
        configuration.entry("StorageDirectory").or_insert_with(|| json!(folder.join(STORAGE)));
    }
    options
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
