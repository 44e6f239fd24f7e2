//! Both envelopes, both ways, beside the bare AES-256-GCM call of the same library on buffers of the same size.
//!
//! `cargo bench -p crypto-envelope` prints criterion's figures and, at the end, the ratios to the bare calls.

fn main() {}
