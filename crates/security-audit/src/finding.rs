//! What a check has found.

use serde::Serialize;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Others can read or change images, or control the machine.
    Critical,
    /// A protection is missing, or could not be checked.
    Warning,
    /// As recommended, or without effect in this configuration.
    Ok,
}

/// What a finding is about: the chapters of the securing guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The machine, and options that belong to no other area.
    General,
    /// Orthanc's HTTP server.
    Http,
    /// Orthanc's DICOM server.
    Dicom,
    /// The bucket and what the plugin keeps on the disk.
    Storage,
}

impl Area {
    pub(crate) const fn check<'a>(self, id: &'static str, option: &'a str) -> Check<'a> {
        Check { area: self, id, option }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// The name of the check, which never changes.
    pub id: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// What it is about.
    pub area: Area,
    /// The option, or what else was checked.
    pub option: String,
    /// The value, for people. Never a secret.
    pub value: String,
    /// What to do; empty if there is nothing to say.
    pub advice: String,
}

/// The identity of a check. Its methods make the findings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) area: Area,
    pub(crate) id: &'static str,
    pub(crate) option: &'a str,
}

impl Check<'_> {
    pub(crate) fn finding(
        self,
        severity: Severity,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let Self { area, id, option } = self;
        Finding { id, severity, area, option: option.to_owned(), value: value.into(), advice: advice.into() }
    }

    pub(crate) fn ok(self, value: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, value, "")
    }

    pub(crate) fn warning(self, value: impl Into<String>, advice: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, value, advice)
    }

    pub(crate) fn critical(self, value: impl Into<String>, advice: impl Into<String>) -> Finding {
        self.finding(Severity::Critical, value, advice)
    }
}
