//! What is learnt from which refusal.

use super::*;

const READ: Kind = Kind::Read { head: false };
const HEAD: Kind = Kind::Read { head: true };
const UPLOAD: Kind = Kind::Upload { upload_id: None };

fn reply(status: u16, code: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    Reply { status, code: code.to_owned(), message: message.to_owned(), clock_offset: None }
}

fn dialect(fixed: Option<Protection>) -> ServerDialect {
    ServerDialect::new("http://host/bucket", fixed)
}

fn judge(dialect: &ServerDialect, kind: &Kind, reply: &Reply) -> Option<Terms> {
    dialect.judge(kind, dialect.terms(kind), reply)
}

/// Tries what `refused` suggests, which is answered with `last`.
fn learn(dialect: &ServerDialect, kind: &Kind, refused: &Reply, last: &Reply) {
    let terms = judge(dialect, kind, refused).unwrap();
    assert_eq!(dialect.judge(kind, terms, last), None);
    dialect.conclude(&[(terms, refused.clone())], last);
}

#[test]
fn damage_on_the_way_is_not_a_dialect() {
    for (code, message) in [
        // Garage, MinIO, AWS.
        ("InvalidDigest", "Invalid digest: Failed to validate checksum for algorithm Crc64Nvme"),
        (
            "XAmzContentChecksumMismatch",
            "The provided 'x-amz-checksum' header does not match what was computed.",
        ),
        ("BadDigest", "The CRC64NVME you specified did not match the calculated checksum."),
        ("InvalidRequest", "The checksum does not match the content"),
        ("SignatureDoesNotMatch", "x-amz-checksum-crc64nvme"),
    ] {
        assert_eq!(judge(&dialect(None), &UPLOAD, &reply(400, code, message)), None, "{code}");
    }
}

#[test]
fn refusals_of_checksums_are_recognized() {
    for (status, code, message) in [
        (400, "InvalidArgument", "Unsupported header 'x-amz-checksum-crc64nvme' received for this API call."),
        (400, "InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: null"),
        (400, "MissingContentMD5", ""),
        (403, "AccessDenied", "x-amz-checksum-crc64nvme is not allowed"),
        (501, "NotImplemented", "Header 'x-amz-checksum-crc64nvme' is not implemented"),
    ] {
        let dialect = dialect(None);
        // The check at start sends a part that is refused in any case.
        let other_reason = reply(400, "InvalidArgument", "No such upload");
        learn(&dialect, &UPLOAD, &reply(status, code, message), &other_reason);
        assert_eq!((dialect.terms(&UPLOAD).protection, dialect.changes()), (Protection::Md5, 1));
        assert_eq!(judge(&dialect, &UPLOAD, &reply(403, "AccessDenied", "checksum")), None);
    }
}

/// AWS names the user and the object.
#[test]
fn names_are_not_taken_for_reasons() {
    let message = "User: arn:aws:iam::1:user/checksum-bot is not authorized to perform: s3:PutObject";
    let denied = reply(403, "AccessDenied", message);
    for last in [&denied, &reply(503, "SlowDown", ""), &reply(500, "InternalError", "")] {
        for kind in [UPLOAD, READ] {
            let dialect = dialect(None);
            let before = dialect.terms(&kind);
            learn(&dialect, &kind, &denied, last);
            assert_eq!((dialect.terms(&kind), dialect.changes()), (before, 0));
        }
    }
}

#[test]
fn refusal_of_any_read_is_tried_once() {
    let dialect = dialect(None);
    learn(&dialect, &HEAD, &reply(403, "", ""), &reply(403, "", ""));
    assert_eq!(judge(&dialect, &HEAD, &reply(403, "", "")), None);
    assert!(dialect.terms(&HEAD).asks_for_checksum);
}

#[test]
fn chosen_protection_does_not_change() {
    let dialect = dialect(Some(Protection::Sha256));
    let refused = reply(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'");
    assert_eq!(judge(&dialect, &UPLOAD, &refused), None);
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Sha256);
}

