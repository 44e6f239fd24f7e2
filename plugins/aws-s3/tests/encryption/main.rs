//! Client-side encryption as a user of the S3 plugin meets it: in a host that plays Orthanc, and in Orthanc itself.

mod configuration;
mod mixed;
mod orthanc;
mod ranges;
mod round_trips;
mod secrets;
mod support;
mod tampering;
mod together;
