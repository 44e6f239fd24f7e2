//! `POST /move-storage` and its jobs.

mod job;
mod request;

pub(crate) use job::{JOB_TYPE, resume};
pub(crate) use request::move_storage;
