//! What the server says of the bucket.

use crate::facts::{Anonymous, Answer, PublicAccess, StorageFacts, Versions};
use crate::finding::{Area, Check, Finding, Severity};

const AREA: Area = Area::Storage;

pub(crate) fn check(storage: &StorageFacts) -> Vec<Finding> {
    let bucket = &storage.bucket;
    vec![
        anonymous("storage-anonymous-list", "list of objects without credentials", &bucket.anonymous_list),
        anonymous("storage-anonymous-read", "read of an object without credentials", &bucket.anonymous_read),
        public_access(&bucket.public_access),
        versions(&bucket.versions),
        unfinished_uploads(&bucket.unfinished_uploads),
    ]
}

/// The finding for a question that was not answered, or the answer.
fn known<'a, T>(check: Check<'_>, answer: &'a Answer<T>, by_hand: &str) -> Result<&'a T, Finding> {
    Err(match answer {
        Answer::Known(known) => return Ok(known),
        Answer::NotSupported => check.ok("not a feature of this server"),
        Answer::Denied(permission) => {
            check.warning("could not be checked", format!("grant {permission}, or {by_hand}"))
        }
        Answer::Unknown(reason) => check.warning(format!("could not be checked: {reason}"), by_hand),
    })
}

fn anonymous(id: &'static str, option: &'static str, answer: &Answer<Anonymous>) -> Finding {
    let check = AREA.check(id, option);
    let by_hand = "try it by hand: curl must get an error for the address of an object";
    match known(check, answer, by_hand) {
        Ok(Anonymous::Refused(shown)) => check.ok(format!("refused ({shown})")),
        Ok(Anonymous::Allowed) => check.critical(
            "allowed",
            "the bucket is public: remove its public policy and access lists at once, and find out from the server's log \
             who has read images",
        ),
        Err(finding) => finding,
    }
}

fn public_access(answer: &Answer<PublicAccess>) -> Finding {
    let check = AREA.check("storage-public-access", "setting against public access");
    match known(check, answer, "check in the provider's console that public access is blocked") {
        Ok(access) if access.is_blocked => check.ok(access.shown.as_str()),
        Ok(access) => check.warning(access.shown.as_str(), access.advice),
        Err(finding) => finding,
    }
}

fn versions(answer: &Answer<Versions>) -> Finding {
    let check = AREA.check("storage-versions", "versioning or soft delete");
    match known(check, answer, "check in the provider's console how long deleted objects remain") {
        Ok(Versions::Off) => check.finding(
            Severity::Ok,
            "off",
            "deleted images are gone at once, also if someone deletes them by mistake or with stolen credentials",
        ),
        Ok(Versions::Kept { shown, days: Some(days), .. }) => check.finding(
            Severity::Ok,
            format!("{shown}; deleted images remain for {days} days"),
            "during this time, anyone who may read versions can read deleted images",
        ),
        Ok(Versions::Kept { shown, days: None, advice }) => check.warning(
            format!("{shown}; deleted images remain without limit"),
            format!("a deletion in Orthanc does not delete the content: {advice}"),
        ),
        Err(finding) => finding,
    }
}

fn unfinished_uploads(answer: &Answer<Option<u64>>) -> Finding {
    let check = AREA.check("storage-unfinished-uploads", "lifecycle rule for unfinished uploads");
    match known(check, answer, "check that a lifecycle rule aborts unfinished uploads after a week (docs/retention.md)") {
        Ok(Some(days)) => check.ok(format!("deleted after {days} days")),
        Ok(None) => check.warning(
            "none",
            "add a lifecycle rule that aborts unfinished uploads after a week (docs/retention.md): their parts have images, \
             are in no list, and cost money",
        ),
        Err(finding) => finding,
    }
}
