//! The memory of Orthanc while it receives requests of a gigabyte.

use std::time::Instant;

use anyhow::{Result, ensure};
use real_orthanc::dicom::Study;
use serde_json::json;

use super::client::Upload;
use super::gateway;
use crate::Cloud;
use crate::fixture::content;
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    Long:
        gigabyte_takes_less_than_200_mb,
        slow_bucket_slows_the_sender_down;
}

/// Bytes of each request.
const TOTAL: usize = 1_000_000_000;
/// Bytes of each request to a slow bucket: three times as many as may be held.
const SLOW_TOTAL: usize = 600_000_000;
/// Bytes per second of each connection to a slow bucket.
const SLOW: u64 = 2_000_000;
/// Maximum memory above that of Orthanc at rest, in bytes.
const LIMIT: u64 = 200_000_000;

fn gigabyte_takes_less_than_200_mb<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let pixels = content(1_000_000);
    let one = measure(&mut fixture, "one instance", |upload| {
        upload.part(&Study(1).multi_frame(1)?)?;
        // The gateway does not look at what follows the UIDs.
        for _ in 0..TOTAL / pixels.len() {
            upload.send(&pixels)?;
        }
        Ok(())
    })?;
    let many = measure(&mut fixture, "2,000 instances", |upload| {
        for file in Study(2).ct_series(u32::try_from(TOTAL / 500_000)?, 500, 500) {
            upload.part(&file?)?;
        }
        Ok(())
    })?;
    ensure!(one < LIMIT && many < LIMIT, "{one} and {many} bytes more than at rest");
    Ok(())
}

/// A sender that were not slowed down would fill the memory with all that the bucket has not taken yet.
fn slow_bucket_slows_the_sender_down<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    fixture.bucket.bandwidth_per_connection(Some(SLOW));
    let pixels = content(1_000_000);
    let one = measure(&mut fixture, "one instance to a slow bucket", |upload| {
        upload.part(&Study(1).multi_frame(1)?)?;
        (0..SLOW_TOTAL / pixels.len()).try_for_each(|_| Ok(upload.send(&pixels)?))
    })?;
    let many = measure(&mut fixture, "many instances to a slow bucket", |upload| {
        let mut files = Study(2).ct_series(u32::try_from(SLOW_TOTAL / 500_000)?, 500, 500);
        files.try_for_each(|file| Ok(upload.part(&file?)?))
    })?;
    ensure!(one < LIMIT && many < LIMIT, "{one} and {many} bytes more than at rest");
    Ok(())
}

/// Returns how many bytes the peak of Orthanc's memory is above its memory at rest.
fn measure<C: Cloud>(
    fixture: &mut Fixture<C>,
    name: &str,
    send: impl FnOnce(&mut Upload) -> Result<()>,
) -> Result<u64> {
    // Memory that an earlier request has left would hide what this one needs.
    fixture.start_again_with(&gateway(&json!({})))?;
    // A small instance, so that what is allocated once has been.
    let mut first = Upload::to(&fixture.orthanc)?;
    first.part(&slices(0, 1)?[0])?;
    ensure!(first.finish()?.status == 200);
    fixture.orthanc.reset_peak_memory()?;
    let rest = fixture.orthanc.memory_bytes()?;
    let start = Instant::now();
    let mut upload = Upload::to(&fixture.orthanc)?;
    send(&mut upload)?;
    let answer = upload.finish()?;
    ensure!(answer.status == 200, "{name}: {answer:?}\n{}", fixture.orthanc.log());
    let more = fixture.orthanc.peak_memory_bytes()?.saturating_sub(rest);
    println!("{name}: {} kB more than at rest, {:.1} s", more / 1000, start.elapsed().as_secs_f64());
    fixture.bucket.clear();
    Ok(more)
}