#[test]
fn uploads_in_parts_keep_their_protection() {
    let dialect = dialect(None);
    let part = Kind::Upload { upload_id: Some("id".to_owned()) };
    dialect.upload_began("id".to_owned(), dialect.terms(&Kind::Begin));
    learn(&dialect, &UPLOAD, &reply(400, "", "x-amz-checksum-crc64nvme"), &reply(200, "", ""));
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Md5);
    assert_eq!(dialect.terms(&part).protection, Protection::Crc64Nvme);
    // The refusal of a part that is still sent with the former checksum is no news.
    assert_eq!(judge(&dialect, &part, &reply(400, "InvalidRequest", "checksum")), None);
    assert_eq!(dialect.changes(), 1);
    for number in 0..MOST_UPLOADS {
        assert_eq!(dialect.terms(&part).protection, Protection::Crc64Nvme);
        dialect.upload_began(number.to_string(), dialect.terms(&Kind::Begin));
    }
    assert_eq!(dialect.terms(&part).protection, Protection::Md5, "the number of uploads is limited");
}

#[test]
fn unclear_refusals_are_tried_until_something_works() {
    let dialect = dialect(None);
    let text = "A header you provided implies functionality that is not implemented.";
    let unclear = reply(501, "NotImplemented", text);
    let terms = judge(&dialect, &UPLOAD, &unclear).unwrap();
    assert_eq!(terms.protection, Protection::Md5);
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Crc64Nvme);
    dialect.conclude(&[(terms, unclear)], &reply(200, "", ""));
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Md5);
    // The answer to `HEAD` has no body.
    assert!(!judge(&dialect, &HEAD, &reply(400, "", "")).unwrap().asks_for_checksum);
    assert_eq!(judge(&dialect, &READ, &reply(404, "NoSuchKey", "")), None);
    for kind in [UPLOAD, HEAD] {
        judge(&dialect, &kind, &reply(200, "", ""));
        assert_eq!(judge(&dialect, &kind, &reply(400, "", "")), None);
    }
}

#[test]
fn clock_is_corrected_if_that_helps() {
    // AWS and Ceph, rclone, HEAD.
    for (status, code) in [(403, SKEWED), (400, "AccessDenied"), (403, "")] {
        for offset in [3600, -3600] {
            let refused = Reply { clock_offset: Some(offset), ..reply(status, code, "") };
            // A proxy's clock may be wrong, and it is not what the server compares with.
            for (last, expected) in [
                (reply(404, "NoSuchKey", ""), offset),
                (reply(503, "SlowDown", ""), 0),
                (reply(status, code, ""), 0),
                (reply(401, "AccessDenied", ""), if code == SKEWED { offset } else { 0 }),
            ] {
                let dialect = dialect(None);
                let terms = judge(&dialect, &UPLOAD, &refused).unwrap();
                assert_eq!(terms, Terms { clock_offset: offset, ..dialect.terms(&UPLOAD) });
                dialect.conclude(&[(terms, refused.clone())], &last);
                assert_eq!(dialect.terms(&UPLOAD).clock_offset, expected, "{code} {last}");
            }
        }
    }
}

/// An upload may take minutes, and a request may wait as long for a connection.
#[test]
fn slow_request_is_not_a_wrong_clock() {
    let dialect = dialect(None);
    assert_eq!(judge(&dialect, &UPLOAD, &reply(400, "RequestTimeout", "")), None);
    // Signed again, with the same clock.
    let late = reply(403, SKEWED, "");
    assert_eq!(judge(&dialect, &UPLOAD, &late), Some(dialect.terms(&UPLOAD)));
    let terms = dialect.terms(&UPLOAD);
    dialect.conclude(&[(terms, late)], &reply(200, "", ""));
    assert_eq!((dialect.terms(&UPLOAD), dialect.changes()), (terms, 0));
}
