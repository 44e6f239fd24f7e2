//! The UUIDs of all attachments in Orthanc's index, 16 bytes each.

use storage_layout::AttachmentUuid;

/// Number of UUIDs that are added to one piece of memory. One growing piece would be copied, and take up to three times
/// the memory meanwhile.
const CHUNK: usize = 64 * 1024;

/// The UUIDs of all attachments.
#[derive(Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Vec<u128>>,
    /// Filled by [`seal`](Self::seal).
    sorted: Vec<u128>,
}

impl Index {
    pub(super) fn add(&mut self, uuid: &AttachmentUuid) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(uuid.to_u128()),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(uuid.to_u128());
                self.chunks.push(chunk);
            }
        }
    }

    /// Sorts all UUIDs, after the last one has been added.
    pub(super) fn seal(&mut self) {
        let all = self.chunks.iter().map(Vec::len).sum();
        // The pieces are dropped while the whole is filled.
        self.sorted = Vec::with_capacity(all);
        for chunk in std::mem::take(&mut self.chunks) {
            self.sorted.extend(chunk);
        }
        self.sorted.sort_unstable();
        self.sorted.dedup();
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn contains(&self, uuid: &AttachmentUuid) -> bool {
        self.sorted.binary_search(&uuid.to_u128()).is_ok()
    }

    /// At most `count` UUIDs from all over the index. UUIDs are random numbers, so that these are too.
    pub(super) fn sample(&self, count: usize) -> Vec<AttachmentUuid> {
        let step = self.sorted.len().div_ceil(count.max(1)).max(1);
        self.sorted.iter().step_by(step).filter_map(|value| uuid(*value)).collect()
    }
}

/// The UUID with this value.
fn uuid(value: u128) -> Option<AttachmentUuid> {
    let digits = format!("{value:032x}");
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    AttachmentUuid::new(&groups.join("-")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_index_has_what_was_added() {
        let mut index = Index::default();
        let number = |number: u128| uuid(number * 7919).unwrap();
        let count = 2 * CHUNK as u128 + 3;
        for value in (0..count).rev() {
            index.add(&number(value));
        }
        index.add(&number(1));
        index.seal();
        assert_eq!(index.len() as u128, count);
        for value in [0, 1, count / 2, count - 1] {
            assert!(index.contains(&number(value)));
        }
        assert!(!index.contains(&number(count)) && !index.contains(&uuid(1).unwrap()));
        let sample = index.sample(8);
        assert!((7..=8).contains(&sample.len()) && sample.iter().all(|uuid| index.contains(uuid)));
        let mut empty = Index::default();
        empty.seal();
        assert_eq!((empty.len(), empty.sample(8)), (0, vec![]));
    }
}
