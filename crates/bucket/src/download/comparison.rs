//! The comparison of downloaded bytes with the checksum of their object.

use cloud_http::{Checksum, Hasher};
use futures_util::StreamExt;
use object_store::ObjectStoreExt;

use super::{Download, get, is_same_version, without_placeholder};
use crate::error::{Cause, StorageError};
use crate::verification::{Check, Comparison, ETags, Judgement, Verdict};

impl Download {
    /// Takes the comparison with the object's checksum out of the download, whose end then says nothing about the bytes.
    /// Pass it all of them, in their order and on any thread, and then ask for the [`verdict`](Self::verdict).
    pub fn take_comparison(&mut self) -> Comparison {
        Comparison(std::mem::replace(&mut self.check, Check::Off))
    }

    /// Returns the result of a comparison with all bytes if no request is needed.
    pub fn verdict(&self, comparison: Comparison) -> Verdict {
        match comparison.0.judge() {
            Judgement::Right => Verdict::Right,
            Judgement::Wrong(checksum) => Verdict::Wrong(self.wrong_checksum(checksum)),
            Judgement::Open => Verdict::Open(comparison),
        }
    }

    /// Asks the server for what the comparison with all bytes has left open.
    ///
    /// # Errors
    ///
    /// [`Cause::WrongChecksum`] if the bytes are wrong, [`Cause::Changed`] if the object was replaced, and others if the
    /// server does not answer.
    pub async fn settle(&mut self, comparison: Comparison) -> Result<(), StorageError> {
        let check = comparison.0;
        let wrong = match (check.judge(), check) {
            (Judgement::Right, _) => None,
            (Judgement::Wrong(checksum), _) => Some(checksum),
            (Judgement::Open, Check::Late { hasher, asks, e_tags }) => {
                self.late_checksum(&hasher, asks, &e_tags).await?
            }
            (Judgement::Open, _) => None,
        };
        wrong.map_or(Ok(()), |checksum| Err(self.wrong_checksum(checksum)))
    }

    fn wrong_checksum(&self, checksum: &'static str) -> StorageError {
        self.attempts.error(Cause::WrongChecksum(checksum), false)
    }

    /// Compares the bytes with the checksum of the whole object, if there is one.
    pub(super) async fn verify(&mut self) -> Result<(), StorageError> {
        // Whatever happens now, a caller that asks again must not take the bytes for right.
        let check = std::mem::replace(&mut self.check, Check::Failed);
        self.settle(Comparison(check)).await?;
        self.check = Check::Off;
        Ok(())
    }

    /// Compares the bytes with what the server is asked for. Returns the name of the checksum that they do not have; `None`
    /// if nothing shows that they are wrong.
    async fn late_checksum(
        &mut self,
        hasher: &Hasher,
        asks: bool,
        e_tags: &ETags,
    ) -> Result<Option<&'static str>, StorageError> {
        // Ends the first request, whose connection the next one may need.
        self.body = futures_util::stream::empty().boxed();
        let asked = if asks { self.ask_for_checksum().await? } else { None };
        let (checksum, is_right) = match (asked, hasher.md5()) {
            (Some(checksum), _) => (checksum.name(), hasher.fits(checksum).unwrap_or(true)),
            (None, Some(md5)) if e_tags.may_be_md5s() => ("MD5", self.is_again(md5, e_tags).await?),
            (None, _) => return Ok(None),
        };
        Ok((!is_right).then_some(checksum))
    }

    /// Asks for the checksum of the object; `None` if the server has none.
    async fn ask_for_checksum(&mut self) -> Result<Option<Checksum>, StorageError> {
        let mut attempts = self.attempts.again(self.attempts.policy());
        let (object, exchange) = match attempts.run(|| self.store.head(&self.path)).await {
            // Chunked answers do not say how large the object is, which is known.
            Err(error) if error.cause == Cause::NoLength => return Ok(None),
            Err(error) if error.cause == Cause::NotFound => return Err(self.changed()),
            result => result?,
        };
        if !is_same_version(&without_placeholder(object), &self.object) {
            return Err(self.changed());
        }
        Ok(exchange.checksum)
    }

    /// Whether another download has this MD5 as well, which is not the `ETag`, although that looks like one. Then the `ETag`
    /// may be something else. Nothing can be said if the other download fails: the bytes are taken for right.
    async fn is_again(&mut self, md5: [u8; 16], e_tags: &ETags) -> Result<bool, StorageError> {
        self.attempts.count_retry();
        let again = match self.md5_again(md5).await {
            Err(error) if error.cause == Cause::NotFound => return Err(self.changed()),
            Err(error) if error.cause == Cause::Changed => return Err(error),
            result => result,
        };
        match again {
            Ok(true) => e_tags.note_other(&self.attempts.object),
            Ok(false) => return Ok(false),
            Err(error) => tracing::info!(
                "{error}; this was a second download, so the bytes of the first one were not compared"
            ),
        }
        Ok(true)
    }

    /// Downloads the object once more. Returns whether it has this MD5.
    async fn md5_again(&mut self, md5: [u8; 16]) -> Result<bool, StorageError> {
        let mut attempts = self.attempts.again(self.attempts.policy());
        let (answer, _) = get(&self.store, &self.path, None, &mut attempts).await?;
        if !is_same_version(&answer.meta, &self.object) {
            return Err(self.changed());
        }
        let mut verifier = Checksum::Md5(md5).verifier();
        let mut body = answer.into_stream();
        let mut size = 0;
        loop {
            let frame = tokio::time::timeout_at(attempts.deadline(), body.next()).await;
            let Some(bytes) = frame.map_err(|_elapsed| attempts.timed_out())? else { break };
            let bytes = bytes.map_err(|error| attempts.broken(&error))?;
            size += bytes.len() as u64;
            verifier.update(&bytes);
        }
        if size < self.object.size {
            return Err(attempts.error(Cause::Network("the answer ended early".to_owned()), true));
        }
        Ok(verifier.is_right())
    }
}
