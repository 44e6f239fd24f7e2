//! Why a job that was to delete orphans does not.

/// Why nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// There is nowhere to keep a report.
    #[error("there is no StateDirectory, and so no report of an earlier search to compare with")]
    NoReports,
    /// Orthanc does not say which database it uses, or the bucket cannot keep the marker.
    #[error("it is not known which databases use the bucket: {0}")]
    UnknownDatabase(String),
    /// Another database uses the bucket.
    #[error(
        "{marker} says that another database has attachments in this bucket; if that database is gone, delete this \
         object; if it is this database, on which another Orthanc works, search with that Orthanc first"
    )]
    OtherDatabase { marker: String },
    /// The index is empty: probably it is new, or lost.
    #[error(
        "Orthanc's index has no attachments: if it is lost, restore it, since the bucket has what it is about"
    )]
    EmptyIndex,
    /// The index is an older one, or that of a copy.
    #[error(
        "Orthanc's database seems to be an older copy, or a copy of one that is still used, so that the bucket has \
         attachments that it does not know: {evidence}; if what only the other database knows can be deleted, delete \
         {marker}"
    )]
    OlderIndex { evidence: String, marker: String },
    /// There are more orphans than objects of attachments.
    #[error(
        "more objects belong to no attachment ({orphans}) than to one ({known}): the index seems to be incomplete; delete \
         the objects yourself if it is not"
    )]
    MostlyOrphans { orphans: u64, known: u64 },
    /// There was no earlier search.
    #[error(
        "there is no report of an earlier complete search: what this one has found can be deleted by the next one"
    )]
    FirstSearch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let marker = || "s3://bucket/.orthanc-object-storage/databases/ID".to_owned();
        let refusals = [
            Refusal::NoReports,
            Refusal::UnknownDatabase("REASON".to_owned()),
            Refusal::OtherDatabase { marker: marker() },
            Refusal::EmptyIndex,
            Refusal::OlderIndex { evidence: "EVIDENCE".to_owned(), marker: marker() },
            Refusal::MostlyOrphans { orphans: 7, known: 3 },
            Refusal::FirstSearch,
        ];
        let lines = refusals.iter().map(|refusal| {
            let variant = format!("{refusal:?}");
            let variant = variant.split(['(', ' ']).next().unwrap_or_default().to_owned();
            format!("{variant}: {refusal}")
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("orphans", text) });
    }
}
