use serde_json::json;

use crate::dicom::Reference;
use crate::failure::{Failure, Malformed, Rejection};
use crate::sink::{Instance, UploadError, UploadErrorKind};
use crate::test_files::CT;
use crate::uid::Uid;
use crate::{Answer, Format, Outcome, Report};

fn uid(text: &str) -> Uid {
    Uid::parse(text.as_bytes()).unwrap()
}

fn stored(study: &str, instance: &str) -> Outcome {
    Outcome::Stored(Instance {
        study: uid(study),
        series: uid("1.2.3"),
        sop_instance: uid(instance),
        sop_class: uid(CT),
    })
}

fn failed(instance: &str, failure: Failure) -> Outcome {
    let reference = Reference { sop_class: uid(CT), sop_instance: uid(instance) };
    Outcome::Failed { reference: Some(reference), failure }
}

fn report(outcomes: Vec<Outcome>) -> Report {
    Report { outcomes, malformed: None, stored_bytes: 0 }
}

fn mixed() -> Report {
    report(vec![
        stored("1.2", "5"),
        failed("6", Failure::OtherStudy),
        Outcome::Failed { reference: None, failure: Failure::NotDicom },
        stored("1.2", "7"),
    ])
}

#[test]
fn json() {
    let answer = mixed().answer(Format::Json, "https://pacs/dicom-web/");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let sop = |instance: &str| {
        json!({
            "00081150": {"vr": "UI", "Value": [CT]},
            "00081155": {"vr": "UI", "Value": [instance]},
        })
    };
    let with = |mut item: serde_json::Value, tag: &str, element| {
        item[tag] = element;
        item
    };
    let url =
        |path: &str| json!({"vr": "UR", "Value": [format!("https://pacs/dicom-web/studies/1.2{path}")]});
    let expected = json!({
        "00081190": url(""),
        "00081198": {
            "vr": "SQ",
            "Value": [with(sop("6"), "00081197", json!({"vr": "US", "Value": [43264]}))],
        },
        "00081199": {
            "vr": "SQ",
            "Value": [
                with(sop("5"), "00081190", url("/series/1.2.3/instances/5")),
                with(sop("7"), "00081190", url("/series/1.2.3/instances/7")),
            ],
        },
        "0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [49152]}}]},
    });
    assert_eq!(body, expected);
    assert_eq!((answer.status, answer.content_type), (202, "application/dicom+json"));
}

#[test]
fn xml() {
    let answer = mixed().answer(Format::Xml, "https://pacs/a&b");
    insta::assert_snapshot!(str::from_utf8(&answer.body).unwrap().replace('>', ">\n"));
    assert_eq!((answer.status, answer.content_type), (202, "application/dicom+xml"));
}

/// Without a URL, and with several studies, there is less to say.
#[test]
fn retrieve_urls() {
    let urls = |report: &Report, wado: &str| {
        let text = String::from_utf8(report.answer(Format::Json, wado).body).unwrap();
        text.matches("00081190").count()
    };
    assert_eq!(urls(&mixed(), ""), 0);
    assert_eq!(urls(&mixed(), "/"), 0);
    assert_eq!(urls(&mixed(), "w"), 3);
    assert_eq!(urls(&report(vec![stored("1.2", "1"), stored("1.3", "1")]), "w"), 2);
}

#[test]
fn sequences_have_items() {
    let text = |report: &Report| String::from_utf8(report.answer(Format::Json, "").body).unwrap();
    assert!(!text(&report(vec![stored("1.2", "1")])).contains("00081198"));
    assert!(!text(&report(vec![failed("1", Failure::OtherStudy)])).contains("00081199"));
    assert!(!text(&mixed()).contains("[]"));
}

#[test]
fn statuses() {
    let upload = |kind| Failure::Upload(UploadError { kind, message: String::new() });
    let good = || stored("1.2", "1");
    let bad = |failure| failed("2", failure);
    let unavailable = || bad(upload(UploadErrorKind::Unavailable));
    let cases = [
        (vec![good()], None, 200),
        (vec![good(), bad(Failure::OtherStudy)], None, 202),
        (vec![good(), unavailable()], None, 202),
        (vec![good()], Some(Malformed::Unclosed), 202),
        (vec![bad(upload(UploadErrorKind::Failed))], None, 409),
        (vec![unavailable(), bad(Failure::OtherStudy)], None, 503),
        (vec![unavailable()], Some(Malformed::Unclosed), 400),
        (vec![], None, 400),
    ];
    for (outcomes, malformed, status) in cases {
        let answer = Report { outcomes, malformed, stored_bytes: 0 }.answer(Format::Json, "");
        assert_eq!(answer.status, status);
        assert_eq!(answer.retry_after.is_some(), status == 503);
        assert_eq!(answer.content_type == "text/plain", status == 400);
    }
    assert_eq!(Answer::from(&Rejection::MediaType).status, 415);
}
