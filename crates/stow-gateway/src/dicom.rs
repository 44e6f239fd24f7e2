//! The UIDs in the header of a DICOM file (PS3.10), read from its first bytes.
//!
//! Nothing but the UIDs is kept, lengths in the file never cause an allocation, and nesting does not use the
//! stack. A result does not depend on how the file arrives: the header is parsed when certain numbers of bytes
//! are available, and from exactly these bytes.

mod elements;
mod inflate;

use bytes::{Bytes, BytesMut};
use dicom_core::Tag;
use dicom_core::dictionary::stub::StubDataDictionary;
use dicom_encoding::decode::adaptive_le::AdaptiveVRLittleEndianDecoder;
use dicom_encoding::decode::explicit_be::ExplicitVRBigEndianDecoder;
use dicom_encoding::decode::explicit_le::ExplicitVRLittleEndianDecoder;
use dicom_encoding::decode::implicit_le::ImplicitVRLittleEndianDecoder;

use crate::failure::Failure;
use crate::sink::{Instance, MAX_WRITE};
use crate::uid::{InvalidUid, Uid, trim_padding};
use elements::{Source, Stop, Values};

/// Maximum number of bytes of a file, and of its inflated data set, in which the UIDs must be.
pub(crate) const HEADER_LIMIT: usize = 1 << 20;
// The header of an instance is passed on with one call.
const _: () = assert!(HEADER_LIMIT <= MAX_WRITE);
/// The first attempt to parse the header is made with this many bytes, and each further one with twice as many.
const FIRST_ATTEMPT: usize = 4096;

pub(crate) const SOP_CLASS: Tag = Tag(0x0008, 0x0016);
pub(crate) const SOP_INSTANCE: Tag = Tag(0x0008, 0x0018);
pub(crate) const STUDY: Tag = Tag(0x0020, 0x000D);
pub(crate) const SERIES: Tag = Tag(0x0020, 0x000E);
pub(crate) const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const GROUP_LENGTH: Tag = Tag(0x0002, 0x0000);
const MEDIA_STORAGE_SOP_CLASS: Tag = Tag(0x0002, 0x0002);
const MEDIA_STORAGE_SOP_INSTANCE: Tag = Tag(0x0002, 0x0003);

/// SOP class and instance of a file that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
}

/// Why a header cannot be read, and to which instance that applies, if it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) failure: Failure,
    pub(crate) reference: Option<Reference>,
}

impl From<Failure> for Unreadable {
    fn from(failure: Failure) -> Self {
        Self { failure, reference: None }
    }
}

/// Collects the first bytes of a file until they contain the UIDs.
#[derive(Debug)]
pub(crate) struct HeaderReader {
    held: BytesMut,
    /// The number of bytes of the next attempt.
    attempt: usize,
}

impl HeaderReader {
    pub(crate) fn new() -> Self {
        Self { held: BytesMut::new(), attempt: FIRST_ATTEMPT }
    }

    /// Adds bytes of the file. Returns `None` if more are needed; otherwise the instance and all bytes so far.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Result<Option<(Instance, Pieces)>, Unreadable> {
        // Usually, the first chunk contains the whole header and need not be copied.
        if self.held.is_empty() {
            if let Some(instance) = attempts(&mut self.attempt, &bytes)? {
                return Ok(Some((instance, Pieces { first: bytes, second: Bytes::new() })));
            }
            self.held.extend_from_slice(&bytes);
            return Ok(None);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            // Not more, so that the rest can be passed on without being copied.
            let missing = self.attempt.saturating_sub(self.held.len());
            self.held.extend_from_slice(&rest.split_to(missing.min(rest.len())));
            if let Some(instance) = attempts(&mut self.attempt, &self.held)? {
                return Ok(Some((instance, Pieces { first: self.held.split().freeze(), second: rest })));
            }
        }
        Ok(None)
    }

    /// Marks the end of the file.
    pub(crate) fn finish(self) -> Result<(Instance, Bytes), Unreadable> {
        match identify(&self.held)? {
            Header::Complete(instance) => Ok((instance, self.held.freeze())),
            Header::Short(_) if elements::content_start(&self.held).is_none() => {
                Err(Failure::NotDicom.into())
            }
            Header::Short(reference) => Err(Unreadable { failure: Failure::HeaderTruncated, reference }),
        }
    }
}

/// Makes all attempts for which there are enough bytes. Afterwards, `attempt` is larger than their number.
fn attempts(attempt: &mut usize, bytes: &[u8]) -> Result<Option<Instance>, Unreadable> {
    while let Some(beginning) = bytes.get(..*attempt) {
        match identify(beginning)? {
            Header::Complete(instance) => return Ok(Some(instance)),
            Header::Short(reference) if *attempt >= HEADER_LIMIT => {
                return Err(Unreadable { failure: Failure::HeaderTooLarge, reference });
            }
            Header::Short(_) => *attempt *= 2,
        }
    }
    Ok(None)
}

/// The bytes of a file up to where its header was recognized.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) first: Bytes,
    pub(crate) second: Bytes,
}

/// What the first bytes of a file contain.
enum Header {
    Complete(Instance),
    /// More bytes are needed. The instance may be known already.
    Short(Option<Reference>),
}

fn identify(bytes: &[u8]) -> Result<Header, Unreadable> {
    let mut values = Values::default();
    match read(bytes, &mut values) {
        Ok(()) => instance(&values).map(Header::Complete),
        Err(Stop::Short) => Ok(Header::Short(reference(&values))),
        Err(Stop::Failed(failure)) => Err(Unreadable { failure, reference: reference(&values) }),
    }
}

