//! Runs the conformance suite.

#[path = "common/cloud.rs"]
mod cloud;

fn main() {
    conformance::run::<cloud::Google>();
}
