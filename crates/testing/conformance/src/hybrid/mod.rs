//! Hybrid storage: attachments on the disk and in the bucket, in a real Orthanc.

mod failing;
mod killing;
mod migration;
mod modes;
mod moving;
mod routes;
pub(crate) mod support;

modules![failing, killing, migration, modes, moving, routes];
