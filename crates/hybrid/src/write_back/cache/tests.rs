use std::collections::BTreeSet;
use std::thread;

use rand::RngExt as _;
use storage_layout::ContentType;

use super::*;
use crate::write_back::index::SHARDS;

mod many;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Files of this size take two blocks.
const SIZE: usize = 5000;
const SPACE: u64 = 8192;

struct Fixture {
    state: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    /// A cache for `files` files of [`SIZE`] bytes.
    fn new(files: u64) -> Self {
        let state = tempfile::tempdir().unwrap();
        let cache = open(state.path(), files * SPACE);
        Self { state, cache }
    }

    /// The cache after a restart of Orthanc.
    fn restart(&mut self, files: u64) {
        self.cache = open(self.state.path(), files * SPACE);
    }

    fn adopt(&self, name: &StoredName) {
        self.adopt_bytes(name, SIZE);
    }

    fn adopt_bytes(&self, name: &StoredName, size: usize) {
        let from = self.state.path().join(format!("pending-{:032x}", rand::random::<u128>()));
        fs::write(&from, vec![7; size]).unwrap();
        self.cache.adopt(&from, name).unwrap();
        assert!(!from.exists());
    }

    fn fill(&self, name: &StoredName, chunks: &[&[u8]]) -> Option<()> {
        let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut writer = self.cache.begin(name, size)?;
        chunks.iter().for_each(|chunk| writer.write(chunk));
        writer.commit();
        Some(())
    }

    fn path(&self, name: &StoredName) -> PathBuf {
        self.cache.path(name)
    }

