//! Reads of whole attachments: one download, decrypted into Orthanc's buffer as it arrives.

use bucket::ReadRange;
use crypto_envelope::inspect;
use orthanc_ffi::{Target, WholeTarget};

use super::sink::Sink;
use super::{Form, ReadError, Reading};

impl Reading<'_> {
    pub(super) fn whole_once(&self, target: &mut WholeTarget<'_>) -> Result<u64, ReadError> {
        let (incoming, first) = self.download(&ReadRange::Whole)?;
        let encryption = match (self.form(&first)?, self.encryption) {
            (Form::Envelope(_), Some(encryption)) => encryption,
            (Form::KeyVault, Some(encryption)) => {
                let content = self.key_vault_blob(encryption, first, incoming)?;
                let mut buffer = allocate(target, content.len() as u64)?;
                buffer.append(&content).map_err(|cause| self.overflow(cause))?;
                return Ok(content.len() as u64);
            }
            _ => return self.fill(&mut allocate(target, first.head.len())?, first, incoming),
        };
        let inspected = inspect(&first.start(), first.head.size);
        let length = inspected.map_err(|cause| self.envelope(cause))?.plaintext_len;
        let mut buffer = allocate(target, length)?;
        self.decrypt(encryption, first, incoming, Sink(&mut buffer))?;
        Ok(length)
    }
}

fn allocate<'a>(target: &'a mut WholeTarget<'_>, length: u64) -> Result<Target<'a>, ReadError> {
    target.allocate(length).map_err(|code| ReadError::NoMemory(length, code))
}
