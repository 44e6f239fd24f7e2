//! Requests proceed in order of arrival, the budget is never exceeded, and oversized requests proceed alone.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::MemoryBudget;

/// Waits until as many requests queue as expected.
fn wait_for(budget: &MemoryBudget, waiting: u64) {
    let start = Instant::now();
    while budget.waiting() != waiting {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} instead of {waiting} requests wait",
            budget.waiting()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn fitting_requests_proceed_at_once() {
    let budget = MemoryBudget::new(100);
    let a = budget.acquire(60);
    let b = budget.acquire(40);
    assert_eq!((budget.used(), budget.waiting()), (100, 0));
    drop((a, b));
    assert_eq!(budget.used(), 0);
}

#[test]
fn requests_do_not_overtake_each_other() {
    let budget = MemoryBudget::new(100);
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = budget.acquire(50);
    // The large one must wait for `first`; the small ones would fit next to it and must not overtake.
    let threads: Vec<_> = [80_u64, 10, 5, 100, 1]
        .into_iter()
        .enumerate()
        .map(|(index, bytes)| {
            let queue = budget.clone();
            let order = Arc::clone(&order);
            let thread = thread::spawn(move || {
                let guard = queue.acquire(bytes);
                order.lock().unwrap().push(bytes);
                // Long enough for a wrong order to show.
                thread::sleep(Duration::from_millis(5));
                drop(guard);
            });
            wait_for(&budget, index as u64 + 1);
            thread
        })
        .collect();
    assert!(order.lock().unwrap().is_empty());
    drop(first);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let order = order.lock().unwrap();
    // 80, 10 and 5 fit together, so they may finish entering in any order; 100 comes after them, 1 last.
    assert_eq!(order[3..], [100, 1], "{order:?}");
}

#[test]
fn oversized_request_proceeds_alone() {
    let budget = MemoryBudget::new(100);
    let small = budget.acquire(1);
    let queue = budget.clone();
    let inside = Arc::new(AtomicU64::new(0));
    let flag = Arc::clone(&inside);
    let large = thread::spawn(move || {
        let guard = queue.acquire(u64::MAX);
        flag.store(1, SeqCst);
        guard
    });
    wait_for(&budget, 1);
    assert_eq!(inside.load(SeqCst), 0, "the large request proceeded next to another");
    drop(small);
    let guard = large.join().unwrap();
    let queue = budget.clone();
    let flag = Arc::clone(&inside);
    let next = thread::spawn(move || {
        drop(queue.acquire(1));
        flag.store(2, SeqCst);
    });
    wait_for(&budget, 1);
    assert_eq!(inside.load(SeqCst), 1, "another request proceeded next to the large one");
    drop(guard);
    next.join().unwrap();
    assert_eq!((inside.load(SeqCst), budget.used()), (2, 0));
}

#[test]
fn budget_is_never_exceeded() {
    let budget = MemoryBudget::new(1000);
    let in_flight = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..16_u64 {
            let budget = budget.clone();
            let in_flight = Arc::clone(&in_flight);
            scope.spawn(move || {
                for round in 0..200 {
                    let bytes = (thread * 131 + round * 17) % 700;
                    let guard = budget.acquire(bytes);
                    assert!(in_flight.fetch_add(bytes, SeqCst) + bytes <= 1000);
                    in_flight.fetch_sub(bytes, SeqCst);
                    drop(guard);
                }
            });
        }
    });
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[test]
fn empty_budget_admits_one_request_at_a_time() {
    for total in [0, 1] {
        let budget = MemoryBudget::new(total);
        for bytes in [0, 1, 1 << 40] {
            drop(budget.acquire(bytes));
        }
        let guard = budget.acquire(0);
        let queue = budget.clone();
        let other = thread::spawn(move || drop(queue.acquire(0)));
        wait_for(&budget, 1);
        drop(guard);
        other.join().unwrap();
    }
}
