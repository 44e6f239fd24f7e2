//! The page at `/object-storage/app/`, in a real browser.

mod access;
mod outages;
mod state;
mod support;

modules![access, outages, state];
