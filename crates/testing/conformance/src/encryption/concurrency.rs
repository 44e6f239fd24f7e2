//! Many threads at once with a small budget: all come to an end.

use std::thread;

use anyhow::Result;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{DICOM, Setup, content, uuid};

tests![
    a1_with_a_budget_of_1_mb_completes,
    a2_with_a_budget_of_1_mb_completes,
    a1_with_a_budget_of_1_mb_and_2_connections_completes,
    a2_with_a_budget_of_1_mb_and_2_connections_completes,
];

const THREADS: usize = 16;
const ROUNDS: usize = 3;

fn all_complete<C: Cloud>(format: &str, connections: u64) -> Result<()> {
    let setup = Setup::<C>::encrypted_with(
        &json!({ "MaxConnections": connections }),
        &json!({ "Format": format, "MaxConcurrentInputSize": 1 }),
    )?;
    // Larger than the whole budget, and such that fit.
    let sizes = [5_000_000, 5_000_001, 200_000, 1_048_576];
    let contents: Vec<Vec<u8>> = sizes.into_iter().map(content).collect();
    for number in 0..THREADS {
        setup.create(&uuid(number), &contents[number % sizes.len()])?;
    }
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (setup, contents) = (&setup, &contents);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let own = uuid(1000 + number * ROUNDS + round);
                    let content = &contents[(number + round) % sizes.len()];
                    assert_eq!(setup.host.create(&own, DICOM, content), Ok(()));
                    // One that others read as well.
                    let shared = (number + round) % THREADS;
                    let read = setup.host.read_whole(&uuid(shared), DICOM);
                    assert!(read.as_ref() == Ok(&contents[shared % sizes.len()]));
                    if format == "A2" {
                        let range = setup.host.read_range(&own, DICOM, 150_000, 50_000);
                        assert!(range.is_ok_and(|range| range == content[150_000..200_000]));
                    }
                    assert!(setup.host.read_whole(&own, DICOM).as_ref() == Ok(content));
                    assert_eq!(setup.host.remove(&own, DICOM), Ok(()));
                }
            });
        }
    });
    assert_eq!(setup.stored().len(), THREADS);
    setup.check()
}

fn a1_with_a_budget_of_1_mb_completes<C: Cloud>() -> Result<()> {
    all_complete::<C>("A1", 25)
}

fn a2_with_a_budget_of_1_mb_completes<C: Cloud>() -> Result<()> {
    all_complete::<C>("A2", 25)
}

fn a1_with_a_budget_of_1_mb_and_2_connections_completes<C: Cloud>() -> Result<()> {
    all_complete::<C>("A1", 2)
}

fn a2_with_a_budget_of_1_mb_and_2_connections_completes<C: Cloud>() -> Result<()> {
    all_complete::<C>("A2", 2)
}
