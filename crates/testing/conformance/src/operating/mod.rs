//! Operating an archive: verification, re-encryption, and their reports.

mod interruptions;
mod reencrypting;
pub(crate) mod support;
mod verifying;

modules![interruptions, reencrypting, verifying];
