//! The plugin in a real Orthanc, on a server that behaves as the cloud does and injects faults.

mod auditing;
mod changed;
mod costs;
mod deleting;
mod faults;
pub(crate) mod fixture;
pub(crate) mod key_service;
mod life;
mod mistakes;
mod neighbours;
mod options;
mod plugins;
mod restoring;
mod samples;
mod services;
mod shared_index;
mod sizing;
mod starting;
pub(crate) mod stopping;
mod storing;
pub(crate) mod survival;
mod waiting;

modules![
    auditing,
    changed,
    costs,
    deleting,
    faults,
    key_service,
    life,
    mistakes,
    neighbours,
    options,
    plugins,
    restoring,
    samples,
    services,
    shared_index,
    sizing,
    starting,
    stopping,
    storing,
    survival,
    waiting
];
