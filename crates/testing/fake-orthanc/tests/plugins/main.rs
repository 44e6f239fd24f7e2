//! What `orthanc-ffi` promises, seen from Orthanc's side: its example plugin, loaded as Orthanc loads it.

#![allow(clippy::panic, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod chunked;
mod fixture;
mod life;
mod storage;
