//! Receives DICOMweb STOW-RS requests (PS3.18 10.5) and streams their instances to a [`Sink`].
//!
//! The crate knows neither an HTTP server nor a storage. A [`Receiver`] is fed with the body in chunks, as it
//! arrives, and never holds more of it than one chunk and the header of one instance. Each instance is passed to
//! an upload of the sink as soon as its UIDs are known, uploads continue while later instances arrive, and the
//! answer reports an instance as stored only once the sink has confirmed it.
//!
//! # Example
//!
//! ```
//! use stow_gateway::{Format, MemorySink, Receiver, RequestHead};
//!
//! let sink = MemorySink::default();
//! let head = RequestHead {
//!     content_type: Some("multipart/related; type=\"application/dicom\"; boundary=cut"),
//!     ..RequestHead::default()
//! };
//! let mut receiver = Receiver::new(&sink, &head)?;
//! for chunk in [&b"--cut\r\nContent-Type: application/dicom\r\n\r\nno DICOM"[..], b" at all\r\n--cut--\r\n"] {
//!     receiver.push(chunk);
//! }
//! let report = receiver.finish();
//! let messages: Vec<_> = report.failures().map(|(part, failure)| format!("part {part}: {failure}")).collect();
//! assert_eq!(messages, ["part 1: the part is not a DICOM file: it has no file meta information"]);
//! let answer = report.answer(Format::Json, "");
//! assert_eq!((answer.status, answer.content_type), (409, "application/dicom+json"));
//! # Ok::<(), stow_gateway::Rejection>(())
//! ```

mod answer;
mod dicom;
mod failure;
mod media_type;
mod memory;
mod multipart;
mod receiver;
mod sink;
#[cfg(test)]
mod test_files;
mod uid;

pub use answer::Answer;
pub use dicom::Reference;
pub use failure::{Failure, Malformed, Rejection};
pub use media_type::Format;
pub use memory::MemorySink;
pub use receiver::{Outcome, Receiver, Report, RequestHead};
pub use sink::{Instance, MAX_WRITE, Receipt, Sink, Upload, UploadError, UploadErrorKind};
pub use uid::{InvalidUid, Uid};
