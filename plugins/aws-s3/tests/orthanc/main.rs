//! The plugin in a real Orthanc, on a server that behaves as the cloud does, and misbehaves when told to.

mod cloud;
mod faults;
mod fixture;
mod lasting;
mod life;
mod starting;
mod storing;
