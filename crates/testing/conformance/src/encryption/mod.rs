//! Client-side encryption as a user of the plugin meets it: in a host that plays Orthanc, and in Orthanc itself.

mod configuration;
mod mixed;
mod orthanc;
mod ranges;
mod round_trips;
mod secrets;
mod tampering;
mod together;

modules![configuration, mixed, orthanc, ranges, round_trips, secrets, tampering, together];
