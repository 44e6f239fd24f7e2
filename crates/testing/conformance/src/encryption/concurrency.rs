//! Many threads that share a small memory budget.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, content, eventually, request, uuid};

tests! {
    OneCloud:
        many_threads_share_a_budget_of_1_mb,
        uploads_hold_their_memory_until_they_end,
        uploads_and_downloads_do_not_block_each_other,
}

const THREADS: usize = 16;
const ROUNDS: usize = 3;
/// Attachments larger than the whole budget, and others that fit.
const SIZES: [usize; 4] = [5_000_000, 5_000_001, 200_000, 1_048_576];

fn many_threads_share_a_budget_of_1_mb<C: Cloud>() -> Result<()> {
    let contents = SIZES.map(content);
    for (format, connections) in [("A1", 25), ("A2", 25), ("A1", 2), ("A2", 2)] {
        let plugin = LoadedPlugin::<C>::encrypted_with(
            &json!({ "MaxConnections": connections }),
            &json!({ "Format": format, "MaxConcurrentInputSize": 1 }),
        )?;
        for number in 0..THREADS {
            plugin.create(&uuid(number), &contents[number % SIZES.len()])?;
        }
        let work = |thread: usize| -> Result<()> {
            for round in 0..ROUNDS {
                let own = uuid(1000 + thread * ROUNDS + round);
                let content = &contents[(thread + round) % SIZES.len()];
                plugin.create(&own, content)?;
                // Other threads read this attachment too.
                let shared = (thread + round) % THREADS;
                assert!(plugin.read(&uuid(shared))? == contents[shared % SIZES.len()]);
                if format == "A2" {
                    assert!(plugin.range(&own, 150_000, 50_000)? == content[150_000..200_000]);
                }
                assert!(plugin.read(&own)? == *content);
                plugin.remove(&own)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        assert_eq!(plugin.stored().len(), THREADS);
        plugin.check()?;
    }
    Ok(())
}

/// Maximum duration of what should happen at once.
const SOON: Duration = Duration::from_secs(30);

fn uploads_hold_their_memory_until_they_end<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let plugin = LoadedPlugin::<C>::encrypted_with(
            &json!({ "MaxConnections": 20 }),
            &json!({ "Format": format, "MaxConcurrentInputSize": 1 }),
        )?;
        // Larger than the budget.
        let whole = content(5_000_000);
        plugin.create(&uuid(0), &whole)?;
        let hold = plugin.server.hold(request::CREATE);
        thread::scope(|scope| {
            // Two of these fit.
            let stores: Vec<_> = (1..=8)
                .map(|number| {
                    scope.spawn({
                        let plugin = &plugin;
                        move || plugin.create(&uuid(number), &content(400_000))
                    })
                })
                .collect();
            assert!(hold.wait_until(2, SOON));
            for _ in 0..10 {
                assert!(plugin.read(&uuid(0))? == whole);
            }
            assert_eq!(hold.waiting(), 2, "{format}");
            hold.release();
            stores.into_iter().try_for_each(|store| store.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        assert_eq!(plugin.stored().len(), 9);
        plugin.check()?;
    }
    Ok(())
}

/// Downloads that hold all connections need memory to go on, and uploads that hold all memory need connections.
fn uploads_and_downloads_do_not_block_each_other<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let plugin = LoadedPlugin::<C>::encrypted_with(
            &json!({ "MaxConnections": 2 }),
            &json!({ "Format": format, "MaxConcurrentInputSize": 1 }),
        )?;
        // More than a download keeps in memory, so that it occupies its connection.
        let whole = content(40_000_000);
        plugin.create(&uuid(0), &whole)?;
        let hold = plugin.server.hold(request::READ);
        let plugin = &plugin;
        thread::scope(|scope| {
            let reads: Vec<_> = (0..2).map(|_| scope.spawn(|| plugin.read(&uuid(0)))).collect();
            assert!(hold.wait_until(2, SOON));
            let stores: Vec<_> = (1..=4)
                .map(|number| scope.spawn(move || plugin.create(&uuid(number), &content(1_000_000))))
                .collect();
            // Time for an upload to take the memory. There is nothing to observe.
            thread::sleep(Duration::from_millis(500));
            hold.release();
            let ended = || {
                stores.iter().all(thread::ScopedJoinHandle::is_finished)
                    && reads.iter().all(thread::ScopedJoinHandle::is_finished)
            };
            if let Err(error) = eventually("reads and stores end", SOON, ended) {
                // The threads cannot be ended.
                eprintln!("{error}");
                std::process::exit(1);
            }
            for read in reads {
                assert!(read.join().map_err(|_| anyhow!("panicked"))?? == whole);
            }
            stores.into_iter().try_for_each(|store| store.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        plugin.check()?;
    }
    Ok(())
}
