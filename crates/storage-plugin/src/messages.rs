//! Snapshots of the messages about failed reads, wrong keys, failed jobs and queries of Orthanc's index.

use std::io;

use bucket::{Cause, Operation, StorageError};
use crypto_envelope::{DecryptError, EnvelopeHeader, Format, KeyServiceError, MasterKey, Service};
use orthanc_ffi::{ErrorCode, OrthancVersion, TargetOverflow};
use storage_layout::{Attachment, ContentType};

use crate::area::ReadError;
use crate::area::encryption::{OpenError, UnacceptableForm};
use crate::area::keys::{KeyError, WrongKey};
use crate::catalog::{CatalogError, Indexed, Level, Resource};
use crate::jobs::{Failure, JobError, Problem, ReportsError};
use crate::moving::mover::Unavailable;

fn storage_error() -> StorageError {
    StorageError::new(Operation::Read, "s3://bucket/OBJECT", Cause::Busy)
}

fn failure(error: Option<StorageError>) -> Box<Failure> {
    let uuid = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
    let indexed = Indexed {
        resource: Resource::new(Level::Instance, "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc"),
        name: "dicom".to_owned(),
        attachment: Attachment::new(uuid, ContentType::DICOM).unwrap(),
        size: 100,
        md5: None,
    };
    let problem = error.map_or_else(Problem::missing, |error| Problem::of("not-moved", &error));
    Box::new(Failure { indexed, problems: vec![problem] })
}

#[test]
fn reads() {
    let object = || "s3://bucket/OBJECT".to_owned();
    let header = EnvelopeHeader { format: Format::A2, key_id: 3, service: None };
    let of_service = EnvelopeHeader { key_id: 0, service: Some(Service::AwsKms), ..header };
    let errors = [
        ReadError::Storage(storage_error()),
        ReadError::Interrupted(storage_error()),
        ReadError::Envelope { object: object(), cause: DecryptError::NotAnEnvelope },
        ReadError::Key { object: object(), cause: KeyServiceError::Unavailable("…".to_owned()).into() },
        ReadError::Key { object: object(), cause: OpenError::Stopping },
        ReadError::Form { object: object(), cause: UnacceptableForm::Encrypted(header) },
        ReadError::Form { object: object(), cause: UnacceptableForm::Encrypted(of_service) },
        ReadError::Form { object: object(), cause: UnacceptableForm::Format(Format::A1) },
        ReadError::Form { object: object(), cause: UnacceptableForm::Unencrypted },
        ReadError::OutOfRange { object: object(), range: 5..12, size: Some(10) },
        ReadError::OutOfRange { object: object(), range: 5..12, size: None },
        ReadError::Overflow { object: object(), cause: TargetOverflow { attempted: 20, remaining: 10 } },
        ReadError::NoMemory(100, ErrorCode::PLUGIN),
    ];
    for error in &errors {
        match error {
            ReadError::Storage(_) | ReadError::Interrupted(_) | ReadError::Envelope { .. } => {}
            ReadError::KeyAgain(_) => {}
            ReadError::Key { .. } | ReadError::Form { .. } | ReadError::OutOfRange { .. } => {}
            ReadError::Overflow { .. } | ReadError::NoMemory(..) => {}
        }
    }
    snapshot("reads", &errors);
}

#[test]
fn keys() {
    let wrong = WrongKey {
        id: 3,
        fingerprint: MasterKey::new(&[7; 32]).unwrap().fingerprint(),
        note: "s3://bucket/.orthanc-object-storage/key-3".to_owned(),
        expected: "00112233445566778899aabbccddeeff".to_owned(),
    };
    let errors = [
        KeyError::Wrong(wrong),
        KeyError::Unknown(storage_error()),
        KeyError::NeverCompared { id: 3, error: storage_error() },
        KeyError::Stopping,
    ];
    for error in &errors {
        match error {
            KeyError::Wrong(_) | KeyError::Unknown(_) => {}
            KeyError::NeverCompared { .. } | KeyError::Stopping => {}
        }
    }
    snapshot("keys", &errors);
}

#[test]
fn jobs() {
    let path = || "reports/NAME.json".into();
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let errors = [
        JobError::Several { count: 3, first: failure(None).to_string() },
        JobError::GaveUp { done: 5, instances: 50, count: 16, first: failure(Some(storage_error())) },
        JobError::Catalog(CatalogError::Unexpected("/instances/ID".to_owned())),
        JobError::Catalog(CatalogError::TooOld(OrthancVersion::new(1, 9, 0))),
        JobError::Catalog(CatalogError::IdNotKept),
        JobError::Unavailable(Unavailable::NotHybrid.to_string()),
        JobError::Unavailable(Unavailable::NotWriteBack.to_string()),
        JobError::Unavailable(Unavailable::NoCache.to_string()),
        JobError::TooLarge { bytes: 20 << 30, capacity: 10 << 30 },
        JobError::Report(ReportsError::Write { path: path(), error: full() }),
        JobError::Report(ReportsError::Read { path: path(), error: full() }),
        JobError::Storage(storage_error()),
        JobError::Panicked,
        JobError::Stopped,
    ];
    for error in &errors {
        match error {
            JobError::Catalog(
                CatalogError::Orthanc(_)
                | CatalogError::Unexpected(_)
                | CatalogError::TooOld(_)
                | CatalogError::IdNotKept
                | CatalogError::Stopped,
            ) => {}
            JobError::Several { .. } | JobError::GaveUp { .. } => {}
            JobError::Unavailable(_) => {}
            JobError::Report(ReportsError::Write { .. } | ReportsError::Read { .. }) => {}
            JobError::Storage(_) => {}
            JobError::TooLarge { .. } | JobError::Panicked | JobError::Stopped => {}
        }
    }
    snapshot("jobs", &errors);
}

/// Compares the messages, each after the name of its variant, with the snapshot `name`.
fn snapshot<E: std::error::Error>(name: &str, errors: &[E]) {
    let line = |error: &E| {
        let debug = format!("{error:?}");
        let variant = debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
        format!("{variant}: {error}")
    };
    let lines: Vec<String> = errors.iter().map(line).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages");
    insta::with_settings!(
        {snapshot_path => folder, prepend_module_to_snapshot => false, omit_expression => true},
        { insta::assert_snapshot!(name, lines.join("\n")) }
    );
}
