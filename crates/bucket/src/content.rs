//! The content of an object to store: in memory, or made as it is sent.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutPayload;

/// Content that is made when it is sent, in ranges of any size: an envelope, for example, which therefore need not be in
/// memory as a whole.
pub trait Source: fmt::Debug + Send + Sync {
    /// Size of the whole content, in bytes.
    fn size(&self) -> u64;

    /// Returns a range of the content in any number of pieces. A range that is asked for again, since a request is repeated
    /// or an object is compared, has the same bytes. May take as long as a checksum of these bytes.
    ///
    /// # Errors
    ///
    /// If the content cannot be made, which fails the upload.
    fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SourceError>;
}

/// Why content cannot be made.
pub type SourceError = Box<dyn StdError + Send + Sync>;

/// The content of an object to store.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Borrowed memory: the owner blocks until the upload releases it, which happens no later than the
    /// upload's future ends.
    Lent(Bytes),
    /// Owned memory, which a connection may keep for longer.
    Owned(Bytes),
    /// Owned memory in several pieces.
    Pieces(Arc<[Bytes]>),
    /// Made as the upload proceeds: for each attempt of a request, and each part in turn if it is sent in parts. The upload
    /// releases the source no later than its future ends.
    Made(Arc<dyn Source>),
}

/// A range of an object's content.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Bytes(Bytes),
    Pieces(Arc<[Bytes]>, Range<u64>),
    Made(Arc<dyn Source>, Range<u64>),
}

impl From<Payload> for Content {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Lent(bytes) | Payload::Owned(bytes) => Self::Bytes(bytes),
            Payload::Pieces(pieces) => {
                let size = pieces.iter().map(|piece| piece.len() as u64).sum();
                Self::Pieces(pieces, 0..size)
            }
            Payload::Made(source) => {
                let size = source.size();
                Self::Made(source, 0..size)
            }
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Content {
    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Pieces(_, range) | Self::Made(_, range) => range.end - range.start,
        }
    }

    /// Returns a range of this content, cut off at its end.
    pub(crate) fn slice(&self, range: Range<u64>) -> Self {
        let size = self.size();
        let [start, end] = [range.start, range.end.max(range.start)].map(|position| position.min(size));
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(in_memory(start)..in_memory(end))),
            Self::Pieces(pieces, whole) => {
                Self::Pieces(Arc::clone(pieces), whole.start + start..whole.start + end)
            }
            Self::Made(source, whole) => {
                Self::Made(Arc::clone(source), whole.start + start..whole.start + end)
            }
        }
    }

    /// Returns the bytes, in any number of pieces. May take as long as a checksum of them.
    pub(crate) fn read(&self) -> Result<Vec<Bytes>, SourceError> {
        match self {
            Self::Bytes(bytes) => Ok(vec![bytes.clone()]),
            Self::Pieces(pieces, range) => Ok(cut(pieces, range)),
            Self::Made(source, range) => {
                let pieces = source.read(range.clone())?;
                let size: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
                if size == range.end - range.start { Ok(pieces) } else { Err(WrongSize.into()) }
            }
        }
    }

    /// As [`read`](Self::read), for a request.
    pub(crate) fn payload(&self) -> object_store::Result<PutPayload> {
        match self.read() {
            Ok(pieces) => Ok(pieces.into_iter().collect()),
            Err(source) => Err(object_store::Error::Generic { store: "content", source }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the content was made with another size than announced")]
struct WrongSize;

/// A position in bytes that are in memory.
fn in_memory(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Returns the range of the bytes in `pieces`.
fn cut(pieces: &[Bytes], range: &Range<u64>) -> Vec<Bytes> {
    let mut position = 0;
    let cut = pieces.iter().filter_map(|piece| {
        let size = piece.len() as u64;
        let start = range.start.saturating_sub(position).min(size);
        let end = range.end.saturating_sub(position).min(size);
        position += size;
        (start < end).then(|| piece.slice(in_memory(start)..in_memory(end)))
    });
    cut.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 0, 1, 2, …
    #[derive(Debug)]
    struct Numbers {
        size: u8,
        /// What is missing at the end of each range.
        missing: usize,
    }

    impl Source for Numbers {
        fn size(&self) -> u64 {
            u64::from(self.size)
        }

        fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SourceError> {
            let bytes: Vec<u8> = range.map(|number| u8::try_from(number).unwrap()).collect();
            let kept = bytes.len() - self.missing;
            Ok(bytes[..kept].chunks(3).map(Bytes::copy_from_slice).collect())
        }
    }

    #[test]
    fn each_kind_of_content_has_the_same_ranges() {
        let bytes = Bytes::from_iter(0..20);
        let pieces = [0..7, 7..7, 7..8, 8..20].map(|range| bytes.slice(range));
        let source = Arc::new(Numbers { size: 20, missing: 0 });
        let contents =
            [Payload::Owned(bytes.clone()), Payload::Pieces(Arc::new(pieces)), Payload::Made(source)];
        for payload in contents {
            let content = Content::from(payload);
            for start in 0..=21 {
                for end in start..=22 {
                    let expected = &bytes[start.min(20)..end.min(20)];
                    let slice = content.slice(start as u64..end as u64);
                    assert_eq!(slice.size(), expected.len() as u64);
                    assert_eq!(slice.read().unwrap().concat(), expected, "{content:?}, {start}..{end}");
                    assert_eq!(slice.slice(1..3).read().unwrap().concat(), slice_of(expected));
                }
            }
        }
    }

    fn slice_of(bytes: &[u8]) -> &[u8] {
        &bytes[1.min(bytes.len())..3.min(bytes.len())]
    }

    #[test]
    fn source_must_make_what_it_has_announced() {
        let content = Content::from(Payload::Made(Arc::new(Numbers { size: 20, missing: 1 })));
        content.payload().unwrap_err();
    }
}
