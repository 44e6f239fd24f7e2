//! What is learnt from which refusal.

use super::*;

const READ: Kind = Kind::Read { head: false };
const HEAD: Kind = Kind::Read { head: true };
const UPLOAD: Kind = Kind::Upload { upload_id: None };

fn reply(status: u16, code: &str, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    Reply { status, code: code.to_owned(), message: message.to_owned(), date: None }
}

fn dialect(fixed: Option<Protection>) -> ServerDialect {
    ServerDialect::new("http://host/bucket", fixed)
}

fn judge(dialect: &ServerDialect, kind: &Kind, reply: &Reply) -> Verdict {
    dialect.judge(kind, dialect.terms(kind), reply, SystemTime::now())
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
        assert_eq!(judge(&dialect(None), &UPLOAD, &reply(400, code, message)), Verdict::Final, "{code}");
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
        assert_eq!(judge(&dialect, &UPLOAD, &reply(status, code, message)), Verdict::Again, "{code}");
        assert_eq!((dialect.terms(&UPLOAD).protection, dialect.changes()), (Protection::Md5, 1));
        assert_eq!(judge(&dialect, &UPLOAD, &reply(403, "AccessDenied", "checksum")), Verdict::Final);
    }
}

#[test]
fn chosen_protection_does_not_change() {
    let dialect = dialect(Some(Protection::Sha256));
    let refused = reply(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'");
    assert_eq!(judge(&dialect, &UPLOAD, &refused), Verdict::Final);
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Sha256);
}

#[test]
fn uploads_in_parts_keep_their_protection() {
    let dialect = dialect(None);
    let part = Kind::Upload { upload_id: Some("id".to_owned()) };
    dialect.upload_began("id".to_owned(), dialect.terms(&Kind::Begin));
    judge(&dialect, &UPLOAD, &reply(400, "InvalidArgument", "x-amz-checksum-crc64nvme"));
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Md5);
    assert_eq!(dialect.terms(&part).protection, Protection::Crc64Nvme);
    // The refusal of a part that is still sent with the former checksum is no news.
    assert_eq!(judge(&dialect, &part, &reply(400, "InvalidRequest", "checksum")), Verdict::Final);
    assert_eq!(dialect.changes(), 1);
    dialect.upload_ended("id");
    assert_eq!(dialect.terms(&part).protection, Protection::Md5);
}

#[test]
fn unclear_refusals_are_tried_until_something_works() {
    let dialect = dialect(None);
    let text = "A header you provided implies functionality that is not implemented.";
    let unclear = reply(501, "NotImplemented", text);
    let Verdict::Try(terms) = judge(&dialect, &UPLOAD, &unclear) else { panic!() };
    assert_eq!(terms.protection, Protection::Md5);
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Crc64Nvme);
    dialect.adopt(terms, &unclear);
    assert_eq!(dialect.terms(&UPLOAD).protection, Protection::Md5);
    // The answer to `HEAD` has no body.
    let Verdict::Try(terms) = judge(&dialect, &HEAD, &reply(400, "", "")) else { panic!() };
    assert!(!terms.asks_for_checksum);
    assert_eq!(judge(&dialect, &READ, &reply(404, "NoSuchKey", "")), Verdict::Final);
    for kind in [UPLOAD, HEAD] {
        judge(&dialect, &kind, &reply(200, "", ""));
        assert_eq!(judge(&dialect, &kind, &reply(400, "", "")), Verdict::Final);
    }
}

#[test]
fn clock_is_corrected_by_the_servers_date() {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    // AWS and Ceph, rclone, HEAD.
    for (status, code, is_clear) in
        [(403, "RequestTimeTooSkewed", true), (400, "AccessDenied", false), (403, "", false)]
    {
        for date in [now + hour, now - hour] {
            let dialect = dialect(None);
            let refused = Reply { date: Some(date), ..reply(status, code, "") };
            let terms = match dialect.judge(&HEAD, dialect.terms(&HEAD), &refused, now) {
                Verdict::Again if is_clear => dialect.terms(&HEAD),
                Verdict::Try(terms) if !is_clear => terms,
                verdict => panic!("{code}: {verdict:?}"),
            };
            let difference = server_time(now, terms.clock_offset).duration_since(date).unwrap_or_default();
            assert!(difference < Duration::from_secs(2), "{code}");
            assert_eq!(dialect.terms(&HEAD).clock_offset == 0, !is_clear, "{code}");
            dialect.adopt(terms, &refused);
            assert_eq!(dialect.terms(&HEAD).clock_offset, terms.clock_offset);
            // The same refusal again has another reason.
            let again = dialect.judge(&UPLOAD, dialect.terms(&UPLOAD), &refused, now);
            assert_eq!(again, Verdict::Final, "{code}");
        }
    }
}

#[test]
fn absurd_dates_do_no_harm() {
    let in_9999 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    for (date, verdict) in [(SystemTime::UNIX_EPOCH, Verdict::Again), (in_9999, Verdict::Final)] {
        let dialect = dialect(None);
        let refused = Reply { date: Some(date), ..reply(403, SKEWED, "") };
        assert_eq!(judge(&dialect, &READ, &refused), verdict);
    }
}
