//! The page at `/object-storage/app/`, in a real browser.

mod access;
mod accessible;
mod jobs;
mod many;
mod outages;
mod state;
mod studies;
mod support;

modules![access, accessible, jobs, many, outages, state, studies];
