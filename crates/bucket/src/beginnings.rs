//! Reads from the first byte of an object, which are often reads of all of it.
//!
//! Orthanc 1.12.8 and newer read whole attachments as ranges, without saying that they are whole. S3 sends the checksum of
//! an object only if the request has no range, and computing an MD5 instead takes longer than receiving the bytes. So a
//! read is sent without a range if the reads before it were of whole objects. If the object turns out to be longer, the
//! rest is not received, which costs the connection: after such a mistake, more reads of whole objects are needed.

use std::sync::atomic::{AtomicU32, Ordering};

/// Shorter reads, in bytes, keep their range: the headers of instances are that long, and an MD5 of so few bytes is quick.
const SHORTEST: u64 = 32 * 1024;
/// Consecutive reads of whole objects required after a mistake.
const AFTER_A_MISTAKE: u32 = 32;

/// What reads from the first byte have shown.
#[derive(Debug)]
pub(crate) struct Beginnings {
    /// Consecutive reads of whole objects.
    whole: AtomicU32,
    /// Consecutive whole reads required.
    needed: AtomicU32,
}

impl Default for Beginnings {
    fn default() -> Self {
        Self { whole: AtomicU32::new(0), needed: AtomicU32::new(1) }
    }
}

impl Beginnings {
    /// Whether the first `length` bytes of an object are likely to be all of it.
    pub(crate) fn are_likely_whole(&self, length: u64) -> bool {
        length >= SHORTEST && self.whole.load(Ordering::Relaxed) >= self.needed.load(Ordering::Relaxed)
    }

    /// Notes whether the first `length` bytes of an object were all of it, and whether that had been expected.
    pub(crate) fn note(&self, length: u64, is_whole: bool, was_expected: bool) {
        if length < SHORTEST {
            return;
        }
        if is_whole {
            let more = |whole: u32| Some(whole.saturating_add(1));
            let _ = self.whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            return;
        }
        self.whole.store(0, Ordering::Relaxed);
        if was_expected {
            self.needed.fetch_max(AFTER_A_MISTAKE, Ordering::Relaxed);
        }
    }

    /// Keeps all ranges from now on: without a range, the server does not say how large an object is.
    pub(crate) fn give_up(&self) {
        self.needed.store(u32::MAX, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_objects_are_expected_after_one_and_after_a_mistake_later() {
        let beginnings = Beginnings::default();
        assert!(!beginnings.are_likely_whole(SHORTEST));
        beginnings.note(SHORTEST - 1, true, false);
        assert!(!beginnings.are_likely_whole(SHORTEST), "headers do not count");
        beginnings.note(SHORTEST, true, false);
        assert!(beginnings.are_likely_whole(SHORTEST));
        assert!(!beginnings.are_likely_whole(SHORTEST - 1));

        beginnings.note(SHORTEST, false, true);
        for _ in 0..AFTER_A_MISTAKE {
            assert!(!beginnings.are_likely_whole(SHORTEST));
            beginnings.note(SHORTEST, true, false);
        }
        assert!(beginnings.are_likely_whole(SHORTEST));

        beginnings.give_up();
        beginnings.note(SHORTEST, false, true);
        assert!(!beginnings.are_likely_whole(SHORTEST));
    }
}
