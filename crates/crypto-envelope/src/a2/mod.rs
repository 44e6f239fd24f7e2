//! A2, the format that supports range reads: segments of 64 KiB, each of which has its own tag.
//!
//! ```text
//! offset  bytes
//!      0      2  "A2"
//!      2      4  master key id, little-endian
//!      6      1  key wrap algorithm
//!      7      1  k, log2 of the segment size
//!      8      2  W, length of the wrapped file key, little-endian
//!     10     32  salt
//!     42      W  wrapped file key
//!   42+W         segments: 2^k bytes of ciphertext and a 16-byte tag each, the last one 0 to 2^k bytes and a tag
//! ```
//!
//! - `header`: the bytes before the segments.
//! - `layout`: computes where each segment is and which bytes to fetch for a range.
//! - `opener`: a header and the content key derived from it, which opens single segments.
//! - `segments`: splits arriving bytes into segments, for `decryptor` (whole envelopes) and `range`.
//! - `sealer`: encryption. `envelope`: encryption of any range, as an upload proceeds.

pub(crate) mod decryptor;
pub(crate) mod envelope;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod opener;
pub(crate) mod range;
pub(crate) mod sealer;
mod segments;
