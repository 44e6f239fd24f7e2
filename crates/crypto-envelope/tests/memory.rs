//! Memory, observed by an allocator that keeps a copy of everything that is freed: how much is allocated, and that
//! no freed block still holds a key. One test function: the allocator is shared by the process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::reference::{A2Parts, hkdf};
use common::{KEY_ID, MASTER, UUID};
use crypto_envelope::{Format, KeyRing, decrypt, encrypt, envelope_len, new_key_file, parse_key_file};

/// Blocks of at least this size count as large.
const LARGE: usize = 16 * 1024;
/// Room for the copies of freed blocks.
const LOG: usize = 8 << 20;

struct Watching;

static ON: AtomicBool = AtomicBool::new(false);
static LARGE_BLOCKS: AtomicUsize = AtomicUsize::new(0);
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);
static LOGGED: AtomicUsize = AtomicUsize::new(0);
static mut FREED: [u8; LOG] = [0; LOG];

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.load(SeqCst) && layout.size() >= LARGE {
            LARGE_BLOCKS.fetch_add(1, SeqCst);
            LARGE_BYTES.fetch_add(layout.size(), SeqCst);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ON.load(SeqCst) {
            let start = LOGGED.fetch_add(layout.size(), SeqCst);
            assert!(start + layout.size() <= LOG, "the log is full");
            let log = (&raw mut FREED).cast::<u8>();
            // SAFETY: within the log, by the assertion above.
            let log = unsafe { log.add(start) };
            // SAFETY: the block is live and of this size; each part of the log is written once.
            unsafe { std::ptr::copy_nonoverlapping(block, log, layout.size()) };
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Runs `work`, and returns its result, the number and bytes of its large allocations, and all that it freed.
fn watched<T>(work: impl FnOnce() -> T) -> (T, usize, usize, Vec<u8>) {
    for counter in [&LARGE_BLOCKS, &LARGE_BYTES, &LOGGED] {
        counter.store(0, SeqCst);
    }
    ON.store(true, SeqCst);
    let result = work();
    ON.store(false, SeqCst);
    let log = (&raw const FREED).cast::<u8>();
    // SAFETY: initialised memory, and nobody writes while the allocator does not watch.
    let freed = unsafe { std::slice::from_raw_parts(log, LOGGED.load(SeqCst)) }.to_vec();
    (result, LARGE_BLOCKS.load(SeqCst), LARGE_BYTES.load(SeqCst), freed)
}

fn contains(freed: &[u8], secret: &[u8]) -> bool {
    freed.windows(16).any(|window| secret.windows(16).any(|part| window == part))
}

#[test]
fn encryption_allocates_one_large_buffer_and_no_freed_memory_holds_a_key() {
    let key_file = "YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXM=\n";
    let wrapping_key = hkdf(&MASTER, &[], b"orthanc-object-storage A2 wrap");

    // The watcher itself works.
    let ((), _, _, freed) = watched(|| drop(std::hint::black_box(MASTER.to_vec())));
    assert!(contains(&freed, &MASTER));

    // Key files and rings.
    let ((), _, _, freed) = watched(|| {
        let key = parse_key_file(key_file.as_bytes()).unwrap();
        drop(KeyRing::new(KEY_ID, key, []).unwrap());
    });
    assert!(!freed.is_empty());
    for secret in [MASTER.as_slice(), &wrapping_key, key_file.as_bytes()] {
        assert!(!contains(&freed, secret));
    }
    let (text, _, _, freed) = watched(|| {
        let text = new_key_file().unwrap();
        let copy = String::from(text.as_str());
        drop(text);
        copy
    });
    assert!(!contains(&freed, text.as_bytes()));

    let ring = KeyRing::new(KEY_ID, parse_key_file(key_file.as_bytes()).unwrap(), []).unwrap();
    for len in [50_000, 200_000] {
        let plaintext = common::plaintext(len);
        for format in [Format::A1, Format::A2] {
            let (envelope, blocks, bytes, freed) =
                watched(|| encrypt(&ring, format, UUID, &plaintext).unwrap());
            assert_eq!(
                (blocks, bytes as u64),
                (1, envelope_len(format, len as u64)),
                "{format}, {len} bytes"
            );
            assert_eq!(envelope.capacity(), envelope.len());
            let (_, blocks, bytes, freed_by_decryption) =
                watched(|| decrypt(&ring, UUID, &envelope).map(drop));
            assert_eq!((blocks, bytes), (1, len), "{format}, {len} bytes");

            let secrets = match format {
                Format::A1 => {
                    // The mask is the key stream over both: recovered from two zero blocks under the master key.
                    let mask = reference_mask();
                    let unmask = |part: &[u8]| part.iter().zip(&mask).map(|(a, b)| a ^ b).collect::<Vec<_>>();
                    vec![mask.clone(), unmask(&envelope[38..70]), unmask(&envelope[6..38])]
                }
                Format::A2 => {
                    let parts = A2Parts::of(&MASTER, UUID, &envelope).unwrap();
                    vec![parts.file_key.to_vec(), parts.content_key(&envelope[..82]).to_vec()]
                }
            };
            for secret in &secrets {
                assert!(!contains(&freed, secret), "{format}: a key is in freed memory after encryption");
                // Freed plaintext is in there too, and is no key.
                assert!(
                    !contains(&freed_by_decryption, secret),
                    "{format}: a key is in freed memory after decryption"
                );
            }
        }
    }
}

fn reference_mask() -> Vec<u8> {
    // A1 of the data key zero shows the mask in the header.
    common::reference::a1_seal(&MASTER, 0, &[0; 32], &[0; 32], b"")[38..70].to_vec()
}
