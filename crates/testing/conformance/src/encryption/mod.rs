//! Client-side encryption: the built plugin in a fake Orthanc and in a real one.

mod concurrency;
mod configuration;
mod damaged;
mod forms;
mod key_check;
mod mixed;
mod orthanc;
mod ranges;
mod replaced;
mod requests;
mod round_trips;
mod secrets;
mod tampering;
mod uploads;

modules![
    concurrency,
    configuration,
    damaged,
    forms,
    key_check,
    mixed,
    orthanc,
    ranges,
    replaced,
    requests,
    round_trips,
    secrets,
    tampering,
    uploads
];