fn read(bytes: &[u8], values: &mut Values) -> Result<(), Stop> {
    let mut source = file_source(bytes)?;
    meta(&mut source, values)?;
    let syntax = values.get(TRANSFER_SYNTAX).ok_or(Failure::Missing(TRANSFER_SYNTAX))?;
    let implicit = || ImplicitVRLittleEndianDecoder::with_dict(StubDataDictionary);
    match Encoding::of(trim_padding(syntax)) {
        Encoding::ImplicitLittle => elements::data_set(&mut source, &implicit(), values),
        Encoding::ExplicitBig => {
            elements::data_set(&mut source, &ExplicitVRBigEndianDecoder::default(), values)
        }
        // The adaptive decoder also reads files that declare explicit VR, but are encoded with implicit VR.
        Encoding::ExplicitLittle => {
            let decoder = AdaptiveVRLittleEndianDecoder::with_dict(StubDataDictionary);
            elements::data_set(&mut source, &decoder, values)
        }
        Encoding::Deflated => {
            let (plain, damaged) = inflate::inflate(source.rest(), HEADER_LIMIT);
            let decoder = AdaptiveVRLittleEndianDecoder::with_dict(StubDataDictionary);
            match elements::data_set(&mut Source::new(&plain), &decoder, values) {
                Err(Stop::Short) if damaged => Err(Failure::Deflate.into()),
                Err(Stop::Short) if plain.len() >= HEADER_LIMIT => Err(Failure::HeaderTooLarge.into()),
                other => other,
            }
        }
    }
}

fn file_source(bytes: &[u8]) -> Result<Source<'_>, Stop> {
    match elements::content_start(bytes) {
        Some(start) => Ok(Source::at(bytes, start)),
        None if bytes.len() < elements::MAX_CONTENT_START => Err(Stop::Short),
        None => Err(Failure::NotDicom.into()),
    }
}

/// Reads the file meta information. Its group length is often wrong and therefore only used where the end
/// cannot be recognized by the group of the next element: in front of a deflated data set.
fn meta(source: &mut Source<'_>, values: &mut Values) -> Result<(), Stop> {
    let decoder = ExplicitVRLittleEndianDecoder::default();
    let mut end = None;
    loop {
        let deflated =
            values.get(TRANSFER_SYNTAX).map(|v| Encoding::of(trim_padding(v))) == Some(Encoding::Deflated);
        if deflated && end.is_some_and(|end| source.position() >= end) {
            return Ok(());
        }
        if source.peek_group()? != 0x0002 {
            return Ok(());
        }
        let header = elements::header(source, &decoder)?;
        match header.tag {
            GROUP_LENGTH => {
                let bytes = source.value(header.len)?;
                let length = <[u8; 4]>::try_from(bytes)
                    .map_err(|_| Failure::Header("the group length is not 4 bytes long"))?;
                end = Some(source.position() + u32::from_le_bytes(length) as usize);
            }
            MEDIA_STORAGE_SOP_CLASS | MEDIA_STORAGE_SOP_INSTANCE | TRANSFER_SYNTAX => {
                values.set(header.tag, source.value(header.len)?)?;
            }
            _ => source.skip(header.len)?,
        }
    }
}

/// How the data set is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
    Deflated,
}

impl Encoding {
    fn of(transfer_syntax: &[u8]) -> Self {
        match transfer_syntax {
            // The second one is private to GE: only its pixel data are big-endian.
            b"1.2.840.10008.1.2" | b"1.2.840.113619.5.2" => Self::ImplicitLittle,
            b"1.2.840.10008.1.2.2" => Self::ExplicitBig,
            // The latter two are JPIP, whose data sets are deflated as well.
            b"1.2.840.10008.1.2.1.99" | b"1.2.840.10008.1.2.4.95" | b"1.2.840.10008.1.2.4.205" => {
                Self::Deflated
            }
            // All others, whatever they compress pixel data with (PS3.5 A.4).
            _ => Self::ExplicitLittle,
        }
    }
}

fn uid(values: &Values, tag: Tag) -> Result<Uid, Failure> {
    let value = values.get(tag).ok_or(Failure::Missing(tag))?;
    match Uid::parse(value) {
        Err(InvalidUid::Empty) => Err(Failure::Missing(tag)),
        other => other.map_err(|reason| Failure::InvalidUid { tag, reason }),
    }
}

/// The instance that the answer names as failed. If the data set has no SOP class or instance, those of the
/// file meta information identify it.
fn reference(values: &Values) -> Option<Reference> {
    let either = |tag, meta| uid(values, tag).or_else(|_| uid(values, meta)).ok();
    Some(Reference {
        sop_class: either(SOP_CLASS, MEDIA_STORAGE_SOP_CLASS)?,
        sop_instance: either(SOP_INSTANCE, MEDIA_STORAGE_SOP_INSTANCE)?,
    })
}

fn instance(values: &Values) -> Result<Instance, Unreadable> {
    let check = || {
        let instance = Instance {
            sop_class: uid(values, SOP_CLASS)?,
            sop_instance: uid(values, SOP_INSTANCE)?,
            study: uid(values, STUDY)?,
            series: uid(values, SERIES)?,
        };
        let pairs = [
            (SOP_CLASS, MEDIA_STORAGE_SOP_CLASS, &instance.sop_class),
            (SOP_INSTANCE, MEDIA_STORAGE_SOP_INSTANCE, &instance.sop_instance),
        ];
        for (tag, meta, uid) in pairs {
            let other = values.get(meta).map(trim_padding).unwrap_or_default();
            if !other.is_empty() && other != uid.as_str().as_bytes() {
                return Err(Failure::Contradiction(tag));
            }
        }
        Ok(instance)
    };
    check().map_err(|failure| Unreadable { failure, reference: reference(values) })
}

#[cfg(test)]
mod tests;
