//! Reasons why an instance was not stored, or a request cannot be read.

use dicom_core::Tag;

use crate::dicom::HEADER_LIMIT;
use crate::sink::{UploadError, UploadErrorKind};
use crate::uid::InvalidUid;

/// Why the instance of a part was not stored. Messages contain no value of the data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The part's `Content-Type` is not that of a DICOM file.
    #[error("the part's Content-Type must be application/dicom")]
    MediaType,
    /// The part is encoded with base64, gzip or similar.
    #[error("the part must be sent as it is, without Content-Transfer-Encoding or Content-Encoding")]
    Encoded,
    /// The part begins with neither a preamble nor the file meta information.
    #[error("the part is not a DICOM file: it has no file meta information")]
    NotDicom,
    /// An element, item or delimiter is where it cannot be.
    #[error("the DICOM header cannot be read: {0}")]
    Header(&'static str),
    /// The deflated data set is damaged.
    #[error("the deflated data set cannot be decompressed")]
    Deflate,
    /// The Series Instance UID is too far from the beginning.
    #[error("the Series Instance UID (0020,000E) is not within the first {HEADER_LIMIT} bytes of the part")]
    HeaderTooLarge,
    /// The part ends before the Series Instance UID.
    #[error("the part ends before the Series Instance UID (0020,000E)")]
    HeaderTruncated,
    /// A required element is missing or comes too late.
    #[error("the {} is missing, or not in ascending order of tags", name(*.0))]
    Missing(Tag),
    /// A required element occurs twice.
    #[error("the {} occurs more than once", name(*.0))]
    Repeated(Tag),
    /// A required element is not a UID.
    #[error("the {} is not a valid UID: {reason}", name(*tag))]
    InvalidUid {
        /// The element.
        tag: Tag,
        /// What is wrong with it.
        reason: InvalidUid,
    },
    /// The file meta information names another SOP class or instance than the data set.
    #[error("the file meta information and the data set have a different {}", name(*.0))]
    Contradiction(Tag),
    /// The instance is of another study than the URL.
    #[error("the instance belongs to another study than the one in the URL")]
    OtherStudy,
    /// The part does not have the length of its `Content-Length`.
    #[error("the part has {actual} bytes, but its Content-Length is {declared}")]
    WrongLength {
        /// The value of the header.
        declared: u64,
        /// The bytes received.
        actual: u64,
    },
    /// The body ended, or became unreadable, within the part.
    #[error("the part was not received completely")]
    Incomplete,
    /// The request has too many parts.
    #[error("the request has more than {0} parts; send them in several requests")]
    TooManyParts(usize),
    /// The sink did not store the instance.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl Failure {
    /// The Failure Reason (0008,1197) of PS3.18, table I.2-2.
    pub fn reason(&self) -> u16 {
        match self {
            Self::MediaType
            | Self::Encoded
            | Self::NotDicom
            | Self::Header(_)
            | Self::Deflate
            | Self::HeaderTooLarge
            | Self::HeaderTruncated
            | Self::Missing(_)
            | Self::Repeated(_)
            | Self::InvalidUid { .. }
            | Self::WrongLength { .. }
            | Self::Incomplete => CANNOT_UNDERSTAND,
            Self::Contradiction(_) | Self::OtherStudy => DOES_NOT_MATCH,
            Self::TooManyParts(_) => OUT_OF_RESOURCES,
            Self::Upload(error) => match error.kind {
                UploadErrorKind::Unavailable => OUT_OF_RESOURCES,
                UploadErrorKind::Failed => PROCESSING_FAILURE,
            },
        }
    }

    /// Whether the same instance may be stored later without a change by the client.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Upload(UploadError { kind: UploadErrorKind::Unavailable, .. }))
    }
}

const OUT_OF_RESOURCES: u16 = 0xA700;
const DOES_NOT_MATCH: u16 = 0xA900;
const CANNOT_UNDERSTAND: u16 = 0xC000;
const PROCESSING_FAILURE: u16 = 0x0110;

fn name(tag: Tag) -> String {
    let keyword = match tag {
        crate::dicom::SOP_CLASS => "SOP Class UID",
        crate::dicom::SOP_INSTANCE => "SOP Instance UID",
        crate::dicom::STUDY => "Study Instance UID",
        crate::dicom::SERIES => "Series Instance UID",
        crate::dicom::TRANSFER_SYNTAX => "Transfer Syntax UID",
        _ => "element",
    };
    format!("{keyword} ({:04X},{:04X})", tag.group(), tag.element())
}

/// The request's body is not valid `multipart/related`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Other text than blanks follows a boundary.
    #[error("a boundary must be followed by a line end or \"--\"")]
    Boundary,
    /// The headers of a part are too long.
    #[error("the headers of a part must not exceed {0} bytes")]
    HeadersTooLarge(usize),
    /// The headers of a part cannot be parsed.
    #[error("the headers of a part are not valid MIME headers")]
    Headers,
    /// The body ends without the closing boundary.
    #[error(
        "the body ends without the closing boundary; it was cut off, or its boundary differs from the Content-Type's"
    )]
    Unclosed,
}

/// The request is refused before its body is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The body is not `multipart/related` with DICOM files.
    #[error("Content-Type must be multipart/related; type=\"application/dicom\"; boundary=...")]
    MediaType,
    /// The body is compressed.
    #[error("the body must be sent without Content-Encoding")]
    Encoded,
    /// The boundary is missing, or is not one that MIME allows.
    #[error(
        "Content-Type must have a boundary of 1 to 200 printable ASCII characters that does not end with a space"
    )]
    Boundary,
    /// The study of the URL is not a UID.
    #[error("the study in the URL is not a valid UID: {0}")]
    Study(InvalidUid),
}

impl Rejection {
    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::MediaType | Self::Encoded => 415,
            Self::Boundary | Self::Study(_) => 400,
        }
    }
}

#[cfg(test)]
mod tests;
