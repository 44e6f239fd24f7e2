//! The form in which moves store attachments, as the configuration says.

use bucket::Naming;
use bytes::Bytes;
use cloud_http::Checksum;
use crypto_envelope::DecryptError;
use hybrid::{FormError, Md5, StoredContent, StoredForm};
use storage_layout::Attachment;
use tokio::runtime::Handle;

use crate::area::encryption::{Encryption, Form, OpenError, SealError, form};

/// Why a blob of the earlier plugin for Azure Key Vault stays as it is.
const NOT_VERIFIED: &str = "the blob of the earlier plugin for Azure Key Vault is not authenticated, and Orthanc has no MD5 of \
     it to compare it with (StoreMD5ForAttachments); store the instance again";

/// Without client-side encryption, content is stored unchanged, and envelopes are refused: in the target, their
/// names would say that they are in clear, or reads would refuse them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unchanged;

impl StoredForm for Unchanged {
    fn check(&self, content: &StoredContent) -> Result<(), String> {
        let naming = if content.naming == Naming::KeyVault { Naming::KeyVault } else { Naming::Either };
        check(None, naming, &content.bytes)
    }

    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        self.check(&content)?;
        Ok(content.bytes)
    }

    fn is_current(&self, _: &Attachment, content: &StoredContent) -> Result<bool, FormError> {
        self.check(content).map(|()| true).map_err(FormError::lasting)
    }

    fn convert(&self, _: &Attachment, content: StoredContent, md5: Option<Md5>) -> Result<Bytes, FormError> {
        self.check(&content).map_err(FormError::lasting)?;
        expect_md5(&content.bytes, md5)?;
        Ok(content.bytes)
    }

    fn is_same(&self, _: &Attachment, _: &StoredContent, _: &StoredContent) -> bool {
        false
    }
}

/// With encryption, accepted envelopes are stored unchanged, whatever their key, and content in clear is
/// encrypted.
impl StoredForm for Encryption {
    fn check(&self, content: &StoredContent) -> Result<(), String> {
        check(Some(self), content.naming, &content.bytes)
    }

    fn to_store(&self, attachment: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        // An envelope on the disk may have been made with a wrong key, too.
        self.keys.before_move()?;
        let StoredContent { naming, sidecar, bytes } = content;
        match form(Some(self), naming, &bytes).map_err(|cause| cause.to_string())? {
            Form::Clear if self.writes() => {
                Self::seal(self, &Handle::current(), attachment, &bytes).map_err(|error| error.to_string())
            }
            Form::Clear => Ok(bytes),
            // The name in the bucket would say that it is in clear.
            Form::Envelope(_) if !self.writes() => {
                let content = self.open(&Handle::current(), attachment, &bytes);
                self.expect_clear(content.map_err(|error| error.to_string())?.into())
            }
            // Content in clear that only begins like an envelope must not be stored as one.
            Form::Envelope(_) if naming == Naming::Either => {
                match self.open(&Handle::current(), attachment, &bytes) {
                    Ok(_) => Ok(bytes),
                    Err(error) => {
                        Err(format!("the content looks encrypted but cannot be decrypted: {error}"))
                    }
                }
            }
            Form::Envelope(_) => Ok(bytes),
            // Names in other places do not say so.
            Form::KeyVault => {
                let handle = Handle::current();
                let content = self.open_blob(&handle, sidecar.as_ref(), bytes.into());
                let content = content.map_err(|error| error.to_string())?;
                if !self.writes() {
                    return self.expect_clear(content.into());
                }
                Self::seal(self, &handle, attachment, &content).map_err(|error| error.to_string())
            }
        }
    }

    fn is_envelope(&self, content: &StoredContent) -> Result<bool, String> {
        let found = form(Some(self), content.naming, &content.bytes).map_err(|cause| cause.to_string())?;
        if found == Form::KeyVault {
            let problem = "a blob of the earlier plugin for Azure Key Vault is not kept in the cache";
            return Err(problem.to_owned());
        }
        Ok(found != Form::Clear)
    }

    fn may_upload(&self) -> Result<(), String> {
        self.keys.before_move()
    }

