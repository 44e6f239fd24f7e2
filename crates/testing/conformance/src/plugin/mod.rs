//! The built plugin in a fake Orthanc.

mod absurd;
mod availability;
mod configuration;
mod downloads;
mod faults;
mod library;
mod requests;
mod resets;
mod tls;

modules![absurd, availability, configuration, downloads, faults, library, requests, resets, tls];
