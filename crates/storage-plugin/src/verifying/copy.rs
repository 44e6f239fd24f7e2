//! Checks of one copy of an attachment.

use bucket::Naming;
use bytes::Bytes;
use cloud_http::Checksum;
use crypto_envelope::{CbcInfo, DecryptError, EnvelopeHeader, KeyServiceError, identify, inspect, recognize};
use hybrid::{Side, StoredContent, StoredCopy};
use storage_layout::Attachment;
use tokio::runtime::Handle;

use crate::area::encryption::{Encryption, Form, OpenError, form};
use crate::catalog::Indexed;
use crate::jobs::{self, Problem};

/// The kind of problem of a copy that is damaged.
pub(super) const DAMAGED: &str = "damaged";
/// The kind of problem of a copy whose checksum is not that of Orthanc's index, or of the server.
pub(super) const WRONG_CHECKSUM: &str = "wrong-checksum";
/// The kind of problem of a copy of which nothing is known.
pub(super) const NOT_CHECKED: &str = "not-checked";
/// The kind of problem of a copy whose form is not accepted.
pub(super) const NOT_READABLE: &str = "not-readable";
/// The kind of problem of a copy under a master key that is not in the configuration.
pub(super) const UNKNOWN_KEY: &str = "unknown-key";
/// What to do about it.
pub(super) const ADD_KEY: &str = "add this key to PreviousMasterKeys";

/// The form in which a copy is stored, for the census.
pub(crate) fn form_of(copy: &StoredCopy) -> jobs::Form {
    let header = match copy.head.naming {
        _ if copy.is_archived() => return jobs::Form::new("archived", String::new()),
        Naming::KeyVault => return jobs::Form::new("key-vault-cbc", String::new()),
        Naming::Clear => None,
        Naming::Either => recognize(&copy.start, None),
        Naming::Envelope => identify(&copy.start),
    };
    match header {
        None => jobs::Form::new(jobs::Form::CLEAR, String::new()),
        Some(EnvelopeHeader { format, service: Some(service), .. }) => {
            jobs::Form::new(format.to_string(), service.to_string())
        }
        Some(EnvelopeHeader { format, key_id, .. }) => {
            jobs::Form::new(format.to_string(), key_id.to_string())
        }
    }
}

/// Checks the size of a copy, and that reads would accept its form.
pub(super) fn sizes(
    encryption: Option<&Encryption>,
    indexed: &Indexed,
    copy: &StoredCopy,
) -> Result<(), Problem> {
    if copy.is_archived() {
        return Ok(());
    }
    let form = form(encryption, copy.head.naming, &copy.start)
        .map_err(|cause| problem(NOT_READABLE, copy, &cause.to_string()))?;
    let size = match form {
        Form::Clear => copy.head.size,
        Form::Envelope(_) => {
            expect_key(encryption, copy)?;
            let inspected = inspect(&copy.start, copy.head.size);
            inspected.map_err(|cause| problem("wrong-size", copy, &cause.to_string()))?.plaintext_len
        }
        Form::KeyVault => {
            let sidecar = copy.head.sidecar.clone().unwrap_or_default();
            let info =
                CbcInfo::parse(&sidecar).and_then(|info| info.check_len(copy.head.size).map(|()| info));
            info.map_err(|cause| problem("wrong-size", copy, &cause.to_string()))?.plaintext_len()
        }
    };
    if size == indexed.size {
        return Ok(());
    }
    let error = format!("it has {size} bytes where Orthanc stored {}", indexed.size);
    Err(problem("wrong-size", copy, &error))
}

/// Checks that the master key of an envelope is in the configuration.
fn expect_key(encryption: Option<&Encryption>, copy: &StoredCopy) -> Result<(), Problem> {
    let (Some(encryption), Some(header)) = (encryption, identify(&copy.start)) else { return Ok(()) };
    let Some(id) = header.master_key_id() else { return Ok(()) };
    match encryption.ring().get(id) {
        Ok(_) => Ok(()),
        Err(unknown) => Err(Problem {
            advice: Some(ADD_KEY.to_owned()),
            ..problem(UNKNOWN_KEY, copy, &unknown.to_string())
        }),
    }
}

/// The content of an attachment, decrypted if it is encrypted. Blocks while a key service is asked.
pub(super) fn plaintext(
    encryption: Option<&Encryption>,
    attachment: &Attachment,
    content: StoredContent,
) -> Result<Bytes, Problem> {
    let StoredContent { naming, sidecar, bytes } = content;
    let form =
        form(encryption, naming, &bytes).map_err(|cause| Problem::new(NOT_READABLE, cause.to_string()))?;
    let handle = Handle::current();
    let opened = match (form, encryption) {
        (Form::Envelope(_), Some(encryption)) => encryption.open(&handle, attachment, &bytes),
        (Form::KeyVault, Some(encryption)) => encryption.open_blob(&handle, sidecar.as_ref(), bytes.into()),
        _ => return Ok(bytes),
    };
    opened.map(Bytes::from).map_err(|error| not_opened(&error))
}

fn not_opened(error: &OpenError) -> Problem {
    let (kind, concerns_storage) = match error {
        OpenError::Service(KeyServiceError::Unavailable(_)) | OpenError::Stopping => (NOT_CHECKED, true),
        OpenError::Service(_) | OpenError::Decrypt(DecryptError::NotUnwrapped { .. }) => (NOT_CHECKED, false),
        OpenError::Decrypt(DecryptError::UnknownKeyId(_)) => (UNKNOWN_KEY, false),
        OpenError::Decrypt(_) | OpenError::Blob(_) => (DAMAGED, false),
    };
    Problem { concerns_storage, ..Problem::new(kind, error.to_string()) }
}

/// Whether the content has this MD5; `None` without one.
pub(super) fn fits(content: &[u8], md5: Option<[u8; 16]>) -> Option<bool> {
    let mut verifier = Checksum::Md5(md5?).verifier();
    verifier.update(content);
    Some(verifier.is_right())
}

/// A copy whose MD5 is not that of Orthanc's index.
pub(super) fn wrong_md5(copy: &StoredCopy, what: &str) -> Problem {
    problem(WRONG_CHECKSUM, copy, &format!("{what} differs from what Orthanc stored"))
}

fn problem(kind: &'static str, copy: &StoredCopy, error: &str) -> Problem {
    Problem {
        object: Some(copy.head.name.clone()),
        advice: Some(advice(copy).to_owned()),
        ..Problem::new(kind, error)
    }
}

/// What to do about a damaged copy.
pub(super) fn advice(copy: &StoredCopy) -> &'static str {
    match copy.side {
        Side::ObjectStorage => {
            "restore the object from an earlier version or a backup of the bucket; if there is none, ask the source of \
             the resource to send it again, with \"OverwriteInstances\": true"
        }
        Side::FileSystem => {
            "check the disk, and restore the file from a backup, or from the bucket if it is there too"
        }
        Side::Pending => "check the disk; ask the source of the resource to send it again",
        Side::Cache => "check the disk; the copy was in the cache only, and the bucket's is not concerned",
    }
}
