//! Files of 100 MB, in parts and in one piece.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use real_orthanc::Proxy;
use real_orthanc::dicom::{self, Study};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, with};
use crate::servers::fixture::{Fixture, Stored, encryption};

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

/// Size of a part in MB.
const PART: u32 = 8;

/// Options for an upload in parts.
pub(super) fn in_parts<C: Cloud>() -> Value {
    // The plugins of other clouds have no such option.
    let switch = C::options().iter().any(|(name, _)| *name == "UseTransferManager");
    let parts = json!({ "TransferBufferSize": PART });
    if switch { with(parts, &json!({ "UseTransferManager": true })) } else { parts }
}

/// Stores a file in parts.
pub(super) fn store_in_parts<C: Cloud>(fixture: &Fixture<C>) -> Result<Vec<Stored>> {
    let parts = usize::try_from(SIZE / PART)?;
    let mut stored = Vec::new();
    // Without an option that demands parts, the plugin uploads the first file to find out whether the line is slow.
    for study in 0..2 {
        let before = fixture.uploads();
        stored.push(fixture.store_file(Study(study).multi_frame(SIZE)?)?);
        let uploads = fixture.uploads() - before;
        println!("uploads: {uploads}");
        if uploads >= parts {
            return Ok(stored);
        }
    }
    bail!("not stored in parts");
}

fn store_and_read<C: Cloud>(changes: &Value, store: Store<C>) -> Result<()> {
    let mut fixture = Fixture::<C>::with(changes)?;
    let stored = store(&fixture)?;
    fixture.expect_readable(&stored)?;
    fixture.orthanc.restart()?;
    fixture.expect_readable(&stored)?;
    let frame = fixture.rest().get(&format!("{}/frames/100/raw", stored[0].uploaded.path))?.ok()?;
    ensure!(frame.body.len() == 512 * 512 * 2, "{}", frame.body.len());
    for one in stored.chunks(1) {
        fixture.delete(&one[0].uploaded.study, one)?;
    }
    fixture.expect_no_errors()
}

type Store<C> = fn(&Fixture<C>) -> Result<Vec<Stored>>;

fn large_file_is_stored_in_parts<C: Cloud>() -> Result<()> {
    store_and_read::<C>(&in_parts::<C>(), store_in_parts)
}

fn large_encrypted_file_is_stored_in_parts<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encrypted = json!({ "StorageEncryption": encryption(&keys, "A2") });
    store_and_read::<C>(&with(in_parts::<C>(), &encrypted), store_in_parts)
}

/// A proxy in front of the server may refuse such a request. Then the file must be stored in parts.
fn large_file_is_stored_with_default_options<C: Cloud>() -> Result<()> {
    store_and_read::<C>(&json!({}), |fixture| Ok(vec![fixture.store_file(dicom::multi_frame(SIZE)?)?]))
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
