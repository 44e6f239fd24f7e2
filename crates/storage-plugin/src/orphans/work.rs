//! The job that finds orphans.

use std::sync::{Arc, mpsc};

use hybrid::{HybridStorage, StateDirectory};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::database::Database;
use super::request::Parameters;
use super::search::Search;
use super::{JOB_TYPE, search};
use crate::catalog::Indexed;
use crate::jobs::{After, Batch, Family, Handled, Host, JobError, Turn, Work};
use crate::runtime::Runtime;

/// What a search needs.
#[derive(Debug, Clone)]
pub(crate) struct Finder {
    pub(crate) host: Host,
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) state: Option<Arc<StateDirectory>>,
    pub(crate) database: Arc<dyn Database>,
}

impl Finder {
    /// The work of a job.
    pub(super) fn work(&self, parameters: Parameters) -> Arc<dyn Work> {
        Arc::new(FindOrphans {
            finder: self.clone(),
            parameters,
            search: Mutex::default(),
            facts: Mutex::default(),
        })
    }
}

/// What is known of a search, for the content of its job.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The id of Orthanc's database.
    pub(super) database: Option<String>,
    /// Whose clock the ages of objects are compared with.
    pub(super) clock: Option<&'static str>,
    /// Why nothing is deleted.
    pub(super) refusal: Option<String>,
}

/// Finds orphans, and deletes them if that is asked for.
#[derive(Debug)]
struct FindOrphans {
    finder: Finder,
    parameters: Parameters,
    /// `None` before and after the search.
    search: Mutex<Option<Search>>,
    facts: Mutex<Facts>,
}

impl Work for FindOrphans {
    fn job_type(&self) -> &'static str {
        JOB_TYPE
    }

    fn parameters(&self) -> Map<String, Value> {
        let mut parameters = self.parameters.show();
        let Facts { database, clock, refusal } = self.facts.lock().clone();
        for (field, value) in
            [("Database", database), ("Clock", clock.map(str::to_owned)), ("DeletionRefused", refusal)]
        {
            if let Some(value) = value {
                parameters.insert(field.to_owned(), json!(value));
            }
        }
        parameters
    }

    fn counters(&self) -> &'static [&'static str] {
        &search::COUNTERS
    }

    fn aim(&self) -> String {
        "find orphans".to_owned()
    }

    fn outcome_of_problem(&self) -> String {
        "not looked up".to_owned()
    }

    fn fails_with_problems(&self) -> bool {
        false
    }

    fn needs_report(&self) -> bool {
        true
    }

    /// What has been read of the index is not saved.
    fn starts_again(&self) -> bool {
        true
    }

    fn enter(&self, _family: &Arc<Family>) -> Option<Turn> {
        *self.facts.lock() = Facts::default();
        *self.search.lock() = Some(Search::new(self.parameters));
        Some(Arc::new(()))
    }

    fn begin(&self, attachments: Vec<Indexed>, _at_once: usize, _turn: Turn) -> Batch {
        let (sender, results) = mpsc::channel();
        if let Some(search) = &mut *self.search.lock() {
            for indexed in attachments {
                search.index.add(&indexed.attachment.uuid);
                // The receiver exists.
                drop(sender.send((indexed, Handled::counted(search::ATTACHMENTS))));
            }
        }
        Batch { results, ending: Arc::default(), task: None }
    }

    fn after(&self) -> Result<After, JobError> {
        let mut search = self.search.lock();
        let Some(running) = &mut *search else { return Ok(After::Done) };
        let advanced = running.advance(&self.finder, &mut self.facts.lock());
        if !matches!(advanced, Ok(After::More(_))) {
            *search = None;
        }
        advanced
    }

    fn release(&self) {
        *self.search.lock() = None;
    }
}
