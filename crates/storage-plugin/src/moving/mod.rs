//! `POST /move-storage` and its jobs.

mod job;
pub(crate) mod mover;
mod request;
pub(crate) mod stored_form;

pub(crate) use job::{JOB_TYPE, resume};
pub(crate) use request::move_storage;
