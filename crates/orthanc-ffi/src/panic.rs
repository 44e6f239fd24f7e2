//! Panics: caught at the C boundary, and reported as one log line.
//!
//! The line contains the place in the source and the callback, and the message only if it is a literal: a
//! formatted message may contain patient data or a secret.
//!
//! The panic hook logs the line where the panic starts. A task's panic that is resumed in a callback
//! therefore becomes the callback's error code without a second line.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::entry;
use crate::orthanc::Level;

thread_local! {
    /// The callback that this thread executes. Has no destructor, which would keep the library loaded.
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

/// Drops a panic's payload, whose drop may panic too.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// Reports panics in Orthanc's log while the plugin is initialized, including those on threads that execute
/// no callback (such as those of an asynchronous runtime). Only the first call of a loaded library has an
/// effect.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match entry::current() {
            Some(orthanc) => orthanc.log(Level::Error, &describe(info)),
            None => previous(info),
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let callback = CALLBACK.get().unwrap_or("a thread of the plugin");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    format!("panic in {callback} at {place}: {message}")
}
