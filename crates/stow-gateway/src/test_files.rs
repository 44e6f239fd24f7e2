//! DICOM files for tests, byte by byte: also those that no library writes.

use std::io::Write;

use dicom_core::Tag;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::dicom::{SERIES, SOP_CLASS, SOP_INSTANCE, STUDY, TRANSFER_SYNTAX};

pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub(crate) const JPEG: &str = "1.2.840.10008.1.2.4.50";
pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// An element in the encoding of a transfer syntax, with a length that may differ from that of its value.
pub(crate) fn element_of_length(syntax: &str, tag: Tag, vr: &str, len: u32, value: &[u8]) -> Vec<u8> {
    let big = syntax == BIG_ENDIAN;
    let u16 = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let u32 = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut bytes = [u16(tag.group()), u16(tag.element())].concat();
    if syntax == IMPLICIT || tag.group() == 0xFFFE {
        bytes.extend(u32(len));
    } else if matches!(vr, "OB" | "OW" | "SQ" | "UN" | "UT") {
        bytes.extend(vr.bytes().chain([0, 0]).chain(u32(len)));
    } else {
        bytes.extend(vr.bytes().chain(u16(u16::try_from(len).unwrap())));
    }
    [bytes, value.to_vec()].concat()
}

/// An element, padded to an even length.
pub(crate) fn element(syntax: &str, tag: Tag, vr: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut padded = value.as_ref().to_vec();
    if padded.len() % 2 == 1 {
        padded.push(0);
    }
    let len = u32::try_from(padded.len()).unwrap();
    element_of_length(syntax, tag, vr, len, &padded)
}

/// A sequence of undefined length in the encoding of a transfer syntax.
pub(crate) fn sequence(syntax: &str, tag: Tag, vr: &str, items: &[Vec<u8>]) -> Vec<u8> {
    const UNDEFINED: u32 = u32::MAX;
    let content: &str = if vr == "UN" { IMPLICIT } else { syntax };
    let mut bytes = element_of_length(syntax, tag, vr, UNDEFINED, b"");
    for item in items {
        bytes.extend(element_of_length(content, Tag(0xFFFE, 0xE000), "", UNDEFINED, item));
        bytes.extend(element(content, Tag(0xFFFE, 0xE00D), "", b""));
    }
    bytes.extend(element(content, Tag(0xFFFE, 0xE0DD), "", b""));
    bytes
}

/// A file whose elements can be replaced one by one.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) prefix: Vec<u8>,
    pub(crate) syntax: &'static str,
    /// Elements of the file meta information, without its group length.
    pub(crate) meta: Vec<Vec<u8>>,
    /// Elements of the data set, in the encoding of `syntax`.
    pub(crate) data_set: Vec<Vec<u8>>,
}

impl File {
    /// A valid file, of study 1.2, series 1.2.3 and this instance, with some pixels.
    pub(crate) fn new(syntax: &'static str, instance: &str) -> Self {
        Self::with_uids(syntax, [CT, instance, "1.2", "1.2.3"])
    }

    /// A file with any values for SOP class, SOP instance, study and series.
    pub(crate) fn with_uids(syntax: &'static str, uids: [&str; 4]) -> Self {
        let [class, instance, study, series] = uids;
        Self {
            prefix: [vec![0; 128], b"DICM".to_vec()].concat(),
            syntax,
            meta: vec![
                element(EXPLICIT, Tag(2, 1), "OB", b"\0\x01"),
                element(EXPLICIT, Tag(2, 2), "UI", class),
                element(EXPLICIT, Tag(2, 3), "UI", instance),
                element(EXPLICIT, TRANSFER_SYNTAX, "UI", syntax),
            ],
            data_set: vec![
                element(syntax, Tag(0x0008, 0x0005), "CS", "ISO_IR 100"),
                element(syntax, SOP_CLASS, "UI", class),
                element(syntax, SOP_INSTANCE, "UI", instance),
                element(syntax, Tag(0x0010, 0x0010), "PN", "Doe^Jane"),
                element(syntax, STUDY, "UI", study),
                element(syntax, SERIES, "UI", series),
                element(syntax, Tag(0x0020, 0x0013), "IS", "1"),
                element(syntax, Tag(0x7FE0, 0x0010), "OW", vec![7; 64]),
            ],
        }
    }

    /// Inserts an element between the patient's name and the study.
    pub(crate) fn insert(mut self, element: Vec<u8>) -> Self {
        self.data_set.insert(4, element);
        self
    }

    /// Replaces the pixel data.
    pub(crate) fn with_pixels(mut self, pixels: &[u8]) -> Self {
        self.data_set.pop();
        self.data_set.push(element(self.syntax, Tag(0x7FE0, 0x0010), "OW", pixels));
        self
    }

    /// Removes an element of the data set.
    pub(crate) fn without(mut self, tag: Tag) -> Self {
        let first = element_of_length(self.syntax, tag, "UI", 0, b"");
        self.data_set.retain(|element| element[..4] != first[..4]);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let meta = self.meta.concat();
        let len = u32::try_from(meta.len()).unwrap().to_le_bytes();
        let group_length = element(EXPLICIT, Tag(2, 0), "UL", len);
        let mut data_set = self.data_set.concat();
        if self.syntax == DEFLATED {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&data_set).unwrap();
            data_set = encoder.finish().unwrap();
        }
        [self.prefix.clone(), group_length, meta, data_set].concat()
    }
}

/// Cuts `bytes` into chunks of these sizes, repeatedly.
pub(crate) fn chunks<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*size).min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}
