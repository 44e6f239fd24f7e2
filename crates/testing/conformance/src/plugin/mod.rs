//! The built plugin in a fake Orthanc.

mod availability;
mod configuration;
mod downloads;
mod faults;
mod library;
mod requests;
mod resets;
mod tls;

modules![availability, configuration, downloads, faults, library, requests, resets, tls];
