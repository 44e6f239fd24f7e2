//! Servers that speak S3's protocol and send no ETag. Those of Azure and Google always do.

#[path = "common/cloud.rs"]
mod cloud;

use std::time::Duration;

use anyhow::{Result, anyhow};
use cloud::S3;
use conformance::codes::CORRUPTED_FILE;
use conformance::{DICOM, KEY, Setup, UUID, content, done, eventually};
use fake_cloud::{Fault, Operation};

const SIZE: usize = 8_000_000;

/// A plugin with one stored object.
fn setup() -> Result<Setup<S3>> {
    let setup = Setup::<S3>::start()?;
    done(setup.host.create(UUID, DICOM, &content(SIZE)))?;
    setup.server.reset_counts();
    Ok(setup)
}

#[test]
fn answers_without_an_etag_will_do() -> Result<()> {
    let setup = setup()?;
    setup.fault(Operation::GetObject, Fault::DropEtag, 1);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    setup.fault(Operation::GetObjectRange, Fault::DropEtag, 1);
    assert!(done(setup.host.read_range(UUID, DICOM, 3, 70_000))? == content(SIZE)[3..70_003]);
    assert_eq!(setup.server.requests().total, 2);
    setup.check()
}

#[test]
fn without_an_etag_an_object_that_was_replaced_is_found_out_too() -> Result<()> {
    let setup = setup()?;
    setup.fault(Operation::GetObjectRange, Fault::DropEtag, 1);
    // Some seconds for the answer, in which the server goes away.
    setup.server.bandwidth_per_connection(Some(4_000_000));
    // Times in HTTP have seconds.
    std::thread::sleep(Duration::from_millis(1100));
    std::thread::scope(|scope| -> Result<()> {
        let read = scope.spawn(|| setup.host.read_range(UUID, DICOM, 1, SIZE - 2));
        let begun = || setup.server.requests().body_bytes_sent > 1_000_000;
        eventually("the download begins", Duration::from_secs(30), begun)?;
        setup.server.stop();
        setup.server.insert("bucket", KEY, vec![7; SIZE]);
        setup.server.bandwidth_per_connection(None);
        setup.server.start_again()?;
        let outcome = read.join().map_err(|_| anyhow!("panicked"))?;
        assert_eq!(outcome.map(|bytes| bytes.len()), Err(CORRUPTED_FILE));
        Ok(())
    })?;
    setup.check()
}
