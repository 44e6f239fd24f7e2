//! Requests that come last, since no user waits for them, and requests that come first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// How often a request in the background looks for a free connection.
const POLL: Duration = Duration::from_millis(20);
/// How often it looks before it waits its turn among the others, so that it is not postponed forever.
const LOOKS: u32 = 1000;

tokio::task_local! {
    static BACKGROUND: ();
    static URGENT: ();
}

/// Runs `operation`, whose requests begin only when a connection is free and no other request waits for one,
/// for at most 20 seconds.
pub async fn in_background<T>(operation: impl Future<Output = T>) -> T {
    BACKGROUND.scope((), operation).await
}

/// Runs `operation`, whose requests do not wait for one of the limited number of connections. They must be few.
pub async fn urgently<T>(operation: impl Future<Output = T>) -> T {
    URGENT.scope((), operation).await
}

/// Waits for a connection; `None` if there will be none. Other requests get theirs in order, those in the
/// background after them.
pub(crate) async fn connection(connections: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if URGENT.try_with(|()| ()).is_ok() {
        return Arc::new(Semaphore::new(1)).try_acquire_owned().ok();
    }
    if BACKGROUND.try_with(|()| ()).is_err() {
        return Arc::clone(connections).acquire_owned().await.ok();
    }
    for _ in 0..LOOKS {
        // Fails while others wait, since a permit that is returned is theirs.
        match Arc::clone(connections).try_acquire_owned() {
            Ok(permit) => return Some(permit),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => tokio::time::sleep(POLL).await,
        }
    }
    Arc::clone(connections).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn request_in_the_background_comes_last() {
        let connections = Arc::new(Semaphore::new(1));
        let held = connection(&connections).await;
        let (order, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let background = {
            let (connections, order) = (Arc::clone(&connections), order.clone());
            tokio::spawn(in_background(async move {
                let permit = connection(&connections).await;
                order.send("background").unwrap();
                drop(permit);
            }))
        };
        tokio::time::sleep(POLL * 3).await;
        let user = tokio::spawn(async move {
            let permit = connection(&connections).await;
            order.send("user").unwrap();
            tokio::time::sleep(POLL * 3).await;
            drop(permit);
        });
        tokio::time::sleep(POLL * 3).await;
        drop(held);
        assert_eq!((begun.recv().await, begun.recv().await), (Some("user"), Some("background")));
        user.await.unwrap();
        background.await.unwrap();
    }
}
