//! What is known of the studies: when to look at which again, and which was not used for the longest time.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

/// What was found when a study was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Study {
    /// Orthanc's `LastUpdate`: another one means that it has got something new.
    pub(crate) last_update: String,
    /// When one of its files was last written or read; `None`: it has no files.
    pub(crate) last_used: Option<SystemTime>,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Before then it cannot have become due for its age.
    pub(crate) look_again: SystemTime,
}

/// All studies that were looked at since the start.
#[derive(Debug, Default)]
pub(crate) struct KnownStudies(HashMap<String, Study>);

impl KnownStudies {
    /// Whether a study is to be looked at.
    pub(crate) fn wants_a_look(&self, id: &str, last_update: &str, now: SystemTime) -> bool {
        self.0.get(id).is_none_or(|known| known.last_update != last_update || known.look_again <= now)
    }

    pub(crate) fn put(&mut self, id: &str, study: Study) {
        self.0.insert(id.to_owned(), study);
    }

    pub(crate) fn last_update(&self, id: &str) -> String {
        self.0.get(id).map(|study| study.last_update.clone()).unwrap_or_default()
    }

    /// Leaves a study alone until then, after a failure.
    pub(crate) fn postpone(&mut self, id: &str, until: SystemTime) {
        if let Some(study) = self.0.get_mut(id) {
            study.last_used = None;
            study.look_again = until;
        }
    }

    /// Forgets the studies that Orthanc has no more.
    pub(crate) fn retain(&mut self, seen: &HashSet<String>) {
        self.0.retain(|id, _| seen.contains(id));
    }

    /// Studies with files that were not used since `limit`, those first that were not used for the longest time.
    pub(crate) fn unused_since(&self, limit: SystemTime) -> Vec<String> {
        let due = self.0.iter().filter_map(|(id, study)| Some((study.last_used?, id)));
        let mut due: Vec<_> = due.filter(|(last_used, _)| *last_used <= limit).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Whether a study has files, and none was used since `limit`.
    pub(crate) fn is_unused_since(&self, id: &str, limit: SystemTime) -> bool {
        self.0.get(id).and_then(|study| study.last_used).is_some_and(|last_used| last_used <= limit)
    }

    /// Studies with files, and the bytes of these.
    pub(crate) fn on_file_system(&self) -> (usize, u64) {
        let on_files = self.0.values().filter(|study| study.bytes > 0);
        on_files.fold((0, 0), |(count, bytes), study| (count + 1, bytes + study.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn study(last_used: Option<u64>, look_again: u64) -> Study {
        Study {
            last_update: "a".to_owned(),
            last_used: last_used.map(at),
            bytes: last_used.map_or(0, |_| 10),
            look_again: at(look_again),
        }
    }

    #[test]
    fn the_longest_unused_study_goes_first_and_one_in_the_bucket_never() {
        let mut known = KnownStudies::default();
        for (id, last_used) in [("new", Some(900)), ("old", Some(100)), ("older", Some(50)), ("gone", None)] {
            known.put(id, study(last_used, 0));
        }
        assert_eq!(known.unused_since(at(500)), ["older", "old"]);
        assert_eq!(known.on_file_system(), (3, 30));
        known.postpone("older", at(1000));
        assert_eq!(known.unused_since(at(500)), ["old"]);
    }

    #[test]
    fn a_study_is_looked_at_when_it_is_new_has_changed_or_may_be_due() {
        let mut known = KnownStudies::default();
        assert!(known.wants_a_look("x", "a", at(10)));
        known.put("x", study(Some(5), 100));
        assert!(!known.wants_a_look("x", "a", at(99)));
        assert!(known.wants_a_look("x", "b", at(99)));
        assert!(known.wants_a_look("x", "a", at(100)));
    }
}
