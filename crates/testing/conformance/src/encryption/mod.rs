//! Client-side encryption: the built plugin in a fake Orthanc and in a real one.

mod concurrency;
mod configuration;
mod forms;
mod key_check;
mod mixed;
mod orthanc;
mod ranges;
mod replaced;
mod round_trips;
mod secrets;
mod tampering;

modules![
    concurrency,
    configuration,
    forms,
    key_check,
    mixed,
    orthanc,
    ranges,
    replaced,
    round_trips,
    secrets,
    tampering
];
