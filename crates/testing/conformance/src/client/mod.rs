//! The engine on the cloud's protocol: objects in a bucket, without Orthanc and without the plugin's library.

mod fixture;
mod multipart;
mod names;
mod objects;
mod sizes;

modules![names, objects, multipart, sizes];
