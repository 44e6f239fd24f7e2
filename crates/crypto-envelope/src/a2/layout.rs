//! Positions and lengths in an A2 envelope. This module only computes; it handles neither keys nor content.

use std::ops::{Range, RangeInclusive};

use crate::error::{DecryptError, HeaderError, RangeError};
use crate::format::Format;
use crate::primitives::{KWP_LEN, TAG_LEN};

const TAG: u64 = TAG_LEN as u64;

/// Returns the header length of an envelope under a master key, in bytes: how much to fetch in order to open
/// an unknown object. Envelopes under Key Vault have longer headers.
pub const fn speculative_header_len() -> u64 {
    A2Geometry::STANDARD.header_len()
}

/// Header length and segment size, which determine where each segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct A2Geometry {
    k: u8,
    wrapped_key_len: usize,
}

impl A2Geometry {
    /// The exponent of new envelopes: segments of 64 KiB.
    pub(crate) const STANDARD_K: u8 = 16;

    /// The geometry of envelopes made by [`encrypt`](crate::encrypt): a header of 82 bytes and segments of 64
    /// KiB.
    pub const STANDARD: Self = Self { k: Self::STANDARD_K, wrapped_key_len: KWP_LEN };

    /// Exponents that readers accept.
    const ACCEPTED_K: RangeInclusive<u8> = 12..=24;

    pub(crate) fn new(k: u8, wrapped_key_len: u16) -> Result<Self, HeaderError> {
        if Self::ACCEPTED_K.contains(&k) {
            Ok(Self { k, wrapped_key_len: usize::from(wrapped_key_len) })
        } else {
            Err(HeaderError::SegmentSize(k))
        }
    }

    /// Returns the number of bytes before the first segment.
    pub const fn header_len(&self) -> u64 {
        self.header_len_usize() as u64
    }

    pub(crate) const fn header_len_usize(&self) -> usize {
        super::header::A2Header::FIXED_LEN + self.wrapped_key_len
    }

    /// Returns the number of plaintext bytes in a full segment.
    pub const fn segment_size(&self) -> u64 {
        1 << self.k
    }

    /// Returns the length of a full segment in the envelope, in bytes.
    const fn sealed_size(&self) -> u64 {
        self.segment_size() + TAG
    }

    /// Returns the length of the envelope of `plaintext_len` bytes, at most `u64::MAX`.
    pub fn envelope_len(&self, plaintext_len: u64) -> u64 {
        // An empty plaintext has one segment, which consists of only a tag.
        let segments = plaintext_len.div_ceil(self.segment_size()).max(1);
        segments.saturating_mul(TAG).saturating_add(plaintext_len).saturating_add(self.header_len())
    }

    /// Returns the range of the envelope, in whole segments, that a range of the plaintext requires; an empty
    /// range for an empty one.
    ///
    /// The envelope's length is not known here, so the range may end after the envelope; storages truncate
    /// such requests.
    pub fn envelope_range(&self, plaintext: Range<u64>) -> Range<u64> {
        let segments = self.segments_of(&plaintext);
        self.segment_start(segments.start)..self.segment_start(segments.end)
    }

    /// Returns the range of one request for header and range: bytes 0 to the end of the range's last segment.
    /// Returns `None` if this fetches more than `max_surplus` bytes of segments that are not needed.
    ///
    /// For an unknown object, use [`A2Geometry::STANDARD`]. If its header turns out to be longer,
    /// [`A2Decryptor::remaining`](crate::A2Decryptor::remaining) returns what is missing.
    pub fn range_with_header(&self, plaintext: Range<u64>, max_surplus: u64) -> Option<Range<u64>> {
        let needed = self.envelope_range(plaintext);
        let surplus = needed.start.saturating_sub(self.header_len());
        (surplus <= max_surplus).then_some(0..needed.end.max(self.header_len()))
    }

    /// Returns the segments that overlap a range.
    fn segments_of(&self, plaintext: &Range<u64>) -> Range<u64> {
        let first = plaintext.start >> self.k;
        if plaintext.is_empty() { first..first } else { first..((plaintext.end - 1) >> self.k) + 1 }
    }

    /// Returns a segment's position in the envelope.
    fn segment_start(&self, segment: u64) -> u64 {
        segment.saturating_mul(self.sealed_size()).saturating_add(self.header_len())
    }
}

/// The geometry of one envelope of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct A2Layout {
    geometry: A2Geometry,
    envelope_len: u64,
    segments: u64,
}

impl A2Layout {
    /// Returns the layout of an envelope of `envelope_len` bytes, as reported by the storage.
    ///
    /// # Errors
    /// [`DecryptError::InvalidLength`] if no envelope with this geometry can have this length.
    pub fn new(geometry: A2Geometry, envelope_len: u64) -> Result<Self, DecryptError> {
        let invalid = DecryptError::InvalidLength { format: Format::A2, envelope_len };
        let Some(sealed) = envelope_len.checked_sub(geometry.header_len()) else { return Err(invalid) };
        let segments = sealed.div_ceil(geometry.sealed_size());
        let last = sealed - segments.saturating_sub(1).saturating_mul(geometry.sealed_size());
        // A last segment of only a tag is valid only for the empty plaintext.
        if last < TAG || (last == TAG && segments != 1) {
            return Err(invalid);
        }
        Ok(Self { geometry, envelope_len, segments })
    }

