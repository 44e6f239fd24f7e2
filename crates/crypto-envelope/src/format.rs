//! Properties of an envelope that can be read without a key: format, key id, sizes.

use std::fmt;

use crate::a1;
use crate::a2::header::{A2Header, KeyWrap, Service};
use crate::a2::layout::{A2Geometry, A2Layout};
use crate::error::DecryptError;

/// Number of bytes from an envelope's start that [`identify`] reads.
pub const IDENTIFY_LEN: usize = 6;

/// Number of bytes from an envelope's start that [`inspect`] requires; more are needed only for the
/// identifier of a Key Vault key.
pub const INSPECT_LEN: usize = A2Header::FIXED_LEN;

/// The envelope formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The format of existing installations: one message that can only be read as a whole.
    A1,
    /// The format of this project: segments that are verified separately, so that ranges can be read, bound
    /// to the attachment's UUID.
    A2,
}

impl Format {
    /// Returns the first two bytes of an envelope.
    pub(crate) fn magic(self) -> [u8; 2] {
        match self {
            Self::A1 => *b"A1",
            Self::A2 => *b"A2",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A1 => "A1",
            Self::A2 => "A2",
        })
    }
}

/// The first bytes of an envelope, which both formats share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// The format.
    pub format: Format,
    /// Id of the master key (0 for A2 with a key service).
    pub key_id: u32,
    /// The service that wraps the file key, if `identify` got seven bytes or more.
    pub service: Option<Service>,
}

impl EnvelopeHeader {
    /// Id of the master key; `None` if it is in a key service.
    pub fn master_key_id(&self) -> Option<u32> {
        self.service.is_none().then_some(self.key_id)
    }
}

/// Recognizes an envelope by its first [`IDENTIFY_LEN`] bytes; `start` may be longer.
///
/// Returns `None` if `start` is shorter or does not begin with the two characters of a format. Unencrypted
/// files can begin with these by accident: use [`recognize`](crate::recognize()) where such files are possible.
pub fn identify(start: &[u8]) -> Option<EnvelopeHeader> {
    let [a, version, key_id @ ..] = *start.first_chunk::<IDENTIFY_LEN>()?;
    let format = [Format::A1, Format::A2].into_iter().find(|format| format.magic() == [a, version])?;
    let key_id = u32::from_le_bytes(key_id);
    let algorithm = start.get(IDENTIFY_LEN).filter(|_| format == Format::A2 && key_id == 0);
    let service = algorithm.and_then(|algorithm| Service::of_algorithm(*algorithm));
    Some(EnvelopeHeader { format, key_id, service })
}

/// Everything that an envelope reveals without a key. Nothing of it is verified, because verification
/// requires the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The format.
    pub format: Format,
    /// Id of the master key (0 for A2 with a key service).
    pub key_id: u32,
    /// Length of the envelope, in bytes.
    pub envelope_len: u64,
    /// Length of the plaintext, in bytes.
    pub plaintext_len: u64,
    /// Length of the header, in bytes.
    pub header_len: u64,
    /// Properties that only A2 has.
    pub details: Option<EnvelopeDetails>,
}

/// Properties of an A2 envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeDetails {
    /// Number of plaintext bytes in a full segment.
    pub segment_size: u64,
    /// Number of segments.
    pub segments: u64,
    /// The service that wraps the file key; `None` for the master key.
    pub service: Option<Service>,
    /// The name of the service's key, if `start` contained the whole header; empty for AWS.
    pub service_key: Option<String>,
}

/// Reads the properties of an envelope of `envelope_len` bytes from its first [`INSPECT_LEN`] bytes or more.
///
/// # Errors
/// [`DecryptError::NotAnEnvelope`], [`DecryptError::Truncated`] if `start` is too short,
/// [`DecryptError::Header`] and [`DecryptError::InvalidLength`].
pub fn inspect(start: &[u8], envelope_len: u64) -> Result<Inspection, DecryptError> {
    let EnvelopeHeader { format, key_id, .. } = identify(start).ok_or(DecryptError::NotAnEnvelope)?;
    match format {
        Format::A1 => Ok(Inspection {
            format,
            key_id,
            envelope_len,
            plaintext_len: a1::plaintext_len(envelope_len)?,
            header_len: a1::HEADER_LEN as u64,
            details: None,
        }),
        Format::A2 => {
            let fixed = A2Header::read_fixed(start)?.ok_or(DecryptError::Truncated {
                expected: A2Header::FIXED_LEN as u64,
                received: start.len() as u64,
            })?;
            let layout = A2Layout::new(fixed.geometry, envelope_len)?;
            let service_key = match A2Header::parse(start)?.as_ref().map(A2Header::wrap) {
                Some(KeyWrap::Service(wrap)) => Some(wrap.key.to_owned()),
                _ => None,
            };
            Ok(Inspection {
                format,
                key_id,
                envelope_len,
                plaintext_len: layout.plaintext_len(),
                header_len: fixed.geometry.header_len(),
                details: Some(EnvelopeDetails {
                    segment_size: layout.segment_size(),
                    segments: layout.segments(),
                    service: fixed.service,
                    service_key,
                }),
            })
        }
    }
}

/// Returns the length of the envelope that [`encrypt`](crate::encrypt) makes of `plaintext_len` bytes, at
/// most `u64::MAX`.
pub fn envelope_len(format: Format, plaintext_len: u64) -> u64 {
    match format {
        Format::A1 => plaintext_len.saturating_add(a1::OVERHEAD),
        Format::A2 => A2Geometry::STANDARD.envelope_len(plaintext_len),
    }
}
