#![allow(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

/// Counts the bytes that each thread has allocated, and what the system's allocator adds to each block.
struct Counting;

/// glibc has 8 bytes before each block, and rounds blocks to 16.
fn taken(layout: Layout) -> isize {
    isize::try_from((layout.size() + 8).next_multiple_of(16)).unwrap_or(isize::MAX)
}

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: all calls are forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + taken(layout));
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() - taken(layout));
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn name(uuid: u128, content_type: i32, encrypted: bool) -> StoredName {
    let digits = format!("{uuid:032x}");
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    let attachment = Attachment::new(&groups.join("-"), ContentType(content_type)).unwrap();
    StoredName { attachment, encrypted }
}

fn key(uuid: u128) -> Key {
    let mut key = [0; 19];
    key[..16].copy_from_slice(&uuid.to_be_bytes());
    Key(key)
}

fn insert(index: &Index, key: Key, size: u64, used: u32) {
    index.lock_folders(key.shard()).insert(key, size, used);
}

fn remove(index: &Index, key: &Key) -> Option<u64> {
    index.lock_folders(key.shard()).remove(key)
}

#[test]
fn keys_are_names() {
    let mut keys = Vec::new();
    for uuid in [0, 1, u128::MAX, 0x12345678_9abc_def0_1234_56789abcdef0] {
        for content_type in [0, 1, 1024, 65535] {
            for encrypted in [false, true] {
                let name = name(uuid, content_type, encrypted);
                let key = Key::new(&name).unwrap();
                assert_eq!(key.name(), Some(name));
                keys.push(key);
            }
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 32);
    let capitals = Attachment::new("FB4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
    assert_eq!(Key::new(&StoredName { attachment: capitals, encrypted: false }), None);
    assert_eq!(Key::new(&name(1, -1, false)), None);
    assert_eq!(Key::new(&name(1, 65536, false)), None);
}

#[test]
fn space_is_in_blocks() {
    assert_eq!([0, 1, 4096, 4097, u64::MAX].map(footprint), [4096, 4096, 4096, 8192, u64::MAX]);
}

#[test]
fn counts_follow_the_files() {
    let index = Index::new();
    insert(&index, key(1), 5000, 1);
    insert(&index, key(2), 1, 1);
    assert_eq!((index.files(), index.bytes()), (2, 3 * 4096));
    insert(&index, key(1), 100, 1);
    assert_eq!((index.files(), index.bytes()), (2, 2 * 4096));
    assert_eq!(remove(&index, &key(1)), Some(100));
    assert_eq!(remove(&index, &key(1)), None);
    assert_eq!(index.note_use(&key(1), 5), None);
    assert_eq!((index.files(), index.bytes()), (1, 4096));
}

#[test]
fn oldest_go_to_the_second() {
    let index = Index::new();
    assert_eq!(index.last_use_to_free(1), None);
    // The same lower half as the newest; the others differ in the lower half only.
    for (uuid, used) in [(1, 5), (2, 0x50_0003), (3, 0x50_0004), (4, 0x50_0004), (5, 0x60_0005)] {
        insert(&index, key(uuid << 120), 4096, used);
    }
    for (bytes, expected) in [
        (0, 5),
        (1, 5),
        (4096, 5),
        (4097, 0x50_0003),
        (3 * 4096, 0x50_0004),
        (4 * 4096, 0x50_0004),
        (4 * 4096 + 1, 0x60_0005),
        (u64::MAX, 0x60_0005),
    ] {
        assert_eq!(index.last_use_to_free(bytes), Some(expected), "{bytes}");
    }
    assert_eq!(index.note_use(&key(1 << 120), u32::MAX), Some(4096));
    assert_eq!(index.last_use_to_free(1), Some(0x50_0003));
    assert_eq!(index.last_use_to_free(u64::MAX), Some(u32::MAX));
    assert_eq!(index.used_within(3, &(0..=0x50_0003)), []);
    assert_eq!(index.used_within(3, &(0..=0x50_0004)), [key(3 << 120)]);
}

/// Bytes for each file after `work` on an index.
fn bytes_per_file(work: impl FnOnce(&Index)) -> f64 {
    let before = ALLOCATED.get();
    let index = Index::new();
    work(&index);
    let bytes = ALLOCATED.get() - before;
    let files = index.files();
    println!("{files} files, {bytes} bytes: {:.1} for each", bytes as f64 / files as f64);
    bytes as f64 / files as f64
}

/// The number scattered over all UUIDs, each time the same.
fn scattered(number: u128) -> Key {
    key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

#[test]
fn file_takes_at_most_64_bytes() {
    const FILES: u128 = 100_000;
    let random = bytes_per_file(|index| (0..FILES).for_each(|n| insert(index, scattered(n), 1, 1)));
    let ascending = bytes_per_file(|index| (0..FILES).for_each(|n| insert(index, key(n << 111), 1, 1)));
    let descending =
        bytes_per_file(|index| (0..FILES).rev().for_each(|n| insert(index, key(n << 111), 1, 1)));
    // As after months: each file of the first index has been replaced by another one several times.
    let replaced = bytes_per_file(|index| {
        (0..FILES).for_each(|n| insert(index, scattered(n), 1, 1));
        for n in FILES..5 * FILES {
            remove(index, &scattered(n - FILES));
            insert(index, scattered(n), 1, 1);
        }
    });
    // Half of the files have gone at once.
    let halved = bytes_per_file(|index| {
        (0..2 * FILES).for_each(|n| insert(index, scattered(n), 1, 1));
        for n in 0..FILES {
            remove(index, &scattered(n));
        }
    });
    for bytes in [random, ascending, descending, replaced, halved] {
        assert!(bytes <= 64.0, "{random} {ascending} {descending} {replaced} {halved}");
    }
}
