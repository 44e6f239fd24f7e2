//! Ctrl-C as a request to finish in order: Orthanc is stopped and its folder removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C only makes [`check`] fail; a second Ctrl-C ends the process at once.
pub(crate) fn catch() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().context("listening for Ctrl-C")?;
    thread::spawn(move || {
        while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Fails after Ctrl-C.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits for Ctrl-C, and then forgets it.
pub(crate) fn wait() {
    while !INTERRUPTED.swap(false, Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
    }
}