    /// Returns the length of the whole plaintext in bytes.
    pub fn plaintext_len(&self) -> u64 {
        self.envelope_len - self.geometry.header_len() - self.segments * TAG
    }

    /// Returns the length of the envelope in bytes.
    pub fn envelope_len(&self) -> u64 {
        self.envelope_len
    }

    /// Returns the number of segments, at least 1.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Returns the number of plaintext bytes in a full segment. Parallel requests for one object should begin
    /// at multiples of this number.
    pub fn segment_size(&self) -> u64 {
        self.geometry.segment_size()
    }

    /// Returns header length and segment size.
    pub fn geometry(&self) -> A2Geometry {
        self.geometry
    }

    /// Returns what to fetch for the bytes `plaintext` of the attachment. An empty range requires nothing.
    ///
    /// # Errors
    /// [`RangeError`] if the range is not within the plaintext.
    pub fn plan(&self, plaintext: Range<u64>) -> Result<RangePlan, RangeError> {
        let plaintext_len = self.plaintext_len();
        let Range { start, end } = plaintext;
        if start > end || end > plaintext_len {
            return Err(RangeError { start, end, plaintext_len });
        }
        Ok(RangePlan { layout: *self, segments: self.geometry.segments_of(&plaintext), start, end })
    }

    /// Returns what to fetch for the whole plaintext: all segments. Unlike `plan(0..plaintext_len)`, this
    /// includes the only segment of an empty plaintext, so that its emptiness is verified.
    pub fn plan_whole(&self) -> RangePlan {
        RangePlan { layout: *self, segments: 0..self.segments, start: 0, end: self.plaintext_len() }
    }

    pub(crate) fn is_last(&self, segment: u64) -> bool {
        segment + 1 == self.segments
    }

    /// Returns the segment with a position in the envelope; `None` for the header, and after the end.
    pub(crate) fn segment_at(&self, position: u64) -> Option<u64> {
        let sealed = position.checked_sub(self.geometry.header_len())?;
        (position < self.envelope_len).then(|| sealed / self.geometry.sealed_size())
    }

    /// Returns a segment's range in the plaintext. Empty for the only segment of an empty plaintext.
    pub(crate) fn plaintext_range(&self, segment: u64) -> Range<usize> {
        let size = self.geometry.segment_size();
        let start = segment.saturating_mul(size).min(self.plaintext_len());
        let end = start.saturating_add(size).min(self.plaintext_len());
        // The plaintext is in memory.
        let [start, end] = [start, end].map(|position| usize::try_from(position).unwrap_or(usize::MAX));
        start..end
    }

    /// Returns a segment's range in the envelope, including its tag.
    pub(crate) fn sealed(&self, segment: u64) -> Range<u64> {
        let start = self.geometry.segment_start(segment);
        start..self.geometry.segment_start(segment + 1).min(self.envelope_len)
    }

    /// Returns a segment's position in the envelope.
    pub(crate) fn sealed_start(&self, segment: u64) -> u64 {
        self.sealed(segment).start
    }

    /// Returns a segment's length in the envelope, including its tag.
    pub(crate) fn sealed_len(&self, segment: u64) -> usize {
        let Range { start, end } = self.sealed(segment);
        // The length is at most 2^24 + 16.
        usize::try_from(end - start).unwrap_or(usize::MAX)
    }
}

/// The range of the envelope to fetch for a range of the plaintext, and the segments in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangePlan {
    layout: A2Layout,
    segments: Range<u64>,
    start: u64,
    end: u64,
}

impl RangePlan {
    /// Returns the range to fetch, which consists of whole segments; an empty range for an empty one.
    pub fn envelope_range(&self) -> Range<u64> {
        if self.segments.is_empty() {
            let start = self.layout.geometry.segment_start(self.segments.start);
            return start..start;
        }
        self.layout.sealed(self.segments.start).start..self.layout.sealed(self.segments.end - 1).end
    }

    /// Returns the range of the plaintext that decryption yields.
    pub fn plaintext_range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(crate) fn layout(&self) -> &A2Layout {
        &self.layout
    }

    pub(crate) fn segments(&self) -> Range<u64> {
        self.segments.clone()
    }

    /// Returns the wanted range of a segment's plaintext, relative to the segment's start.
    pub(crate) fn wanted_of(&self, segment: u64) -> Range<usize> {
        let segment_start = segment << self.layout.geometry.k;
        let cut = |position: u64| {
            let within = position.saturating_sub(segment_start).min(self.layout.segment_size());
            usize::try_from(within).unwrap_or(usize::MAX)
        };
        cut(self.start)..cut(self.end)
    }
}
