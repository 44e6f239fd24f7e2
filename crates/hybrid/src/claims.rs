//! Who works on an attachment: moves of one attachment take turns, and its removal comes after them.
//!
//! Without it, a move that has read an attachment could write its copy after Orthanc has deleted it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use storage_layout::AttachmentUuid;
use tokio::sync::OwnedMutexGuard;

/// The attachments that are being moved or removed by this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<AttachmentUuid, Arc<Entry>>>>);

#[derive(Debug, Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Orthanc never uses a UUID twice, so this is never taken back.
    removed: AtomicBool,
}

/// A place in the queue for one attachment.
#[derive(Debug)]
struct Ticket {
    claims: Claims,
    uuid: AttachmentUuid,
    entry: Arc<Entry>,
}

/// The exclusive right to move or remove an attachment, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Claim {
    // Declared first: the turn is over before the ticket is given back.
    _turn: OwnedMutexGuard<()>,
    ticket: Ticket,
}

impl Claims {
    /// Waits for the turn of a move.
    pub(crate) async fn for_move(&self, uuid: AttachmentUuid) -> Claim {
        self.ticket(uuid).claim().await
    }

    /// Waits for the turn of a removal. A move that is under way ends early, and those that wait find nothing.
    pub(crate) async fn for_removal(&self, uuid: AttachmentUuid) -> Claim {
        let ticket = self.ticket(uuid);
        ticket.entry.removed.store(true, Ordering::Release);
        ticket.claim().await
    }

    fn ticket(&self, uuid: AttachmentUuid) -> Ticket {
        let entry = Arc::clone(self.0.lock().entry(uuid).or_default());
        Ticket { claims: self.clone(), uuid, entry }
    }
}

impl Ticket {
    async fn claim(self) -> Claim {
        let turn = Arc::clone(&self.entry.turn).lock_owned().await;
        Claim { _turn: turn, ticket: self }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut entries = self.claims.0.lock();
        // Others get at the entry through the map alone, which is locked: there is nobody but the map and this ticket.
        if Arc::strong_count(&self.entry) == 2 {
            entries.remove(&self.uuid);
        }
    }
}

impl Claim {
    /// Whether Orthanc deletes the attachment and waits for this claim.
    pub(crate) fn is_removed(&self) -> bool {
        self.ticket.entry.removed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn uuid() -> AttachmentUuid {
        AttachmentUuid::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11").unwrap()
    }

    #[tokio::test]
    async fn a_removal_tells_the_move_and_waits_for_it() {
        let claims = Claims::default();
        let moving = claims.for_move(uuid()).await;
        let others = claims.clone();
        let mut removal = tokio::spawn(async move { others.for_removal(uuid()).await });
        tokio::time::timeout(Duration::from_millis(50), &mut removal).await.unwrap_err();
        assert!(moving.is_removed());
        drop(moving);
        removal.await.unwrap();
    }

    #[tokio::test]
    async fn a_move_that_waited_for_a_removal_knows_of_it() {
        let claims = Claims::default();
        let removal = claims.for_removal(uuid()).await;
        let others = claims.clone();
        let moving = tokio::spawn(async move { others.for_move(uuid()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(removal);
        assert!(moving.await.unwrap().is_removed());
    }

    #[tokio::test]
    async fn nothing_is_remembered_once_nobody_is_left() {
        let claims = Claims::default();
        let first = claims.for_move(uuid()).await;
        // One that gave up waiting.
        let _ = tokio::time::timeout(Duration::from_millis(10), claims.for_move(uuid())).await;
        drop(first);
        assert!(claims.0.lock().is_empty());
    }
}
