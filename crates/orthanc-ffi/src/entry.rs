//! A plugin's life cycle: Orthanc's four entry points and the cell that holds all state between them.
//!
//! `POST /tools/reset` finalizes and initializes a library that stays loaded, possibly with another
//! context. So the only other statics of the crate are those that are valid for any generation: the tracing
//! subscriber and its filter, the panic hook and the counter of job numbers.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::fmt;

use parking_lot::{Mutex, RwLock};

use crate::abi;
use crate::orthanc::{Level, Orthanc};
use crate::panic::{guarded, install_hook};
use crate::version::OrthancVersion;

/// A plugin for Orthanc. One line, `orthanc_ffi::export_plugin!(TheType);`, makes it loadable.
pub trait Plugin: Send + Sync + 'static {
    /// The plugin's name in Orthanc.
    const NAME: &'static CStr;
    /// The plugin's version.
    const VERSION: &'static CStr;

    /// Reads the configuration and registers the plugin's callbacks. Orthanc's finalize drops the returned
    /// value: services can still be called during the drop, but no more callbacks arrive.
    ///
    /// A plugin that its configuration disables returns `Ok` without registering anything.
    ///
    /// # Errors
    ///
    /// An error prevents Orthanc from starting; its text is logged as one error line.
    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError>
    where
        Self: Sized;
}

/// Why a plugin cannot be initialized: one line that names the option, its value and the allowed values.
#[derive(Debug)]
pub struct InitializeError(String);

impl InitializeError {
    /// Creates an error with this text, which must not contain a secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for InitializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InitializeError {}

impl From<crate::OrthancError> for InitializeError {
    fn from(error: crate::OrthancError) -> Self {
        Self(error.to_string())
    }
}

/// The current generation of the plugin, between initialize and finalize.
static CURRENT: RwLock<Option<Orthanc>> = RwLock::new(None);
/// The plugin itself, separate from `CURRENT`, which must stay readable while the plugin is created and
/// dropped. Both happen under this lock, so that entry points exclude each other.
static PLUGIN: Mutex<Option<Box<dyn Any + Send + Sync>>> = Mutex::new(None);

/// The current Orthanc, while the plugin is initialized.
pub(crate) fn current() -> Option<Orthanc> {
    CURRENT.read().clone()
}

/// `OrthancPluginInitialize`: returns 0 or -1.
///
/// # Safety
///
/// `context` must be null or point to the context that Orthanc passes to `OrthancPluginInitialize`, which
/// stays valid until `OrthancPluginFinalize` has returned.
pub unsafe fn initialize<P: Plugin>(context: *mut abi::Context, module: &'static str) -> i32 {
    guarded("OrthancPluginInitialize", -1, || {
        // SAFETY: passed on from the caller.
        let Some(orthanc) = (unsafe { open::<P>(context) }) else { return -1 };
        let mut plugin = PLUGIN.lock();
        end(&mut plugin);
        crate::log::set_plugin_module(module);
        install_hook();
        crate::pin::pin_library();
        *CURRENT.write() = Some(orthanc.clone());

        let initialized = guarded("OrthancPluginInitialize", None, || Some(P::initialize(&orthanc)));
        match initialized {
            Some(Ok(value)) => {
                *plugin = Some(Box::new(value));
                return 0;
            }
            Some(Err(error)) => orthanc.log(Level::Error, &error.to_string()),
            // The panic hook has logged it.
            None => {}
        }
        end(&mut plugin);
        -1
    })
}

/// `OrthancPluginFinalize`.
pub fn finalize() {
    guarded("OrthancPluginFinalize", (), || end(&mut PLUGIN.lock()));
}

/// Checks the context and its version.
///
/// # Safety
///
/// As [`initialize`].
unsafe fn open<P: Plugin>(context: *mut abi::Context) -> Option<Orthanc> {
    if context.is_null() {
        return None;
    }
    // SAFETY: not null, so a valid context by the caller's promise.
    let version_pointer: *const c_char = unsafe { (*context).orthanc_version };
    let version_text = if version_pointer.is_null() {
        ""
    } else {
        // SAFETY: a version that is not null is a NUL-terminated string that lives as long as the context.
        unsafe { CStr::from_ptr(version_pointer) }.to_str().unwrap_or("")
    };
    let version = OrthancVersion::parse(version_text).unwrap_or(OrthancVersion::new(0, 0, 0));
    // SAFETY: the context is valid until finalize, which closes the handle; a refused version closes it
    // below.
    let orthanc = unsafe { Orthanc::new(context, version, P::NAME) };
    if version >= OrthancVersion::OLDEST {
        return Some(orthanc);
    }
    let oldest = OrthancVersion::OLDEST;
    let message = format!("Orthanc must be version {oldest} or newer, got '{version_text}'");
    orthanc.log(Level::Error, &message);
    orthanc.close();
    None
}

/// Ends the current generation, if there is one.
///
/// Registrations are removed first, so that late callbacks find nothing. Then the plugin is dropped while
/// it can still log. Closing the handle comes last and waits for the calls in progress.
fn end(plugin: &mut Option<Box<dyn Any + Send + Sync>>) {
    let Some(orthanc) = current() else { return };
    let registrations = std::mem::take(&mut *orthanc.registrations());
    guarded("OrthancPluginFinalize", (), || drop(registrations));
    let ended = plugin.take();
    guarded("OrthancPluginFinalize", (), || drop(ended));
    // The plugin may have registered callbacks while it was dropped.
    let late = std::mem::take(&mut *orthanc.registrations());
    guarded("OrthancPluginFinalize", (), || drop(late));
    *CURRENT.write() = None;
    orthanc.close();
}

/// Exports a type that implements [`Plugin`] through the four functions that Orthanc calls.
///
/// Use it once per library: linking fails if two crates of a library export a plugin.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const _: () = {
            /// # Safety
            ///
            /// Only Orthanc may call this function, with its context.
            #[allow(unsafe_code, non_snake_case, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn OrthancPluginInitialize(context: *mut $crate::abi::Context) -> i32 {
                // SAFETY: Orthanc passes its context, which stays valid until finalize has returned.
                unsafe { $crate::entry::initialize::<$plugin>(context, ::core::module_path!()) }
            }

            #[allow(unsafe_code, non_snake_case, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub extern "C" fn OrthancPluginFinalize() {
                $crate::entry::finalize();
            }

            #[allow(unsafe_code, non_snake_case, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub extern "C" fn OrthancPluginGetName() -> *const ::core::ffi::c_char {
                <$plugin as $crate::Plugin>::NAME.as_ptr()
            }

            #[allow(unsafe_code, non_snake_case, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub extern "C" fn OrthancPluginGetVersion() -> *const ::core::ffi::c_char {
                <$plugin as $crate::Plugin>::VERSION.as_ptr()
            }
        };
    };
}