    fn set_last_use(&self, name: &StoredName, age: Duration) {
        let file = fs::File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    /// How long ago the file was used, according to its time.
    fn age(&self, name: &StoredName) -> Duration {
        let modified = fs::metadata(self.path(name)).unwrap().modified().unwrap();
        modified.elapsed().unwrap_or_default()
    }

    fn has(&self, name: &StoredName) -> bool {
        self.path(name).exists()
    }

    fn files_and_bytes(&self) -> (u64, u64) {
        let totals = self.cache.totals();
        (totals.files, totals.bytes)
    }

    fn unfinished(&self) -> usize {
        fs::read_dir(self.state.path().join("tmp")).map_or(0, Iterator::count)
    }
}

fn open(state: &Path, max_bytes: u64) -> Cache {
    Cache::new(state.join("cache"), state.join("tmp"), CacheOptions { max_bytes, keep_free: 0 })
}

fn name(number: u32) -> StoredName {
    // In shards and folders of their own.
    let uuid = format!("{:08x}-0000-4000-8000-000000000000", number.wrapping_mul(0x9e37_79b9));
    StoredName { attachment: Attachment::new(&uuid, ContentType::DICOM).unwrap(), encrypted: false }
}

fn encrypted(number: u32) -> StoredName {
    StoredName { encrypted: true, ..name(number) }
}

fn never() -> bool {
    false
}

fn read(cache: &Cache, name: &StoredName) -> Option<Vec<u8>> {
    let (mut file, found) = cache.open(&name.attachment, name.encrypted)?;
    assert_eq!(found, *name);
    Some(file.next(usize::MAX).unwrap().unwrap_or_default().to_vec())
}

#[test]
fn adopted_file_is_found_under_its_name() {
    let fixture = Fixture::new(10);
    fixture.adopt(&encrypted(1));
    let uuid = encrypted(1).attachment.uuid;
    let file = fixture.state.path().join("cache/9e/37").join(format!("{uuid}.1.enc"));
    assert_eq!(fs::read(&file).unwrap(), vec![7; SIZE]);
    // The other name is tried too.
    for encrypted_first in [false, true] {
        let (_, found) = fixture.cache.open(&name(1).attachment, encrypted_first).unwrap();
        assert_eq!(found, encrypted(1));
    }
    assert!(fixture.cache.open(&name(2).attachment, true).is_none());
    let CacheTotals { files, bytes, hits, misses, .. } = fixture.cache.totals();
    assert_eq!((files, bytes, hits, misses), (1, SPACE, 2, 1));
}

#[test]
fn first_of_two_names_is_as_asked() {
    let fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    fixture.adopt(&encrypted(1));
    for name in [name(1), encrypted(1)] {
        assert!(read(&fixture.cache, &name).is_some());
    }
}

#[test]
fn least_recently_used_make_room() {
    let mut fixture = Fixture::new(100);
    for number in 0..100 {
        fixture.adopt(&name(number));
        fixture.set_last_use(&name(number), HOUR * (number + 2));
    }
    // One file must go, and 2 % in addition.
    fixture.restart(99);
    // The time on the disk counts before the scan.
    assert!(read(&fixture.cache, &name(99)).is_some());
    fixture.cache.scan(&never);
    let gone: Vec<u32> = (0..100).filter(|number| !fixture.has(&name(*number))).collect();
    assert_eq!(gone, [96, 97, 98]);
    assert_eq!(fixture.files_and_bytes(), (97, 97 * SPACE));
    // The use in memory counts after it, although the time on the disk may be an hour old.
    assert!(read(&fixture.cache, &name(95)).is_some());
    assert_eq!(fixture.cache.make_room(1), 2 * SPACE);
    let gone: Vec<u32> = (0..100).filter(|number| !fixture.has(&name(*number))).collect();
    assert_eq!(gone, [93, 94, 96, 97, 98]);
    assert_eq!(fixture.cache.totals().evicted, 5);
    // Empty folders go with their files.
    let folders = fs::read_dir(fixture.state.path().join("cache")).unwrap().count();
    assert!(folders <= 96, "{folders}");
}

#[test]
fn eviction_frees_some_in_addition() {
    let fixture = Fixture::new(100);
    (0..101).for_each(|number| fixture.adopt(&name(number)));
    assert_eq!(fixture.files_and_bytes(), (98, 98 * SPACE));
    (101..103).for_each(|number| fixture.adopt(&name(number)));
    assert_eq!(fixture.cache.totals().evicted, 3);
}

#[test]
fn use_is_noted_on_the_disk_once_an_hour() {
    let fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    for (age, noted) in [(HOUR / 2, false), (HOUR + HOUR / 10, true)] {
        fixture.set_last_use(&name(1), age);
        assert!(read(&fixture.cache, &name(1)).is_some());
        assert_eq!(fixture.age(&name(1)) < HOUR / 4, noted, "{age:?}");
    }
}

#[test]
fn time_in_the_future_is_now() {
    let mut fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    let file = fs::File::options().write(true).open(fixture.path(&name(1))).unwrap();
    file.set_modified(SystemTime::now() + 1000 * HOUR).unwrap();
    fixture.restart(10);
    fixture.cache.scan(&never);
    let used = fixture.cache.0.index.last_use(&Key::new(&name(1)).unwrap()).unwrap();
    assert!(used <= now());
}

#[test]
fn file_that_is_too_large_is_deleted() {
    for max in [0, 1] {
        let fixture = Fixture::new(max);
        fixture.adopt_bytes(&name(1), 8193);
        assert!(fixture.fill(&name(2), &[&[7; 8193]]).is_none());
        assert_eq!(fixture.files_and_bytes(), (0, 0));
        assert!(!fixture.has(&name(1)));
    }
}

#[test]
fn names_that_orthanc_does_not_make_are_not_cached() {
    let fixture = Fixture::new(10);
    let attachment = Attachment::new("FB4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
    let capitals = StoredName { attachment, encrypted: false };
    fixture.adopt(&capitals);
    assert!(!fixture.has(&capitals));
    assert!(fixture.fill(&capitals, &[b"content"]).is_none());
    assert!(fixture.cache.open(&attachment, false).is_none());
    fixture.cache.remove(&attachment).unwrap();
}

#[test]
fn file_that_is_read_appears_complete_or_not_at_all() {
    let fixture = Fixture::new(10);
    let begin = || fixture.cache.begin(&name(1), 10).unwrap();
    let mut dropped = begin();
    dropped.write(b"0123456789");
    assert_eq!(fixture.unfinished(), 1);
    drop(dropped);
    for wrong in [&b"012345678"[..], b"0123456789a", b""] {
        let mut writer = begin();
        writer.write(wrong);
        writer.commit();
    }
    assert_eq!(fixture.files_and_bytes(), (0, 0));
    assert_eq!(fixture.unfinished(), 0);

    fixture.fill(&name(1), &[b"01234", b"", b"56789"]).unwrap();
    assert_eq!(read(&fixture.cache, &name(1)).unwrap(), b"0123456789");
    assert_eq!(fixture.files_and_bytes(), (1, 4096));
    // It is not filled twice.
    assert!(fixture.cache.begin(&name(1), 10).is_none());
    // Empty attachments are files too.
    fixture.fill(&name(2), &[]).unwrap();
    assert_eq!(read(&fixture.cache, &name(2)).unwrap(), b"");
}

#[test]
fn file_is_synced_before_it_gets_its_name() {
    let fixture = Fixture::new(10);
    fixture.fill(&name(1), &[b"content"]).unwrap();
    assert_eq!(fixture.cache.0.disk.observed.lock().synced, [fixture.path(&name(1))]);
    fixture.cache.0.disk.observed.lock().broken = Some(fixture.path(&name(2)));
    fixture.fill(&name(2), &[b"content"]).unwrap();
    assert!(!fixture.has(&name(2)));
    assert_eq!((fixture.unfinished(), fixture.files_and_bytes()), (0, (1, 4096)));
}

#[test]
fn deletion_takes_both_names() {
    let fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    fixture.adopt(&encrypted(1));
    fixture.adopt(&name(2));
    fixture.cache.remove(&name(1).attachment).unwrap();
    fixture.cache.remove(&name(1).attachment).unwrap();
    assert!(!fixture.has(&name(1)) && !fixture.has(&encrypted(1)) && fixture.has(&name(2)));
    assert_eq!(fixture.files_and_bytes(), (1, SPACE));
    fixture.cache.discard(&name(2).attachment);
    assert_eq!(fixture.files_and_bytes(), (0, 0));
    assert_eq!(fixture.cache.totals().discarded, 1);
}

#[test]
fn file_of_another_size_is_discarded() {
    let fixture = Fixture::new(10);
    for (number, size) in [(1, SIZE - 1), (2, SIZE + 1), (3, 0)] {
        fixture.adopt(&name(number));
        fs::write(fixture.path(&name(number)), vec![7; size]).unwrap();
        assert!(read(&fixture.cache, &name(number)).is_none());
        assert!(!fixture.has(&name(number)));
    }
    assert_eq!(fixture.cache.totals().discarded, 3);
    assert_eq!(fixture.files_and_bytes(), (0, 0));
}

#[test]
fn anyone_may_delete_files() {
    let fixture = Fixture::new(2);
    fixture.adopt(&name(1));
    fs::remove_dir_all(fixture.state.path().join("cache")).unwrap();
    assert!(read(&fixture.cache, &name(1)).is_none());
    assert_eq!(fixture.files_and_bytes(), (0, 0));
    // A file that is gone frees nothing.
    fixture.adopt(&name(2));
    fixture.adopt(&name(3));
    fs::remove_file(fixture.path(&name(2))).unwrap();
    assert_eq!(fixture.cache.make_room(2 * SPACE), SPACE);
    assert_eq!(fixture.files_and_bytes(), (0, 0));
}

#[test]
fn scan_counts_what_is_there_and_leaves_the_rest() {
    let mut fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    fixture.adopt(&encrypted(2));
    let root = fixture.state.path().join("cache");
    let uuid = name(3).attachment.uuid;
    let foreign = [
        root.join("DOE^JOHN.dcm"),
        root.join("9e/notes"),
        root.join("9e/37/patient.txt"),
        // Not the folder of this file.
        root.join("9e/37").join(format!("{uuid}.1")),
        root.join("AB"),
    ];
    foreign.iter().for_each(|path| fs::write(path, b"content").unwrap());
    fs::create_dir_all(root.join("00/11")).unwrap();
    fixture.restart(10);
    assert!(!fixture.cache.totals().complete);
    // Reads and stores work before the scan.
    assert!(read(&fixture.cache, &name(1)).is_some());
    fixture.adopt(&name(4));
    fixture.cache.scan(&never);
    let CacheTotals { files, bytes, complete, discarded, .. } = fixture.cache.totals();
    assert_eq!((files, bytes, complete, discarded), (3, 3 * SPACE, true, 0));
    assert!(foreign.iter().all(|path| path.exists()));
    // Left by a process that was killed.
    assert!(!root.join("00").exists());
    fixture.cache.clear(&never);
    assert_eq!(fixture.files_and_bytes(), (0, 0));
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn scan_can_be_stopped() {
    let mut fixture = Fixture::new(100);
    (0..20).for_each(|number| fixture.adopt(&name(number)));
    fixture.restart(100);
    fixture.cache.scan(&|| true);
    let totals = fixture.cache.totals();
    assert_eq!((totals.files, totals.complete), (1, false));
}

#[test]
fn without_a_cache_its_files_are_deleted() {
    let mut fixture = Fixture::new(10);
    (0..10).for_each(|number| fixture.adopt(&name(number)));
    fixture.restart(0);
    fixture.cache.scan(&never);
    assert_eq!(fs::read_dir(fixture.state.path().join("cache")).unwrap().count(), 0);
    assert!(fixture.cache.totals().complete);
}

#[test]
fn room_is_made_before_the_scan_too() {
    let mut fixture = Fixture::new(10);
    (0..6).for_each(|number| fixture.adopt(&name(number)));
    fixture.restart(10);
    fixture.adopt(&name(6));
    assert_eq!(fixture.cache.make_room(2 * SPACE + 1), 3 * SPACE);
    assert_eq!((0..6).filter(|number| fixture.has(&name(*number))).count(), 4);
    fixture.cache.scan(&never);
    assert_eq!(fixture.files_and_bytes(), (4, 4 * SPACE));
    assert_eq!(fixture.cache.make_room(u64::MAX), 4 * SPACE);
    assert_eq!(fixture.cache.make_room(1), 0);
}

#[test]
fn free_space_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let options = CacheOptions { max_bytes: u64::MAX, keep_free: u64::MAX };
    let cache = Cache::new(state.path().join("cache"), state.path().join("tmp"), options);
    let fixture = Fixture { state, cache };
    fixture.adopt(&name(1));
    // Nothing is read into the cache when the disk is nearly full.
    assert!(fixture.fill(&name(2), &[b"content"]).is_none());
    assert_eq!(fixture.files_and_bytes(), (1, SPACE));
    fixture.cache.shrink();
    assert_eq!(fixture.files_and_bytes(), (0, 0));
}

#[test]
fn cache_of_an_orthanc_that_ended_is_taken_over() {
    let ended = Fixture::new(10);
    ended.adopt(&name(1));
    ended.set_last_use(&name(1), 5 * HOUR);
    ended.adopt(&encrypted(2));
    ended.adopt_bytes(&name(3), 100 * SIZE);
    let fixture = Fixture::new(10);
    fixture.adopt(&encrypted(2));
    fixture.cache.take_over(&ended.state.path().join("cache"), &never);
    assert_eq!(fixture.files_and_bytes(), (2, 2 * SPACE));
    assert_eq!(read(&fixture.cache, &name(1)).unwrap(), vec![7; SIZE]);
    assert_eq!(fs::read_dir(ended.state.path().join("cache")).unwrap().count(), 0);
    fixture.cache.take_over(&ended.state.path().join("none"), &never);
}

#[test]
fn reads_do_not_wait_for_the_disk() {
    let mut fixture = Fixture::new(10);
    fixture.adopt(&name(1));
    fixture.restart(10);
    // Held by a scan, an eviction or an insertion while it waits for the disk.
    let cache = fixture.cache.clone();
    let _folders: Vec<_> = (0..SHARDS).map(|shard| cache.0.index.lock_folders(shard)).collect();
    let _evicting = cache.0.evicting.lock();
    let reader = fixture.cache.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let known = reader.open(&name(1).attachment, true).is_some();
        let unknown = reader.open(&name(2).attachment, true).is_some();
        sender.send((known, unknown)).unwrap();
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok((true, false)));
}

#[test]
fn broken_folder_works_as_no_cache() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("cache"), b"a file").unwrap();
    fs::write(state.path().join("tmp"), b"a file").unwrap();
    let fixture = Fixture { cache: open(state.path(), 10 * SPACE), state };
    fixture.cache.scan(&never);
    fixture.adopt(&name(1));
    assert!(fixture.fill(&name(2), &[b"content"]).is_none());
    assert!(read(&fixture.cache, &name(1)).is_none());
    fixture.cache.shrink();
    fixture.cache.discard(&name(1).attachment);
    fixture.cache.remove(&name(1).attachment).unwrap();
    fixture.cache.clear(&never);
    assert_eq!(fixture.cache.make_room(1), 0);
    assert_eq!(fixture.files_and_bytes(), (0, 0));
}

