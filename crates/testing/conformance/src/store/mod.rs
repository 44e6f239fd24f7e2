//! The engine on the cloud's protocol: objects in a bucket, without Orthanc and without the plugin's library.

mod fixture;
mod names;
mod objects;
mod parts;
mod sizes;

modules![names, objects, parts, sizes];
