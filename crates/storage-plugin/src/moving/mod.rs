//! `POST /move-storage`, `POST /object-storage/prefetch` and their jobs.

pub(crate) mod mover;
mod request;
pub(crate) mod stored_form;
mod turns;

pub(crate) use mover::{Mover, Task, resume_move};
pub(crate) use request::start_move;
