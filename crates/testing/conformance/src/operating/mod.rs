//! Operating an archive: verification, re-encryption, the search for orphans, and their reports.

mod interruptions;
mod orphans;
mod reencrypting;
pub(crate) mod support;
mod verifying;

modules![interruptions, orphans, reencrypting, verifying];
