//! The tests that every cloud's plugin must pass.

#[path = "common/cloud.rs"]
mod cloud;

fn main() {
    conformance::run::<cloud::Google>();
}
