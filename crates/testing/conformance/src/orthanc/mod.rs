//! The plugin in a real Orthanc, on a server that behaves as the cloud does and injects faults.

mod deleting;
mod faults;
pub(crate) mod fixture;
mod life;
mod neighbours;
mod options;
mod plugins;
mod samples;
mod services;
mod shared_index;
mod starting;
mod stopping;
mod storing;
mod survival;

modules![
    deleting,
    faults,
    life,
    neighbours,
    options,
    plugins,
    samples,
    services,
    shared_index,
    starting,
    stopping,
    storing,
    survival
];
