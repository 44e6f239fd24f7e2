//! `DicomModalities`: what each modality may do.

use serde_json::{Map, Value};

use crate::facts::Facts;
use crate::finding::{Check, Finding};
use crate::options::{Options, WrongType, listed};

/// What a modality may do, which Orthanc allows unless it is forbidden. All generations since 1.10.1 have these options.
const COMMANDS: [&str; 8] = [
    "AllowEcho",
    "AllowStore",
    "AllowFind",
    "AllowFindWorklist",
    "AllowGet",
    "AllowMove",
    "AllowNAction",
    "AllowEventReport",
];
/// Sets the last two.
const BOTH: &str = "AllowStorageCommitment";
const SET_BY_BOTH: [&str; 2] = ["AllowNAction", "AllowEventReport"];
const ADVICE: &str = "write the long form, {\"AET\": …, \"Host\": …, \"Port\": …}, with AllowEcho, AllowStore, AllowFind, \
                      AllowFindWorklist, AllowGet, AllowMove, AllowNAction and AllowEventReport: what is not written is \
                      allowed";
const ADVICE_IN_DATABASE: &str = "PUT /modalities/NAME with what it needs only: AllowEcho, AllowStore, AllowFind, \
                                  AllowFindWorklist, AllowGet, AllowMove, AllowNAction and AllowEventReport are true \
                                  unless they are written";

pub(crate) fn check(check: Check<'_>, options: &Options<'_>, facts: &Facts) -> Finding {
    let in_database = options.flag_or("DicomModalitiesInDatabase", false);
    let modalities = match (in_database, &facts.modalities_in_database) {
        (false, _) => match options.object(check.option) {
            Ok(modalities) => modalities,
            Err(wrong) => return wrong.finding(check),
        },
        (true, Some(Value::Object(modalities))) => Some(modalities),
        (true, _) => {
            let advice =
                "Orthanc did not return the modalities in its database: check GET /modalities?expand";
            return check.warning("unknown", advice);
        }
    };
    let Some(modalities) = modalities.filter(|modalities| !modalities.is_empty()) else {
        return check.ok("no modalities");
    };
    judge(check, modalities, in_database)
}

/// Orthanc returns all options of a modality in its database, whether they were written or not.
fn judge(check: Check<'_>, modalities: &Map<String, Value>, in_database: bool) -> Finding {
    let is = |grants: Grants| {
        modalities
            .iter()
            .filter(move |(_, modality)| Grants::of(modality) == grants)
            .map(|(name, _)| name.as_str())
    };
    let wrong: Vec<_> = is(Grants::Wrong).collect();
    if let Some((_, value)) = modalities.iter().find(|(name, _)| wrong.first() == Some(&name.as_str())) {
        let finding = WrongType::new(value, "an object of modalities").finding(check);
        return Finding { value: format!("not valid: {}", listed(wrong)), ..finding };
    }
    let unsaid: Vec<_> = is(Grants::Unsaid).collect();
    let everything: Vec<_> = is(Grants::Everything).collect();
    if in_database && unsaid.is_empty() && !everything.is_empty() {
        let value =
            format!("{} of {} may do everything: {}", everything.len(), modalities.len(), listed(everything));
        return check.warning(value, ADVICE_IN_DATABASE);
    }
    if unsaid.is_empty() {
        return check.ok(format!("modalities with explicit permissions: {}", modalities.len()));
    }
    let value =
        format!("{} of {} without explicit permissions: {}", unsaid.len(), modalities.len(), listed(unsaid));
    check.warning(value, ADVICE)
}

/// Whether a modality's permissions are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grants {
    Said,
    /// Written down, and all of them are granted.
    Everything,
    Unsaid,
    Wrong,
}

impl Grants {
    fn of(modality: &Value) -> Self {
        match modality {
            // The short form allows everything.
            Value::Array(_) => Self::Unsaid,
            Value::Object(fields) => {
                let both = |name: &str| SET_BY_BOTH.contains(&name).then(|| fields.get(BOTH)).flatten();
                let command = |name: &&str| fields.get(*name).or_else(|| both(name));
                let values: Vec<_> = COMMANDS.iter().map(command).collect();
                match () {
                    () if values.iter().flatten().any(|value| !value.is_boolean()) => Self::Wrong,
                    () if values.iter().any(Option::is_none) => Self::Unsaid,
                    () if values.iter().flatten().all(|value| **value == Value::Bool(true)) => {
                        Self::Everything
                    }
                    () => Self::Said,
                }
            }
            _ => Self::Wrong,
        }
    }
}
