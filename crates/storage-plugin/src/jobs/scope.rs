//! Which attachments a job handles.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::catalog::{Level, Resource};

/// Which attachments a job handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of all patients.
    Everything,
    /// Those of resources and of everything below: the ids in the request, by level.
    Resources(BTreeMap<Level, Vec<String>>),
}

impl Scope {
    pub(crate) fn resources(requested: Vec<Resource>) -> Self {
        let mut by_level: BTreeMap<Level, Vec<String>> = BTreeMap::new();
        for resource in requested {
            by_level.entry(resource.level).or_default().push(resource.id);
        }
        Self::Resources(by_level)
    }

    /// Adds the field to the content of the job.
    pub(crate) fn show(&self, content: &mut Map<String, Value>) {
        match self {
            Self::Everything => content.insert("Everything".to_owned(), json!(true)),
            Self::Resources(by_level) => {
                let by_level = by_level.iter().map(|(level, ids)| (level.field().to_owned(), json!(ids)));
                content.insert("Resources".to_owned(), Value::Object(by_level.collect()))
            }
        };
    }

    /// Reads what [`show`](Self::show) wrote.
    pub(crate) fn read(content: &Value) -> Self {
        content.get("Resources").map_or(Self::Everything, |by_level| Self::Resources(by_level_of(by_level)))
    }
}

/// The ids in the lists of the levels' fields.
pub(crate) fn by_level_of(fields: &Value) -> BTreeMap<Level, Vec<String>> {
    let by_level = Level::ALL.into_iter().map(|level| (level, ids(fields, level)));
    by_level.filter(|(_, ids)| !ids.is_empty()).collect()
}

/// The strings in the list of a level's field, whose name is matched without regard to case.
pub(crate) fn ids(fields: &Value, level: Level) -> Vec<String> {
    let empty = Map::new();
    let mut fields = fields.as_object().unwrap_or(&empty).iter();
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case(level.field()));
    let list = field.and_then(|(_, list)| list.as_array());
    list.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}
