//! The built plugin in a fake Orthanc.

mod absurd;
mod answers;
mod availability;
mod configuration;
mod connections;
mod deletions;
mod downloads;
mod elsewhere;
mod faults;
mod library;
mod requests;
mod resets;
mod start;
pub(crate) mod tls;
mod write_check;

modules![
    absurd,
    answers,
    availability,
    configuration,
    connections,
    deletions,
    downloads,
    elsewhere,
    faults,
    library,
    requests,
    resets,
    start,
    tls,
    write_check
];