    fn verify(&self, attachment: &Attachment, envelope: &[u8]) -> Result<(), String> {
        use DecryptError::{NotUnwrapped, UnknownKeyId};
        match self.open(&Handle::current(), attachment, envelope) {
            Ok(_) => Ok(()),
            // The key may have been taken out of the configuration, or the key service does not answer.
            Err(
                OpenError::Decrypt(UnknownKeyId(_) | NotUnwrapped { .. })
                | OpenError::Service(_)
                | OpenError::Stopping,
            ) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn seal(&self, attachment: &Attachment, content: &[u8]) -> Result<Option<Bytes>, String> {
        if !self.writes() {
            return Ok(None);
        }
        Self::seal(self, &Handle::current(), attachment, content).map(Some).map_err(|error| error.to_string())
    }

    fn is_current(&self, _: &Attachment, content: &StoredContent) -> Result<bool, FormError> {
        let start = &content.bytes;
        match form(Some(self), content.naming, start) {
            Ok(Form::Clear) => Ok(!self.writes()),
            Ok(Form::KeyVault) => Ok(false),
            Ok(Form::Envelope(_)) if !self.writes() => Ok(false),
            Ok(Form::Envelope(format)) => Ok(self.is_current_envelope(&Handle::current(), format, start)?),
            Err(cause) => Err(FormError::lasting(cause.to_string())),
        }
    }

    fn convert(
        &self,
        attachment: &Attachment,
        content: StoredContent,
        md5: Option<Md5>,
    ) -> Result<Bytes, FormError> {
        self.keys.before_move().map_err(|reason| FormError { reason, transient: true })?;
        let handle = Handle::current();
        let StoredContent { naming, sidecar, bytes } = content;
        let found = form(Some(self), naming, &bytes);
        let plaintext = match found.map_err(|cause| FormError::lasting(cause.to_string()))? {
            Form::Clear => bytes,
            Form::Envelope(_) => self.open(&handle, attachment, &bytes)?.into(),
            Form::KeyVault if md5.is_none() => return Err(FormError::lasting(NOT_VERIFIED)),
            Form::KeyVault => self.open_blob(&handle, sidecar.as_ref(), bytes.into())?.into(),
        };
        expect_md5(&plaintext, md5)?;
        if !self.writes() {
            return self.expect_clear(plaintext).map_err(FormError::lasting);
        }
        let envelope = Self::seal(self, &handle, attachment, &plaintext)?;
        if self.open(&handle, attachment, &envelope)? != plaintext {
            return Err(FormError::lasting("the new envelope does not decrypt to what was encrypted"));
        }
        Ok(envelope)
    }

    fn is_same(&self, attachment: &Attachment, one: &StoredContent, other: &StoredContent) -> bool {
        self.plaintext(attachment, one).is_some_and(|one| self.plaintext(attachment, other) == Some(one))
    }
}

fn check(encryption: Option<&Encryption>, naming: Naming, content: &[u8]) -> Result<(), String> {
    form(encryption, naming, content).map(drop).map_err(|cause| cause.to_string())
}

/// Fails unless `content` is what Orthanc stored, as far as that is known.
fn expect_md5(content: &[u8], md5: Option<Md5>) -> Result<(), FormError> {
    let Some(md5) = md5 else { return Ok(()) };
    let mut verifier = Checksum::Md5(md5).verifier();
    verifier.update(content);
    if verifier.is_right() {
        return Ok(());
    }
    Err(FormError::lasting("the content does not have the MD5 that Orthanc noted when it was stored"))
}

impl From<OpenError> for FormError {
    fn from(error: OpenError) -> Self {
        let transient = match &error {
            OpenError::Service(error) => error.is_transient(),
            OpenError::Stopping => true,
            OpenError::Decrypt(_) | OpenError::Blob(_) => false,
        };
        Self { reason: error.to_string(), transient }
    }
}

impl From<SealError> for FormError {
    fn from(error: SealError) -> Self {
        let transient = match &error {
            SealError::Service(error) => error.is_transient(),
            SealError::Stopping => true,
            SealError::Encrypt(_) => false,
        };
        Self { reason: error.to_string(), transient }
    }
}

impl Encryption {
    /// Returns `content`, unless it would be taken for an envelope if it were stored unencrypted.
    fn expect_clear(&self, content: Bytes) -> Result<Bytes, String> {
        match form(Some(self), Naming::Either, &content) {
            Ok(Form::Clear) => Ok(content),
            _ => Err("the content looks encrypted, so that it cannot be stored unencrypted".to_owned()),
        }
    }

    /// `None` if the form of the content is not accepted, or the content cannot be decrypted.
    fn plaintext(&self, attachment: &Attachment, content: &StoredContent) -> Option<Vec<u8>> {
        match form(Some(self), content.naming, &content.bytes).ok()? {
            Form::Clear => Some(content.bytes.to_vec()),
            Form::KeyVault => {
                let sidecar = content.sidecar.as_ref();
                self.open_blob(&Handle::current(), sidecar, content.bytes.to_vec()).ok()
            }
            Form::Envelope(_) => self.open(&Handle::current(), attachment, &content.bytes).ok(),
        }
    }
}

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod key_vault_tests;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bucket::{Bucket, BucketOptions, Cause, ObjectStorage, Payload, RetryPolicy};
    use crypto_envelope::{Format, KeyRing, MasterKey, decrypt, encrypt};
    use hybrid::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, Side};

    use object_store::memory::InMemory;
    use storage_layout::{ContentType, Layout};

    use super::*;
    use crate::config::EncryptionOptions;
    use crate::stop::Stop;

    const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

    fn ring() -> KeyRing {
        KeyRing::new(3, MasterKey::new(&[7; 32]).unwrap(), []).unwrap()
    }

    fn encryption(read_formats: &[Format], read_unencrypted: bool) -> Encryption {
        let options = EncryptionOptions {
            ring: ring(),
            format: Format::A2,
            read_formats: read_formats.to_vec(),
            memory: 1,
            read_unencrypted,
        };
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://keys"));
        let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
        Encryption::new(options, objects, None, Stop::new())
    }

