//! Many threads that share a small memory budget.

use std::thread;

use anyhow::{Result, anyhow};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, content, uuid};

tests! { OneCloud: many_threads_share_a_budget_of_1_mb }

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
