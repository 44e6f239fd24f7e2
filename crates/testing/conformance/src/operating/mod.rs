//! Operating an archive: verification and its reports, restores from archive tiers.

mod interruptions;
mod restoring;
pub(crate) mod support;
mod verifying;

modules![interruptions, restoring, verifying];
