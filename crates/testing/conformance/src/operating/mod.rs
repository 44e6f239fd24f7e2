//! Operating an archive: verification, the search for orphans, and their reports.

mod interruptions;
mod orphans;
pub(crate) mod support;
mod verifying;

modules![interruptions, orphans, verifying];
