//! The life of a plugin: Orthanc's four entry points and the one cell that holds all state between them.
//!
//! Orthanc may finalise and initialise a library that stays loaded (`POST /tools/reset`), also with another context.
//! So nothing else in the crate is static but what is right for any generation: the tracing subscriber, the panic hook
//! and the counter of job ids.

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
    /// What Orthanc lists the plugin as.
    const NAME: &'static CStr;
    /// The plugin's version.
    const VERSION: &'static CStr;

    /// Reads the configuration and registers what the plugin offers. Dropping the value ends the plugin: Orthanc still
    /// answers during the drop, but no callback arrives any more.
    ///
    /// A plugin that is disabled by its configuration returns `Ok` without registering anything.
    ///
    /// # Errors
    ///
    /// An error stops Orthanc from starting; its text is logged as one error line.
    fn initialize(orthanc: &Orthanc) -> Result<Self, InitializeError>
    where
        Self: Sized;
}

/// Why a plugin cannot be initialised: one clear line that names the option, the value and what is allowed.
#[derive(Debug)]
pub struct InitializeError(String);

impl InitializeError {
    /// An error with this text, which must not hold a secret.
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

/// The current generation of the plugin, between initialise and finalise.
static CURRENT: RwLock<Option<Orthanc>> = RwLock::new(None);
/// The plugin itself. Apart from `CURRENT`, which must stay readable while the plugin is made and dropped; the lock is
/// held during both, so that entry points exclude each other.
static PLUGIN: Mutex<Option<Box<dyn Any + Send + Sync>>> = Mutex::new(None);

/// Orthanc, as long as the plugin is initialised.
pub(crate) fn current() -> Option<Orthanc> {
    CURRENT.read().clone()
}

/// `OrthancPluginInitialize`: 0 or -1.
///
/// # Safety
///
/// `context` must be null or point to the context that Orthanc gives to `OrthancPluginInitialize`, which stays valid
/// until `OrthancPluginFinalize` has returned.
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

        let made = guarded("OrthancPluginInitialize", None, || Some(P::initialize(&orthanc)));
        match made {
            Some(Ok(value)) => {
                *plugin = Some(Box::new(value));
                return 0;
            }
            Some(Err(error)) => orthanc.log(Level::Error, &format!("{}: {error}", orthanc.plugin_name())),
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
    let version_text: *const c_char = unsafe { (*context).orthanc_version };
    let version_text = if version_text.is_null() {
        ""
    } else {
        // SAFETY: a version that is not null is a NUL-terminated string that lives as long as the context.
        unsafe { CStr::from_ptr(version_text) }.to_str().unwrap_or("")
    };
    let version = OrthancVersion::parse(version_text);
    let gate = version.unwrap_or(OrthancVersion::new(0, 0, 0));
    // SAFETY: the context is valid until finalise, which closes Orthanc; an Orthanc refused below is closed at once.
    let orthanc = unsafe { Orthanc::new(context, gate, P::NAME) };
    if gate >= OrthancVersion::OLDEST {
        return Some(orthanc);
    }
    let (name, oldest) = (orthanc.plugin_name(), OrthancVersion::OLDEST);
    let message = format!("{name}: Orthanc {oldest} or newer is needed, this is version '{version_text}'");
    orthanc.log(Level::Error, &message);
    orthanc.close();
    None
}

/// Ends the current generation, if there is one.
///
/// Registrations go first, so that callbacks that still come find nothing. Then the plugin is dropped, with an Orthanc that
/// still logs. Last Orthanc is closed, which waits for calls that are inside Orthanc.
fn end(plugin: &mut Option<Box<dyn Any + Send + Sync>>) {
    let Some(orthanc) = current() else { return };
    let registrations = std::mem::take(&mut *orthanc.registrations());
    guarded("OrthancPluginFinalize", (), || drop(registrations));
    let plugin = plugin.take();
    guarded("OrthancPluginFinalize", (), || drop(plugin));
    // What the plugin may have registered while it was dropped.
    let late = std::mem::take(&mut *orthanc.registrations());
    guarded("OrthancPluginFinalize", (), || drop(late));
    *CURRENT.write() = None;
    orthanc.close();
}

/// Exports a type that implements [`Plugin`] as the plugin of this `cdylib`: the four functions that Orthanc looks up.
///
/// A binary that links two crates with this line has each symbol twice, and does not link.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const _: () = {
            /// # Safety
            ///
            /// For Orthanc only, with its context.
            #[allow(unsafe_code, non_snake_case, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn OrthancPluginInitialize(context: *mut $crate::abi::Context) -> i32 {
                // SAFETY: Orthanc passes its context, which it keeps until it has called finalise.
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
