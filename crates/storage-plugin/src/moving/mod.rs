//! `POST /move-storage`, `POST /object-storage/prefetch` and their jobs.

mod job;
pub(crate) mod mover;
mod report;
mod request;
mod run;
pub(crate) mod stored_form;
mod turns;

pub(crate) use job::{Task, resume};
pub(crate) use request::{bad_request, start_job};
