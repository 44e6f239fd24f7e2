//! Runs tests on real servers, if there are any: see `cargo xtask servers`.

#[path = "common/cloud.rs"]
mod cloud;

fn main() {
    conformance::run_on_servers::<cloud::S3>();
}