    async fn form_accepting(read_formats: &[Format], read_unencrypted: bool) -> Arc<dyn StoredForm> {
        let encryption = encryption(read_formats, read_unencrypted);
        encryption.keys.at_start(RetryPolicy::default()).await.unwrap();
        Arc::new(encryption)
    }

    /// A bucket in memory and files. Each has `content`, or nothing.
    async fn storage(
        folder: &tempfile::TempDir,
        encrypted: bool,
        read_unencrypted: bool,
        file: &[u8],
        object: Option<&[u8]>,
    ) -> (HybridStorage, Attachment) {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let objects =
            ObjectStorage::new(bucket, Layout { encrypted, ..Layout::default() }, false, read_unencrypted);
        let files = FileStorage::new(folder.path(), FileStorageOptions { sync: false });
        let attachment = Attachment::new(UUID, ContentType::DICOM).unwrap();
        files.create(&attachment.uuid, file).unwrap();
        if let Some(object) = object {
            let payload = Payload::Owned(Bytes::copy_from_slice(object));
            objects.create(&attachment, payload).await.unwrap();
        }
        (HybridStorage::new(objects, files, Side::FileSystem), attachment)
    }

    #[tokio::test]
    async fn envelope_stays_while_encryption_is_off() {
        let form: Arc<dyn StoredForm> = Arc::new(Unchanged);
        for format in [Format::A1, Format::A2] {
            let envelope = encrypt(&ring(), format, UUID, b"content").unwrap();
            // The second is what an interrupted move of an earlier release left behind.
            for object in [None, Some(envelope.as_slice())] {
                let folder = tempfile::tempdir().unwrap();
                let (storage, attachment) = storage(&folder, false, false, &envelope, object).await;
                // A flat object's name says that it is in clear. The file's name would not.
                let other = object.map(|_| Side::FileSystem);
                for target in [Some(Side::ObjectStorage), other].into_iter().flatten() {
                    let error = storage.move_to(&attachment, target, 1, &form).await.unwrap_err();
                    let text = error.to_string();
                    assert!(matches!(error.cause, Cause::NotAcceptable(_)), "{text}");
                    let expected =
                        [UUID, &format!("{format} envelope under master key 3"), "StorageEncryption"];
                    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
                }
                assert_eq!(
                    storage.locate(&attachment, 1).await.unwrap().len(),
                    1 + usize::from(object.is_some())
                );
            }
        }
    }

    #[tokio::test]
    async fn clear_content_that_begins_like_an_envelope_is_moved() {
        let dicom = [b"A1\x03\0\0\0".as_slice(), &[0; 122], b"DICM", &[1; 100]].concat();
        let off: Arc<dyn StoredForm> = Arc::new(Unchanged);
        for (form, encrypted) in [(off, false), (form_accepting(&[Format::A2], true).await, true)] {
            let folder = tempfile::tempdir().unwrap();
            let (storage, attachment) = storage(&folder, encrypted, encrypted, &dicom, None).await;
            let outcome = storage.move_to(&attachment, Side::ObjectStorage, 1, &form).await.unwrap();
            assert!(matches!(outcome, MoveOutcome::Moved { .. }));
            let copies = storage.locate(&attachment, 1000).await.unwrap();
            let [copy] = copies.as_slice() else { panic!("{copies:?}") };
            let content = match encrypted {
                true => decrypt(&ring(), UUID, &copy.start).unwrap(),
                false => copy.start.to_vec(),
            };
            assert_eq!((copy.side, content), (Side::ObjectStorage, dicom.clone()));
        }
    }

    #[tokio::test]
    async fn nothing_is_moved_before_the_keys_are_compared() {
        let form: Arc<dyn StoredForm> = Arc::new(encryption(&[Format::A1, Format::A2], true));
        let envelope = encrypt(&ring(), Format::A2, UUID, b"content").unwrap();
        for file in [&envelope[..], b"content"] {
            let folder = tempfile::tempdir().unwrap();
            let (storage, attachment) = storage(&folder, true, true, file, None).await;
            let error = storage.move_to(&attachment, Side::ObjectStorage, 1, &form).await.unwrap_err();
            assert!(error.to_string().contains("not been compared"), "{error}");
            assert_eq!(storage.locate(&attachment, 1).await.unwrap()[0].side, Side::FileSystem);
        }
    }

    #[tokio::test]
    async fn only_accepted_formats_are_moved() {
        for (read_formats, is_moved) in [(&[Format::A1, Format::A2][..], true), (&[Format::A2], false)] {
            for object in [false, true] {
                let envelope = encrypt(&ring(), Format::A1, UUID, b"content").unwrap();
                let folder = tempfile::tempdir().unwrap();
                let object = object.then_some(envelope.as_slice());
                let (storage, attachment) = storage(&folder, true, false, &envelope, object).await;
                let form = form_accepting(read_formats, false).await;
                let outcome = storage.move_to(&attachment, Side::ObjectStorage, 1, &form).await;
                let text = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
                assert_eq!(outcome.is_ok(), is_moved, "{text}");
                assert!(is_moved || (text.contains(UUID) && text.contains("ReadFormats")), "{text}");
            }
        }
    }
}
