//! Reads of whole attachments: one download, decrypted into Orthanc's buffer as it arrives.

use bucket::ReadRange;
use crypto_envelope::{Decryptor, inspect};
use orthanc_ffi::{Target, WholeTarget};

use super::sink::Sink;
use super::{Content, ReadError, Reading};

impl Reading<'_> {
    pub(super) fn whole_once(&self, target: &mut WholeTarget<'_>) -> Result<u64, ReadError> {
        let (mut incoming, first) = self.download(&ReadRange::Whole)?;
        let Some(encryption) = self.encryption else {
            return self.fill(&mut allocate(target, first.head.len())?, first, incoming);
        };
        let start = first.start();
        let size = first.head.size;
        if let Content::Clear = self.content(&first, &start)? {
            return self.fill(&mut allocate(target, first.head.len())?, first, incoming);
        }
        let length = inspect(&start, size).map_err(|cause| self.envelope(cause))?.plaintext_len;
        let mut buffer = allocate(target, length)?;
        let uuid = self.attachment.uuid.as_str();
        let mut decryptor = Decryptor::new(encryption.ring(), uuid, size, Sink(&mut buffer));
        self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        if let Some(opener) = decryptor.opener() {
            encryption.remember(&self.attachment, opener, size);
        }
        decryptor.finish().map_err(|cause| self.envelope(cause))?;
        Ok(length)
    }
}

fn allocate<'a>(target: &'a mut WholeTarget<'_>, length: u64) -> Result<Target<'a>, ReadError> {
    target.allocate(length).map_err(|code| ReadError::NoMemory(length, code))
}
