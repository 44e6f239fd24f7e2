//! The built plugin in a fake Orthanc.

mod absurd;
mod answers;
mod availability;
mod configuration;
mod deletions;
mod downloads;
mod faults;
mod library;
mod requests;
mod resets;
mod start;
mod tls;

modules![
    absurd,
    answers,
    availability,
    configuration,
    deletions,
    downloads,
    faults,
    library,
    requests,
    resets,
    start,
    tls
];
