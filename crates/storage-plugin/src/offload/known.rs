//! Remembers the last use and size of each study, and when to check it again.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

/// The result of checking a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Study {
    /// Orthanc's `LastUpdate`, which changes when the study receives an instance.
    pub(crate) last_update: String,
    /// When one of the study's files was last written or read; `None` if it has no files.
    pub(crate) last_used: Option<SystemTime>,
    /// Total size of the study's files, in bytes.
    pub(crate) bytes: u64,
    /// The earliest time at which the study can become due.
    pub(crate) next_check: SystemTime,
}

/// All studies checked since the start.
#[derive(Debug, Default)]
pub(crate) struct KnownStudies(HashMap<String, Study>);

impl KnownStudies {
    /// Whether a study must be checked: it is new, has changed, or may have become due.
    pub(crate) fn is_due_for_a_check(&self, id: &str, last_update: &str, now: SystemTime) -> bool {
        self.0.get(id).is_none_or(|known| known.last_update != last_update || known.next_check <= now)
    }

    pub(crate) fn put(&mut self, id: &str, study: Study) {
        self.0.insert(id.to_owned(), study);
    }

    pub(crate) fn last_update(&self, id: &str) -> String {
        self.0.get(id).map(|study| study.last_update.clone()).unwrap_or_default()
    }

    /// Ignores a study until then, after a failure.
    pub(crate) fn postpone(&mut self, id: &str, until: SystemTime) {
        if let Some(study) = self.0.get_mut(id) {
            study.last_used = None;
            study.next_check = until;
        }
    }

    /// Forgets studies that no longer exist.
    pub(crate) fn retain(&mut self, seen: &HashSet<String>) {
        self.0.retain(|id, _| seen.contains(id));
    }

    /// Studies with files that have not been used since `limit`, least recently used first.
    pub(crate) fn unused_since(&self, limit: SystemTime) -> Vec<String> {
        let in_files = self.0.iter().filter_map(|(id, study)| Some((study.last_used?, id)));
        let mut due: Vec<_> = in_files.filter(|(last_used, _)| *last_used <= limit).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Whether a study has files, none of which has been used since `limit`.
    pub(crate) fn is_unused_since(&self, id: &str, limit: SystemTime) -> bool {
        self.0.get(id).and_then(|study| study.last_used).is_some_and(|last_used| last_used <= limit)
    }

    /// Number of studies with files.
    pub(crate) fn studies(&self) -> usize {
        self.0.values().filter(|study| study.bytes > 0).count()
    }

    /// Total size of all files, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(|study| study.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn study(last_used: Option<u64>, next_check: u64) -> Study {
        Study {
            last_update: "a".to_owned(),
            last_used: last_used.map(at),
            bytes: last_used.map_or(0, |_| 10),
            next_check: at(next_check),
        }
    }

    #[test]
    fn least_recently_used_study_comes_first() {
        let mut known = KnownStudies::default();
        for (id, last_used) in [("new", Some(900)), ("old", Some(100)), ("older", Some(50)), ("gone", None)] {
            known.put(id, study(last_used, 0));
        }
        assert_eq!(known.unused_since(at(500)), ["older", "old"]);
        assert_eq!(known.studies(), 3);
        assert_eq!(known.bytes(), 30);
        known.postpone("older", at(1000));
        assert_eq!(known.unused_since(at(500)), ["old"]);
    }

    #[test]
    fn study_is_checked_if_new_changed_or_due() {
        let mut known = KnownStudies::default();
        assert!(known.is_due_for_a_check("x", "a", at(10)));
        known.put("x", study(Some(5), 100));
        assert!(!known.is_due_for_a_check("x", "a", at(99)));
        assert!(known.is_due_for_a_check("x", "b", at(99)));
        assert!(known.is_due_for_a_check("x", "a", at(100)));
    }
}
