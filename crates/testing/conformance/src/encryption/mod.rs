//! Client-side encryption as a user of the plugin meets it: in a host that plays Orthanc, and in Orthanc itself.

mod concurrency;
mod configuration;
mod mixed;
mod orthanc;
mod ranges;
mod round_trips;
mod secrets;
mod tampering;

modules![concurrency, configuration, mixed, orthanc, ranges, round_trips, secrets, tampering];
