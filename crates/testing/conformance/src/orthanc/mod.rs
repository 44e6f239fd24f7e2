//! The plugin in a real Orthanc, on a server that behaves as the cloud does, and misbehaves when told to.

mod faults;
pub(crate) mod fixture;
mod lasting;
mod life;
mod neighbours;
mod starting;
mod storing;

modules![faults, lasting, life, neighbours, starting, storing];
