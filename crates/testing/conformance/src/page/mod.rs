//! The page at `/object-storage/app/`, in a real browser.

mod access;
mod accessible;
mod jobs;
mod outages;
mod state;
mod studies;
mod support;

modules![access, accessible, jobs, outages, state, studies];
