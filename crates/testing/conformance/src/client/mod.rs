//! The bucket client on the cloud's protocol: objects in a bucket, without Orthanc and without the plugin's
//! library.

mod cancel;
mod confirmed;
mod deletions;
pub(crate) mod fixture;
mod foreign;
mod limits;
mod listing;
mod lost;
mod multipart;
mod names;
mod objects;
mod restores;

modules![names, objects, multipart, limits, listing, lost, confirmed, cancel, deletions, foreign, restores];
