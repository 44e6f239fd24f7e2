//! `WriteBack`: attachments on the disk on their way to the bucket, and the cache.

mod configuration;
mod damaged;
mod deleting;
mod full_disk;
mod keys;
mod operations;
mod orthanc;
mod reading;
mod reading_damaged;
mod several;
mod storing;
pub(crate) mod support;
mod uploading;

modules![
    configuration,
    damaged,
    deleting,
    full_disk,
    keys,
    operations,
    orthanc,
    reading,
    reading_damaged,
    several,
    storing,
    uploading
];
