//! Object names.
