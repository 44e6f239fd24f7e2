//! Hybrid storage: the plugin in a real Orthanc, with files beside the bucket.

#[path = "../orthanc/cloud.rs"]
#[allow(dead_code, unused_imports)]
mod cloud;
#[path = "../orthanc/fixture.rs"]
#[allow(dead_code)]
mod fixture;

mod failing;
mod killing;
mod migration;
mod modes;
mod moving;
mod offloading;
mod routes;
mod support;
