//! `POST /object-storage/restore` and its job.
//!
//! The job asks for each archived object. Then it goes through all attachments once more, and waits at those that are still
//! being restored until they can be read: so it needs neither a list of them, nor more than a few requests for each.

mod request;
mod work;

pub(crate) use request::start_restore;
pub(crate) use work::{JOB_TYPE, Restorer};
