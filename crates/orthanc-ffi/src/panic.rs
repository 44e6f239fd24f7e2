//! Panics: caught at the C boundary, and reported as one log line.
//!
//! The line says where the panic happened and in which callback. Its message is quoted only where it is a literal of the
//! source: a formatted one may carry data of a patient or a secret.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::entry;
use crate::orthanc::Level;

thread_local! {
    /// The callback that this thread is in. No destructor: a destructor would keep the library loaded.
    static CALLBACK: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs the body of a C callback; a panic in it becomes `fallback`.
pub(crate) fn guarded<R>(callback: &'static str, fallback: R, body: impl FnOnce() -> R) -> R {
    let outer = CALLBACK.replace(Some(callback));
    let result = catch_unwind(AssertUnwindSafe(body));
    CALLBACK.set(outer);
    match result {
        Ok(value) => value,
        Err(payload) => {
            discard(payload);
            fallback
        }
    }
}

/// Drops a panic's payload, whose own drop may panic.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// Reports panics in Orthanc's log as long as there is an Orthanc, also those that never reach a callback (in a thread of
/// an asynchronous runtime, for instance). Once for each loaded library.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match entry::current() {
            Some(orthanc) => orthanc.log(Level::Error, &describe(orthanc.plugin_name(), info)),
            None => previous(info),
        }));
    });
}

fn describe(plugin: &str, info: &PanicHookInfo<'_>) -> String {
    let callback = CALLBACK.get().unwrap_or("a thread of the plugin");
    let place = info.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    format!("{plugin}: panic in {callback} at {place}: {message}")
}
