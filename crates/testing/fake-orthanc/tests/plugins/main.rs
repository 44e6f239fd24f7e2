//! What orthanc-ffi promises, seen from Orthanc's side: its two example plugins, loaded as Orthanc loads them.

#![allow(clippy::panic, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod fixture;
mod jobs;
mod life;
mod rest;
mod storage;
