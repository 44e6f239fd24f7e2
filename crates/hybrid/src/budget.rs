//! Limits the memory of work that goes on at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest budget, in KiB: what a semaphore can count on 32-bit machines.
const LARGEST: u32 = u32::MAX >> 3;

/// Memory that is shared first come, first served. Work that fits does not overtake larger work that waits.
///
/// Work that needs more than the whole waits until nothing else is in progress, and then proceeds alone. Clones
/// share the budget.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    /// In KiB.
    total: u32,
}

/// Memory taken from a [`MemoryBudget`], returned on drop.
#[derive(Debug)]
#[must_use = "dropping the permit returns the memory"]
pub struct MemoryPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// A budget of `total` bytes, at least 1 KiB.
    pub fn new(total: u64) -> Self {
        let total = kibibytes(total, LARGEST);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_acquire(&self, bytes: u64) -> Option<MemoryPermit> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(kibibytes(bytes, self.total)).ok()?;
        Some(MemoryPermit { _permit: Some(permit) })
    }

    /// Waits until it is this work's turn and takes `bytes`. Whoever holds a permit must not ask for another, or
    /// may wait for itself.
    pub async fn acquire(&self, bytes: u64) -> MemoryPermit {
        let wanted = kibibytes(bytes, self.total);
        // Never fails: the semaphore is never closed.
        MemoryPermit { _permit: Arc::clone(&self.free).acquire_many_owned(wanted).await.ok() }
    }
}

/// `bytes` in KiB, from 1 to `limit`. Empty work takes 1, so that its number is limited too.
fn kibibytes(bytes: u64, limit: u32) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, limit)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const KIB: u64 = 1024;

    type Waiting = Pin<Box<dyn Future<Output = MemoryPermit>>>;

    fn poll(waiting: &mut Waiting) -> Option<MemoryPermit> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    /// Waits for `bytes` after everything that waits already.
    fn queue(budget: &MemoryBudget, bytes: u64) -> Waiting {
        let shared = budget.clone();
        let mut waiting: Waiting = Box::pin(async move { shared.acquire(bytes).await });
        assert!(poll(&mut waiting).is_none(), "{bytes} bytes are free");
        waiting
    }

    #[test]
    fn memory_is_free_until_it_is_taken() {
        let budget = MemoryBudget::new(100 * KIB);
        let first = budget.try_acquire(60 * KIB).unwrap();
        let second = budget.clone().try_acquire(40 * KIB).unwrap();
        assert!(budget.try_acquire(0).is_none());
        drop(first);
        assert!(budget.try_acquire(61 * KIB).is_none());
        drop(second);
        assert!(budget.try_acquire(100 * KIB).is_some());
    }

    #[test]
    fn first_come_is_first_served() {
        let budget = MemoryBudget::new(100 * KIB);
        let first = budget.try_acquire(50 * KIB).unwrap();
        let mut waiting = [80, 10, 5, 100, 1].map(|size| queue(&budget, size * KIB));
        // These would fit, but must not overtake the first that waits.
        assert!(budget.try_acquire(1).is_none());
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
        drop(first);
        assert!(budget.try_acquire(1).is_none());
        let [eighty, ten, five, all, one] = &mut waiting;
        let held = [eighty, ten, five].map(|waiting| poll(waiting).unwrap());
        assert!(poll(all).is_none() && poll(one).is_none());
        drop(held);
        let held = poll(all).unwrap();
        assert!(poll(one).is_none());
        drop(held);
        assert!(poll(one).is_some());
    }

    #[test]
    fn oversized_work_proceeds_alone() {
        let budget = MemoryBudget::new(100 * KIB);
        let small = budget.try_acquire(1).unwrap();
        let mut waiting = queue(&budget, u64::MAX);
        drop(small);
        let large = poll(&mut waiting).unwrap();
        assert!(budget.try_acquire(0).is_none());
        drop(large);
        assert!(budget.try_acquire(u64::MAX).is_some());
    }

    #[test]
    fn abandoned_wait_takes_nothing() {
        let budget = MemoryBudget::new(100 * KIB);
        let first = budget.try_acquire(50 * KIB).unwrap();
        drop(queue(&budget, 100 * KIB));
        assert!(budget.try_acquire(50 * KIB).is_some());
        drop(first);
        assert!(budget.try_acquire(100 * KIB).is_some());
    }

    #[test]
    fn budgets_of_any_size_can_be_made() {
        assert!(MemoryBudget::new(0).try_acquire(0).is_some());
        assert!(MemoryBudget::new(u64::MAX).try_acquire(u64::MAX).is_some());
    }
}
