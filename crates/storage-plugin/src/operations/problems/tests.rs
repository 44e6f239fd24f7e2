use std::time::SystemTime;

use hybrid::{Abandoned, CacheTotals};

use super::*;
use crate::operations::verifications::LastVerification;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A disk on which all is well.
fn local() -> WriteBackTotals {
    WriteBackTotals {
        pending: 0,
        pending_bytes: 0,
        oldest: None,
        uploading: 0,
        is_outage: false,
        last_error: None,
        is_counting: false,
        quarantined: 0,
        direct: 0,
        abandoned: Vec::new(),
        free: Some(10 << 30),
        cache: CacheTotals {
            files: 0,
            bytes: 0,
            complete: true,
            hits: 0,
            misses: 0,
            evicted: 0,
            discarded: 0,
        },
    }
}

fn sound() -> Observed {
    Observed { has_state: true, local: Some(local()), keep_free: 1 << 30, ..Observed::default() }
}

fn verified(days_ago: u32, failures: u64) -> Overview {
    let last = LastVerification { ended: "2026-11-27T03:10:44Z".to_owned(), age: DAY * days_ago, failures };
    Overview { last: Some(last), every: Some(DAY * 30) }
}

fn failing(is_about_one: bool) -> Failing {
    let time = "2026-11-27T16:20:00Z".to_owned();
    Failing { time, error: "cannot read s3://bucket/object: REASON".to_owned(), is_about_one }
}

/// What is observed with each problem, and the state that it makes.
fn cases() -> Vec<(&'static str, State, Observed)> {
    let with = |change: fn(&mut WriteBackTotals)| {
        let mut local = local();
        change(&mut local);
        Observed { local: Some(local), ..sound() }
    };
    let ago = |seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds));
    let pending = |seconds| {
        let local = WriteBackTotals { pending: 3, oldest: ago(seconds), ..local() };
        Observed { local: Some(local), upload_delay: Duration::from_secs(60), ..sound() }
    };
    let overdue = |days| Observed { deletion_overdue: DAY * days + Duration::from_secs(1), ..sound() };
    let verification = |verification| Observed { verification, ..sound() };
    let never = Overview { last: None, every: Some(DAY * 30) };
    vec![
        ("", State::Ok, sound()),
        ("StoreFailed", State::Error, Observed { store: Some(failing(false)), ..sound() }),
        ("ReadFailed", State::Error, Observed { read: Some(failing(false)), ..sound() }),
        ("ReadFailed", State::Warning, Observed { read: Some(failing(true)), ..sound() }),
        ("KeyServiceFailed", State::Error, Observed { key_service: Some("REASON".to_owned()), ..sound() }),
        ("StateDirectoryNotWritable", State::Warning, Observed { has_state: false, local: None, ..sound() }),
        ("", State::Ok, overdue(0)),
        ("DeletionsStuck", State::Warning, overdue(2)),
        (
            "BucketOutage",
            State::Error,
            with(|local| {
                local.is_outage = true;
                local.last_error = Some("REASON".to_owned());
            }),
        ),
        ("", State::Ok, pending(630)),
        ("PendingTooLong", State::Warning, pending(690)),
        ("Quarantined", State::Error, with(|local| local.quarantined = 1)),
        (
            "Abandoned",
            State::Error,
            with(|local| {
                local.abandoned = vec![Abandoned {
                    folder: "/state/1".into(),
                    bucket: "s3://other".to_owned(),
                    attachments: 7,
                }];
            }),
        ),
        ("", State::Ok, with(|local| local.free = Some(600 << 20))),
        ("DiskAlmostFull", State::Warning, with(|local| local.free = Some(500 << 20))),
        (
            "DiskAlmostFull",
            State::Warning,
            Observed { keep_free: 0, ..with(|local| local.free = Some(50 << 20)) },
        ),
        ("", State::Ok, verification(verified(59, 0))),
        ("VerificationFailures", State::Error, verification(verified(1, 1))),
        ("VerificationOverdue", State::Warning, verification(verified(61, 0))),
        ("VerificationOverdue", State::Warning, Observed { uptime: DAY * 61, ..verification(never) }),
        ("", State::Ok, Observed { uptime: DAY * 61, ..sound() }),
    ]
}

#[test]
fn messages_match_the_snapshot() {
    let mut shown = Vec::new();
    for (id, expected, observed) in cases() {
        let problems = observed.problems();
        let ids: Vec<_> = problems.iter().map(|problem| problem.id).collect();
        assert_eq!((ids.join(","), state(&problems)), (id.to_owned(), expected), "{observed:?}");
        shown.extend(problems.into_iter().map(|problem| format!("{id}\n    {}", problem.text)));
    }
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("problems", shown.join("\n")) });
}

#[test]
fn worst_problem_is_the_state() {
    let local = WriteBackTotals { quarantined: 2, free: Some(0), ..local() };
    let observed = Observed { local: Some(local), read: Some(failing(true)), ..sound() };
    let problems = observed.problems();
    let ids: Vec<_> = problems.iter().map(|problem| problem.id).collect();
    assert_eq!(ids, ["Quarantined", "ReadFailed", "DiskAlmostFull"]);
    assert_eq!(problems[0].to_json()["Severity"], "error");
    assert_eq!(state(&problems), State::Error);
}

#[test]
fn missing_or_damaged_attachment_is_not_an_outage() {
    assert!(!Observed { read: Some(failing(true)), ..sound() }.is_outage());
    assert!(Observed { read: Some(failing(false)), ..sound() }.is_outage());
    assert!(Observed { store: Some(failing(false)), local: None, ..sound() }.is_outage());
    let local = WriteBackTotals { is_outage: true, ..local() };
    assert!(Observed { local: Some(local), ..sound() }.is_outage());
}
