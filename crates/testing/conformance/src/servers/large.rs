//! Files of 100 MB, in parts and in one piece.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use real_orthanc::{Proxy, dicom};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, with};
use crate::servers::fixture::{Fixture, encryption};

tests! {
    EveryCloud:
        large_file_is_stored_in_parts,
        large_encrypted_file_is_stored_in_parts,
        large_file_is_stored_with_default_options,
        broken_upload_is_repeated,
        broken_download_is_resumed,
}

/// Size of the files in MB.
const SIZE: u32 = 100;

/// Options for parts of 8 MB.
fn in_parts<C: Cloud>() -> Value {
    // The plugins of other clouds have no such option.
    let switch = C::options().iter().any(|(name, _)| *name == "UseTransferManager");
    let parts = json!({ "TransferBufferSize": 8 });
    if switch { with(parts, &json!({ "UseTransferManager": true })) } else { parts }
}

fn store_and_read<C: Cloud>(changes: &Value) -> Result<()> {
    let mut fixture = Fixture::<C>::with(changes)?;
    let stored = vec![fixture.store_file(dicom::multi_frame(SIZE)?)?];
    fixture.expect_readable(&stored)?;
    fixture.orthanc.restart()?;
    fixture.expect_readable(&stored)?;
    let frame = fixture.rest().get(&format!("{}/frames/100/raw", stored[0].uploaded.path))?.ok()?;
    ensure!(frame.body.len() == 512 * 512 * 2, "{}", frame.body.len());
    fixture.delete(&stored[0].uploaded.study, &stored)?;
    fixture.expect_no_errors()
}

fn large_file_is_stored_in_parts<C: Cloud>() -> Result<()> {
    store_and_read::<C>(&in_parts::<C>())
}

fn large_encrypted_file_is_stored_in_parts<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    store_and_read::<C>(&with(in_parts::<C>(), &json!({ "StorageEncryption": encryption(&keys, "A2") })))
}

/// A proxy in front of the server may refuse such a request. Then the file must be stored in parts.
fn large_file_is_stored_with_default_options<C: Cloud>() -> Result<()> {
    store_and_read::<C>(&json!({}))
}

/// Resets all connections once, when `bytes` has grown by half a file.
fn break_in_the_middle<T: Send>(
    proxy: &Proxy,
    bytes: impl Fn() -> u64 + Sync,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let half = bytes() + u64::from(SIZE) * 500_000;
    thread::scope(|scope| {
        let working = scope.spawn(work);
        let deadline = Instant::now() + Duration::from_mins(1);
        while bytes() < half && Instant::now() < deadline && !working.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        ensure!(bytes() >= half && !working.is_finished(), "nothing was in flight");
        proxy.cut();
        proxy.mend();
        working.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })
}

fn broken_upload_is_repeated<C: Cloud>() -> Result<()> {
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&in_parts::<C>())?;
    let file = dicom::multi_frame(SIZE)?;
    let stored = break_in_the_middle(&proxy, || proxy.bytes_to_target(), || fixture.store_file(file))?;
    fixture.expect_readable(&[stored])?;
    fixture.expect_no_errors()
}

fn broken_download_is_resumed<C: Cloud>() -> Result<()> {
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({}))?;
    let stored = [fixture.store_file(dicom::multi_frame(SIZE)?)?];
    break_in_the_middle(&proxy, || proxy.bytes_from_target(), || fixture.expect_readable(&stored))?;
    fixture.expect_no_errors()
}
