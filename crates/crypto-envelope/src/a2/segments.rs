//! Splits arriving bytes into segments, opens each segment, and appends its wanted range to the target.

use zeroize::Zeroizing;

use crate::a2::layout::RangePlan;
use crate::a2::opener::A2Opener;
use crate::error::DecryptError;
use crate::primitives::TAG_LEN;
use crate::target::PlaintextTarget;

/// Opens the segments of a plan in order.
pub(crate) struct SegmentReader {
    plan: RangePlan,
    /// Index of the next segment to open.
    next: u64,
    /// The ciphertext of an incomplete next segment.
    pending: Vec<u8>,
}

impl SegmentReader {
    pub(crate) fn new(plan: RangePlan) -> Self {
        let next = plan.segments().start;
        Self { plan, next, pending: Vec::new() }
    }

    /// Removes bytes from the start of `chunk` until the plan is complete or `chunk` is empty.
    pub(crate) fn push(
        &mut self,
        opener: &A2Opener,
        chunk: &mut &[u8],
        target: &mut impl PlaintextTarget,
    ) -> Result<(), DecryptError> {
        while !self.is_complete() && !chunk.is_empty() {
            let sealed_len = self.plan.layout().sealed_len(self.next);
            let missing = sealed_len - self.pending.len();
            let (taken, rest) = chunk.split_at(missing.min(chunk.len()));
            *chunk = rest;
            if taken.len() == sealed_len {
                // The chunk contains the whole segment, which needs no copy.
                self.open(opener, taken, target)?;
            } else {
                // The exact capacity is reserved, since growing would double it and a segment can have 16
                // MiB.
                self.pending.reserve_exact(missing);
                self.pending.extend_from_slice(taken);
                if self.pending.len() == sealed_len {
                    let mut sealed = std::mem::take(&mut self.pending);
                    self.open(opener, &sealed, target)?;
                    sealed.clear();
                    self.pending = sealed;
                }
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        opener: &A2Opener,
        sealed: &[u8],
        target: &mut impl PlaintextTarget,
    ) -> Result<(), DecryptError> {
        let segment = self.next;
        let layout = self.plan.layout();
        let plaintext_len = sealed.len() - TAG_LEN;
        let within_full_segment = self.plan.wanted_of(segment);
        let wanted = within_full_segment.start..within_full_segment.end.min(plaintext_len);
        if wanted.is_empty() {
            // The only segment of an empty plaintext must be verified too.
            opener.open(layout, segment, sealed, &mut vec![0; plaintext_len])?;
        } else if wanted.len() == plaintext_len {
            target.append_with(plaintext_len, |out| opener.open(layout, segment, sealed, out))?;
        } else {
            // The segment can only be verified as a whole, so it is decrypted to a temporary buffer.
            let mut plaintext = Zeroizing::new(vec![0; plaintext_len]);
            opener.open(layout, segment, sealed, &mut plaintext)?;
            target.append_with(wanted.len(), |out| {
                out.copy_from_slice(&plaintext[wanted]);
                Ok(())
            })?;
        }
        self.next += 1;
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next >= self.plan.segments().end
    }

    pub(crate) fn plan(&self) -> &RangePlan {
        &self.plan
    }

    /// Returns the position of the next byte in the envelope.
    pub(crate) fn position(&self) -> u64 {
        if self.is_complete() {
            return self.plan.envelope_range().end;
        }
        self.plan.layout().sealed_start(self.next) + self.pending.len() as u64
    }
}
