use super::{Failure, Malformed, Rejection};
use crate::dicom::{SERIES, SOP_CLASS, SOP_INSTANCE, STUDY, TRANSFER_SYNTAX};
use crate::sink::{UploadError, UploadErrorKind};
use crate::uid::InvalidUid;

fn failures() -> Vec<(&'static str, Failure)> {
    let invalid = |reason| Failure::InvalidUid { tag: STUDY, reason };
    let upload = |kind| Failure::Upload(UploadError { kind, message: "the sink's own message".to_owned() });
    let failures = [
        Failure::MediaType,
        Failure::Encoded,
        Failure::NotDicom,
        Failure::Header("an item of a sequence does not begin with its tag"),
        Failure::Deflate,
        Failure::HeaderTooLarge,
        Failure::HeaderTruncated,
        Failure::Missing(TRANSFER_SYNTAX),
        Failure::Repeated(SOP_CLASS),
        Failure::Missing(SERIES),
        invalid(InvalidUid::Empty),
        invalid(InvalidUid::TooLong),
        invalid(InvalidUid::InvalidCharacter),
        invalid(InvalidUid::EmptyComponent),
        Failure::Contradiction(SOP_INSTANCE),
        Failure::OtherStudy,
        Failure::WrongLength { declared: 5, actual: 7 },
        Failure::Incomplete,
        Failure::TooManyParts(100_000),
        upload(UploadErrorKind::Unavailable),
        upload(UploadErrorKind::Failed),
    ];
    failures
        .into_iter()
        .map(|failure| {
            // Add new variants here and above.
            let variant = match failure {
                Failure::MediaType => "MediaType",
                Failure::Encoded => "Encoded",
                Failure::NotDicom => "NotDicom",
                Failure::Header(_) => "Header",
                Failure::Deflate => "Deflate",
                Failure::HeaderTooLarge => "HeaderTooLarge",
                Failure::HeaderTruncated => "HeaderTruncated",
                Failure::Missing(_) => "Missing",
                Failure::Repeated(_) => "Repeated",
                Failure::InvalidUid { .. } => "InvalidUid",
                Failure::Contradiction(_) => "Contradiction",
                Failure::OtherStudy => "OtherStudy",
                Failure::WrongLength { .. } => "WrongLength",
                Failure::Incomplete => "Incomplete",
                Failure::TooManyParts(_) => "TooManyParts",
                Failure::Upload(_) => "Upload",
            };
            (variant, failure)
        })
        .collect()
}

#[test]
fn messages() {
    let failures = failures()
        .into_iter()
        .map(|(variant, failure)| format!("Failure::{variant} ({:04X}): {failure}", failure.reason()));
    let malformed =
        [Malformed::Boundary, Malformed::HeadersTooLarge(16384), Malformed::Headers, Malformed::Unclosed];
    let malformed = malformed.map(|error| {
        let variant = match error {
            Malformed::Boundary => "Boundary",
            Malformed::HeadersTooLarge(_) => "HeadersTooLarge",
            Malformed::Headers => "Headers",
            Malformed::Unclosed => "Unclosed",
        };
        format!("Malformed::{variant}: {error}")
    });
    let rejections = [
        Rejection::MediaType,
        Rejection::Encoded,
        Rejection::Boundary,
        Rejection::Study(InvalidUid::InvalidCharacter),
    ];
    let rejections = rejections.map(|error| {
        let variant = match error {
            Rejection::MediaType => "MediaType",
            Rejection::Encoded => "Encoded",
            Rejection::Boundary => "Boundary",
            Rejection::Study(_) => "Study",
        };
        format!("Rejection::{variant} ({}): {error}", error.status())
    });
    let text: Vec<_> = failures.chain(malformed).chain(rejections).collect();
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("stow-gateway", text.join("\n")) });
}
