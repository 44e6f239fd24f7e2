//! Operating an archive: verification, re-encryption, the search for orphans, restores from archive tiers, and their
//! reports.

mod archive;
mod interruptions;
mod orphans;
mod reencrypting;
mod restoring;
pub(crate) mod support;
mod verifying;
mod web;

modules![interruptions, orphans, reencrypting, restoring, verifying, web];
