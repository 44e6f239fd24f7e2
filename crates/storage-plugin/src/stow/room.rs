//! Bounds the uploads of all requests together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of complete instances that are being stored.
const UPLOADS: usize = 16;
/// Maximum memory of complete instances that are being stored, in bytes.
const BYTES: usize = 64 * 1024 * 1024;
/// Maximum number of instances that are stored in parts while they arrive, in about
/// [`Bucket::STREAM_MEMORY`](bucket::Bucket::STREAM_MEMORY) each.
const STREAMS: usize = 2;

/// Room for uploads.
///
/// No upload waits for a sender: complete instances are stored without one, and an incomplete one takes its room at once.
/// Otherwise two requests could wait for each other.
#[derive(Debug)]
pub(super) struct Room {
    uploads: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        let [uploads, bytes, streams] =
            [UPLOADS, BYTES, STREAMS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { uploads, bytes, streams }
    }
}

impl Room {
    /// Waits for room for a complete instance of `size` bytes.
    pub(super) fn for_instance(&self, size: usize) -> impl Future<Output = Place> + Send + use<> {
        let size = u32::try_from(size.min(BYTES)).unwrap_or(u32::MAX);
        let (uploads, bytes) = (Arc::clone(&self.uploads), Arc::clone(&self.bytes));
        async move {
            let permits = [bytes.acquire_many_owned(size).await, uploads.acquire_owned().await];
            Place { _permits: permits.into_iter().flatten().collect() }
        }
    }

    /// Waits for room for an instance that is stored while it arrives.
    pub(super) fn for_stream(&self) -> impl Future<Output = Place> + Send + use<> {
        let streams = Arc::clone(&self.streams);
        async move { Place { _permits: streams.acquire_owned().await.into_iter().collect() } }
    }
}
