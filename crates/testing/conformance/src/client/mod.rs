//! The bucket client on the cloud's protocol: objects in a bucket, without Orthanc and without the plugin's
//! library.

mod cancel;
mod deletions;
pub(crate) mod fixture;
mod lost;
mod multipart;
mod names;
mod objects;

modules![names, objects, multipart, lost, cancel, deletions];
