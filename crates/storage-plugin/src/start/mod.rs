//! The steps of a plugin's start, in the order in which `plugin` takes them.

pub(crate) mod background;
pub(crate) mod check;
mod disk;
pub(crate) mod others;
pub(crate) mod section;
pub(crate) mod storage;
pub(crate) mod summary;
