//! Cuts arriving bytes into segments, opens each, and appends the wanted part to the target.

use zeroize::Zeroizing;

use crate::a2::layout::RangePlan;
use crate::a2::opener::A2Opener;
use crate::error::DecryptError;
use crate::primitives::TAG_LEN;
use crate::target::PlaintextTarget;

/// The segments of a plan, in order.
pub(crate) struct SegmentReader {
    plan: RangePlan,
    /// The next segment to open.
    next: u64,
    /// The next segment's first bytes, when it arrives in pieces. Ciphertext.
    pending: Vec<u8>,
}

impl SegmentReader {
    pub(crate) fn new(plan: RangePlan) -> Self {
        let next = plan.segments().start;
        Self { plan, next, pending: Vec::new() }
    }

    /// Takes bytes from the start of `chunk` until the plan is complete or `chunk` empty.
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
                // Whole in the chunk: decrypted from where it is.
                self.open(opener, taken, target)?;
            } else {
                // Exactly: growing would double it, and a segment can be 16 MiB.
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
        let wanted = self.plan.wanted_of(segment);
        let wanted = wanted.start..wanted.end.min(plaintext_len);
        if wanted.is_empty() {
            // The one segment of an empty plaintext: verified, though there is nothing to deliver.
            opener.open(layout, segment, sealed, &mut vec![0; plaintext_len])?;
        } else if wanted.len() == plaintext_len {
            target.append_with(plaintext_len, |out| opener.open(layout, segment, sealed, out))?;
        } else {
            // Verified as a whole, delivered in part.
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

    /// Where in the envelope the next byte belongs.
    pub(crate) fn position(&self) -> u64 {
        if self.is_complete() {
            return self.plan.envelope_range().end;
        }
        self.plan.layout().sealed_start(self.next) + self.pending.len() as u64
    }
}
