//! Memory use, observed by an allocator that copies every freed block: encryption and decryption allocate one
//! large buffer, whose size encryption in chunks limits, and no freed block contains a key. There is only one test, because the process has only one
//! allocator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::reference::{self, A2Parts};
use common::{KEY_ID, MASTER, UUID};
use crypto_envelope::{
    Encryptor, Format, KeyRing, decrypt, encrypt, envelope_len, new_key_file, parse_key_file,
};

/// Blocks of at least this size count as large.
const LARGE: usize = 16 * 1024;
/// Bytes for the copies of freed blocks.
const LOG: usize = 8 << 20;

struct Watching;

static ON: AtomicBool = AtomicBool::new(false);
static LARGE_BLOCKS: AtomicUsize = AtomicUsize::new(0);
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);
static LOGGED: AtomicUsize = AtomicUsize::new(0);
static mut FREED: [u8; LOG] = [0; LOG];

// SAFETY: all calls are forwarded to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.load(SeqCst) && layout.size() >= LARGE {
            LARGE_BLOCKS.fetch_add(1, SeqCst);
            LARGE_BYTES.fetch_add(layout.size(), SeqCst);
        }
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ON.load(SeqCst) {
            let start = LOGGED.fetch_add(layout.size(), SeqCst);
            assert!(start + layout.size() <= LOG, "the log is full");
            let log = (&raw mut FREED).cast::<u8>();
            // SAFETY: the assertion above keeps the position within the log.
            let copy = unsafe { log.add(start) };
            // SAFETY: the block is live and has this size; each part of the log is written once.
            unsafe { std::ptr::copy_nonoverlapping(block, copy, layout.size()) };
        }
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// What a piece of work allocated and freed.
struct Watched<T> {
    result: T,
    /// Number of large allocations.
    blocks: usize,
    /// Bytes of the large allocations.
    bytes: usize,
    /// The content of all freed blocks.
    freed: Vec<u8>,
}

impl<T> Watched<T> {
    fn freed_contains(&self, secret: &[u8]) -> bool {
        self.freed.windows(16).any(|window| secret.windows(16).any(|part| window == part))
    }
}

fn watch<T>(work: impl FnOnce() -> T) -> Watched<T> {
    for counter in [&LARGE_BLOCKS, &LARGE_BYTES, &LOGGED] {
        counter.store(0, SeqCst);
    }
    ON.store(true, SeqCst);
    let result = work();
    ON.store(false, SeqCst);
    let log = (&raw const FREED).cast::<u8>();
    // SAFETY: the memory is initialized, and nothing writes to it while the allocator is off.
    let freed = unsafe { std::slice::from_raw_parts(log, LOGGED.load(SeqCst)) }.to_vec();
    Watched { result, blocks: LARGE_BLOCKS.load(SeqCst), bytes: LARGE_BYTES.load(SeqCst), freed }
}

/// The mask of A1: the header of an envelope whose data key is zero.
fn a1_mask() -> Vec<u8> {
    reference::a1_seal(&MASTER, 0, &[0; 32], &[0; 32], b"")[38..70].to_vec()
}

/// The keys that an envelope was encrypted with.
fn secrets(format: Format, envelope: &[u8]) -> Vec<Vec<u8>> {
    match format {
        Format::A1 => {
            let mask = a1_mask();
            let unmasked = |field: &[u8]| field.iter().zip(&mask).map(|(a, b)| a ^ b).collect::<Vec<_>>();
            vec![unmasked(&envelope[38..70]), unmasked(&envelope[6..38]), mask]
        }
        Format::A2 => {
            let parts = A2Parts::of(&MASTER, UUID, envelope).unwrap();
            vec![parts.file_key.to_vec(), parts.content_key(&envelope[..82]).to_vec()]
        }
    }
}

/// Encrypts in chunks, into a buffer that is reused. Returns the header.
fn encrypt_in_chunks(ring: &KeyRing, format: Format, plaintext: &[u8], out: &mut Vec<u8>) -> Vec<u8> {
    let mut encryptor = Encryptor::new(ring, format, UUID, out).unwrap();
    let header = out.clone();
    for chunk in plaintext.chunks(10_000) {
        encryptor.push(chunk, out).unwrap();
        out.clear();
    }
    encryptor.finish(out).unwrap();
    header
}

#[test]
fn one_large_buffer_and_no_key_in_freed_memory() {
    let key_file = "YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXM=\n";
    let wrapping_key = reference::hkdf(&MASTER, &[], b"orthanc-object-storage A2 wrap");
    assert!(
        watch(|| drop(std::hint::black_box(MASTER.to_vec()))).freed_contains(&MASTER),
        "the log is empty"
    );

    let parsing = watch(|| {
        let key = parse_key_file(key_file.as_bytes()).unwrap();
        drop(KeyRing::new(KEY_ID, key, []).unwrap());
    });
    assert!(!parsing.freed.is_empty());
    for secret in [MASTER.as_slice(), &wrapping_key, key_file.as_bytes()] {
        assert!(!parsing.freed_contains(secret));
    }
    // The copy outlives the watch.
    let making = watch(|| new_key_file().map(|text| String::from(text.as_str())).unwrap());
    assert!(!making.freed_contains(making.result.as_bytes()));

    let ring = KeyRing::new(KEY_ID, parse_key_file(key_file.as_bytes()).unwrap(), []).unwrap();
    for len in [50_000, 200_000] {
        let plaintext = common::plaintext(len);
        for format in [Format::A1, Format::A2] {
            let sealing = watch(|| encrypt(&ring, format, UUID, &plaintext).unwrap());
            let envelope = &sealing.result;
            let expected = envelope_len(format, len as u64);
            assert_eq!((sealing.blocks, sealing.bytes as u64), (1, expected), "{format}, {len} bytes");
            assert_eq!(envelope.capacity(), envelope.len());
            let opening = watch(|| decrypt(&ring, UUID, envelope).map(drop));
            assert_eq!((opening.blocks, opening.bytes), (1, len), "{format}, {len} bytes");
            let mut out = Vec::with_capacity(100_000);
            let streaming = watch(|| encrypt_in_chunks(&ring, format, &plaintext, &mut out));
            assert_eq!(out.capacity(), 100_000);
            let mut streaming_secrets = secrets(format, &streaming.result);
            streaming_secrets.push(plaintext[len - 100..].to_vec());
            for secret in streaming_secrets {
                assert!(
                    !streaming.freed_contains(&secret),
                    "{format}: encryption in chunks leaves a key or plaintext in freed memory"
                );
            }
            // The plaintext of one segment.
            let expected = if format == Format::A2 { (1, 65_536) } else { (0, 0) };
            assert_eq!((streaming.blocks, streaming.bytes), expected, "{format}, {len} bytes");
            for secret in secrets(format, envelope) {
                assert!(
                    !sealing.freed_contains(&secret),
                    "{format}: encryption leaves a key in freed memory"
                );
                assert!(
                    !opening.freed_contains(&secret),
                    "{format}: decryption leaves a key in freed memory"
                );
            }
        }
    }
}
