//! Data elements, up to the Series Instance UID.

use std::io::{self, Read};

use dicom_core::Tag;
use dicom_core::dictionary::stub::StubDataDictionary;
use dicom_core::header::{DataElementHeader, Length, SequenceItemHeader, VR};
use dicom_encoding::decode::implicit_le::ImplicitVRLittleEndianDecoder;
use dicom_encoding::decode::{Decode, Error};

use crate::dicom::{
    HEADER_LIMIT, MEDIA_STORAGE_SOP_CLASS, MEDIA_STORAGE_SOP_INSTANCE, SERIES, SOP_CLASS, SOP_INSTANCE,
    STUDY, TRANSFER_SYNTAX,
};
use crate::failure::Failure;

/// Length of the preamble.
const PREAMBLE: usize = 128;
/// Maximum offset of the file meta information.
pub(super) const MAX_CONTENT_START: usize = PREAMBLE + 4;
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);

/// Why reading ended before the Series Instance UID.
#[derive(Debug)]
pub(super) enum Stop {
    /// More bytes are needed.
    Short,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::BadSequenceHeader { .. } => {
                Failure::Header("an item of a sequence does not begin with its tag").into()
            }
            // Reading from memory fails only at the end.
            _ => Self::Short,
        }
    }
}

/// Offset of the file meta information: after a preamble and `DICM`, after `DICM`, or at the beginning.
/// The preamble is required, but Orthanc and others read files without it, too.
pub(super) fn content_start(bytes: &[u8]) -> Option<usize> {
    const MAGIC: &[u8] = b"DICM";
    if bytes.get(PREAMBLE..).is_some_and(|rest| rest.starts_with(MAGIC)) {
        Some(MAX_CONTENT_START)
    } else if bytes.len() < MAX_CONTENT_START {
        None
    } else if bytes.starts_with(MAGIC) {
        Some(MAGIC.len())
    } else if bytes.starts_with(&[0x02, 0x00]) {
        Some(0)
    } else {
        None
    }
}

/// The available bytes.
#[derive(Debug)]
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// `position` must not be after the end.
    pub(super) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// The group of the next element, in little-endian order.
    pub(super) fn peek_group(&self) -> Result<u16, Stop> {
        self.rest().first_chunk().map(|bytes| u16::from_le_bytes(*bytes)).ok_or(Stop::Short)
    }

    /// Returns a value of defined length.
    pub(super) fn value(&mut self, len: Length) -> Result<&'a [u8], Stop> {
        let defined =
            len.get().ok_or(Failure::Header("a value has no defined length where it must have one"))?;
        let len = defined as usize;
        if len > HEADER_LIMIT - self.position.min(HEADER_LIMIT) {
            return Err(Failure::HeaderTooLarge.into());
        }
        let value = self.rest().get(..len).ok_or(Stop::Short)?;
        self.position += len;
        Ok(value)
    }

    pub(super) fn skip(&mut self, len: Length) -> Result<(), Stop> {
        self.value(len).map(drop)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.rest().read(buffer)?;
        self.position += len;
        Ok(len)
    }
}

/// The values that were found.
#[derive(Debug, Default)]
pub(super) struct Values([Option<Vec<u8>>; WANTED.len()]);

const WANTED: [Tag; 7] = [
    MEDIA_STORAGE_SOP_CLASS,
    MEDIA_STORAGE_SOP_INSTANCE,
    TRANSFER_SYNTAX,
    SOP_CLASS,
    SOP_INSTANCE,
    STUDY,
    SERIES,
];
/// UIDs have at most 64 characters; of longer values, this much is kept.
const MAX_VALUE: usize = 128;

impl Values {
    pub(super) fn get(&self, tag: Tag) -> Option<&[u8]> {
        let index = WANTED.iter().position(|wanted| *wanted == tag)?;
        self.0[index].as_deref()
    }

    pub(super) fn set(&mut self, tag: Tag, value: &[u8]) -> Result<(), Stop> {
        let Some(index) = WANTED.iter().position(|wanted| *wanted == tag) else { return Ok(()) };
        // Other readers may use the other one.
        if self.0[index].is_some() {
            return Err(Failure::Repeated(tag).into());
        }
        self.0[index] = Some(value[..value.len().min(MAX_VALUE)].to_vec());
        Ok(())
    }
}

/// Reads an element's tag, VR and length.
pub(super) fn header<D: Decode>(source: &mut Source<'_>, decoder: &D) -> Result<DataElementHeader, Stop> {
    Ok(decoder.decode_header(source)?.0)
}

/// Reads a data set up to the first element after the Series Instance UID, or until all UIDs are found.
pub(super) fn data_set<D: Decode>(
    source: &mut Source<'_>,
    decoder: &D,
    values: &mut Values,
) -> Result<(), Stop> {
    while [SOP_CLASS, SOP_INSTANCE, STUDY, SERIES].iter().any(|tag| values.get(*tag).is_none()) {
        let element = header(source, decoder)?;
        match element.tag {
            tag if tag > SERIES => return Ok(()),
            SOP_CLASS | SOP_INSTANCE | STUDY | SERIES => {
                values.set(element.tag, source.value(element.len)?)?;
            }
            _ if element.len.is_defined() => source.skip(element.len)?,
            _ => skip_sequence(source, decoder, element.vr == VR::UN)?,
        }
    }
    Ok(())
}

/// What is open while a sequence is skipped, and whether its content is in implicit VR little-endian: that is
/// the encoding of sequences with VR UN in any transfer syntax (PS3.5 6.2.2).
#[derive(Debug, Clone, Copy)]
enum Open {
    Sequence { implicit: bool },
    Item { implicit: bool },
}

/// Skips a sequence, or encapsulated fragments, of undefined length. Its nesting is limited by the length of
/// the header only.
fn skip_sequence<D: Decode>(source: &mut Source<'_>, decoder: &D, implicit: bool) -> Result<(), Stop> {
    let implicit_decoder = ImplicitVRLittleEndianDecoder::with_dict(StubDataDictionary);
    let mut open = vec![Open::Sequence { implicit }];
    while let Some(innermost) = open.last().copied() {
        match innermost {
            Open::Sequence { implicit } => {
                let header = if implicit {
                    implicit_decoder.decode_item_header(source)
                } else {
                    decoder.decode_item_header(source)
                };
                match header? {
                    SequenceItemHeader::Item { len } if len.is_defined() => source.skip(len)?,
                    SequenceItemHeader::Item { .. } => open.push(Open::Item { implicit }),
                    SequenceItemHeader::SequenceDelimiter => drop(open.pop()),
                    SequenceItemHeader::ItemDelimiter => {
                        return Err(Failure::Header("an item ends that has not begun").into());
                    }
                }
            }
            Open::Item { implicit } => {
                let element =
                    if implicit { header(source, &implicit_decoder) } else { header(source, decoder) }?;
                if element.tag == ITEM_DELIMITER {
                    open.pop();
                } else if element.tag.group() == ITEM_DELIMITER.group() {
                    return Err(Failure::Header("a sequence ends within an item").into());
                } else if element.len.is_defined() {
                    source.skip(element.len)?;
                } else {
                    open.push(Open::Sequence { implicit: implicit || element.vr == VR::UN });
                }
            }
        }
    }
    Ok(())
}
