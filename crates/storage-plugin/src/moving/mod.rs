//! `POST /move-storage` and its jobs.

mod job;
pub(crate) mod mover;
mod report;
mod request;
mod run;
pub(crate) mod stored_form;
mod turns;

pub(crate) use job::{JOB_TYPE, resume};
pub(crate) use request::move_storage;
