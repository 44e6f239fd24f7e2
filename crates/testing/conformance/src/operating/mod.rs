//! Operating an archive: verification and its reports.

mod interruptions;
pub(crate) mod support;
mod verifying;

modules![interruptions, verifying];
