//! Properties in Orthanc's database.

use std::ffi::c_char;

/// Parameters of [`GET_GLOBAL_PROPERTY`](super::service::GET_GLOBAL_PROPERTY) and [`SET_GLOBAL_PROPERTY`](super::service::SET_GLOBAL_PROPERTY).
#[repr(C)]
#[derive(Debug)]
pub struct GlobalProperty {
    /// Where to put the value, which the plugin must free. Null to set the property.
    pub result: *mut *mut c_char,
    /// Number of the property, at least 1024.
    pub property: i32,
    /// The new value, or the one to return if the property is not set.
    pub value: *const c_char,
}