/// A folder in place of a file, which cannot be deleted as a file.
#[test]
fn undeletable_files_do_not_stop_evictions() {
    let fixture = Fixture::new(1000);
    (0..100).for_each(|number| fixture.adopt(&name(number)));
    for number in 0..10 {
        fs::remove_file(fixture.path(&name(number))).unwrap();
        fs::create_dir(fixture.path(&name(number))).unwrap();
        fixture.cache.0.index.note_use(&Key::new(&name(number)).unwrap(), 1);
    }
    assert_eq!(fixture.cache.make_room(50 * SPACE), 50 * SPACE);
    assert_eq!(fixture.files_and_bytes(), (50, 50 * SPACE));
    // If nothing can be deleted, it gives up after a few.
    assert_eq!(fixture.cache.make_room(u64::MAX), 40 * SPACE);
    assert_eq!(fixture.cache.make_room(u64::MAX), 0);
    assert_eq!(fixture.files_and_bytes(), (10, 10 * SPACE));
}

#[test]
fn errors_are_logged_once_a_minute() {
    let fixture = Fixture::new(10);
    fixture.cache.report("do this", &"no");
    let first = *fixture.cache.0.reported.lock();
    assert!(first.is_some());
    fixture.cache.report("do this", &"no");
    assert_eq!(*fixture.cache.0.reported.lock(), first);
}
