//! Per-attachment locks: moves and rewrites of one attachment take turns, and a deletion makes them end early.
//!
//! Without these locks, a move that has read an attachment could write its copy after Orthanc has deleted the
//! attachment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use storage_layout::AttachmentUuid;
use tokio::sync::OwnedMutexGuard;

/// The attachments that this process is moving, rewriting or deleting.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<AttachmentUuid, Arc<Entry>>>>);

#[derive(Debug, Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Never reset, since Orthanc never reuses a UUID.
    removed: AtomicBool,
    /// Whether the object was replaced, by the same attachment in another form, since the first of the present tickets.
    replaced: AtomicBool,
}

/// A position in the queue for one attachment.
#[derive(Debug)]
pub(crate) struct Ticket {
    claims: Claims,
    uuid: AttachmentUuid,
    entry: Arc<Entry>,
}

/// The exclusive right to move or delete an attachment while the claim lives.
#[derive(Debug)]
pub(crate) struct Claim {
    // Declared first, so that the turn ends before the ticket is returned.
    _turn: OwnedMutexGuard<()>,
    ticket: Ticket,
}

impl Claims {
    /// Waits for a move's turn.
    pub(crate) async fn for_move(&self, uuid: AttachmentUuid) -> Claim {
        self.ticket(uuid).claim().await
    }

    /// Waits for a deletion's turn. A move in progress ends early, and waiting moves find nothing.
    pub(crate) async fn for_removal(&self, uuid: AttachmentUuid) -> Claim {
        let ticket = self.ticket(uuid);
        ticket.entry.removed.store(true, Ordering::Release);
        ticket.claim().await
    }

    /// Claims an attachment for its deletion if nothing else does. Otherwise, the move in progress ends early.
    pub(crate) fn try_for_removal(&self, uuid: AttachmentUuid) -> Option<Claim> {
        let ticket = self.ticket(uuid);
        ticket.entry.removed.store(true, Ordering::Release);
        ticket.try_claim()
    }

    /// Claims what no attachment of the index names, if nothing else does. A move in progress is not disturbed.
    pub(crate) fn try_for_orphan(&self, uuid: AttachmentUuid) -> Option<Claim> {
        self.ticket(uuid).try_claim()
    }

    /// Makes the move in progress, if any, end early: Orthanc has deleted the attachment.
    pub(crate) fn announce_removal(&self, uuid: &AttachmentUuid) {
        if let Some(entry) = self.0.lock().get(uuid) {
            entry.removed.store(true, Ordering::Release);
        }
    }

    /// A position in the queue, which remembers a deletion until it is dropped.
    pub(crate) fn ticket(&self, uuid: AttachmentUuid) -> Ticket {
        let entry = Arc::clone(self.0.lock().entry(uuid).or_default());
        Ticket { claims: self.clone(), uuid, entry }
    }
}

impl Ticket {
    fn try_claim(self) -> Option<Claim> {
        let turn = Arc::clone(&self.entry.turn).try_lock_owned().ok()?;
        Some(Claim { _turn: turn, ticket: self })
    }

    pub(crate) async fn claim(self) -> Claim {
        let turn = Arc::clone(&self.entry.turn).lock_owned().await;
        Claim { _turn: turn, ticket: self }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut entries = self.claims.0.lock();
        // Only the map and this ticket hold the entry, and others reach it only through the map, which is
        // locked.
        if Arc::strong_count(&self.entry) == 2 {
            entries.remove(&self.uuid);
        }
    }
}

impl Claim {
    /// Notes that the attachment's object is being replaced, for those who have a ticket since before.
    pub(crate) fn note_replaced(&self) {
        self.ticket.entry.replaced.store(true, Ordering::Release);
    }

    /// Whether the attachment's object may have been replaced since this claim's ticket was taken.
    pub(crate) fn is_replaced(&self) -> bool {
        self.ticket.entry.replaced.load(Ordering::Acquire)
    }

    /// Whether Orthanc is deleting the attachment and waits for this claim.
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
    async fn removal_flags_the_move_and_waits_for_it() {
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
    async fn move_after_a_removal_sees_the_flag() {
        let claims = Claims::default();
        let removal = claims.for_removal(uuid()).await;
        let others = claims.clone();
        let moving = tokio::spawn(async move { others.for_move(uuid()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(removal);
        assert!(moving.await.unwrap().is_removed());
    }

    #[tokio::test]
    async fn entries_are_dropped_with_the_last_ticket() {
        let claims = Claims::default();
        let first = claims.for_move(uuid()).await;
        // This one gives up waiting.
        let _ = tokio::time::timeout(Duration::from_millis(10), claims.for_move(uuid())).await;
        drop(first);
        assert!(claims.0.lock().is_empty());
    }
}
