//! The plugin in a real Orthanc, on a server that behaves as the cloud does and injects faults.

mod changed;
mod deleting;
mod faults;
pub(crate) mod fixture;
mod life;
mod mistakes;
mod neighbours;
mod options;
mod plugins;
mod services;
mod shared_index;
mod starting;
mod stopping;
mod storing;
mod survival;
mod waiting;

modules![
    changed,
    deleting,
    faults,
    life,
    mistakes,
    neighbours,
    options,
    plugins,
    services,
    shared_index,
    starting,
    stopping,
    storing,
    survival,
    waiting
];
