//! Many threads, and many files.

use std::collections::BTreeMap;

use super::*;

/// What the index knows of each file.
fn known(cache: &Cache) -> BTreeMap<String, u64> {
    let keys = (0..SHARDS).flat_map(|shard| cache.0.index.used_within(shard, &(0..=u32::MAX)));
    keys.map(|key| (key.name().unwrap().file_name(), cache.0.index.size(&key).unwrap())).collect()
}

/// One random use of the cache.
fn use_at_random(fixture: &Fixture) {
    let mut random = rand::rng();
    // Few names, so that threads meet.
    let number = random.random_range(0..3);
    let name = if random.random() { name(number) } else { encrypted(number) };
    match random.random_range(0..100) {
        0..50 => fixture.adopt_bytes(&name, random.random_range(0..3) * 4096),
        // It waits for the disk.
        50..51 => drop(fixture.fill(&name, &[&vec![7; random.random_range(0..3 * SIZE)]])),
        51..60 => drop(fixture.cache.open(&name.attachment, name.encrypted)),
        60..75 => fixture.cache.remove(&name.attachment).unwrap(),
        75..78 => fixture.cache.discard(&name.attachment),
        78..80 => drop(fs::remove_file(fixture.path(&name))),
        80..90 => drop(fixture.cache.make_room(random.random_range(0..2 * SPACE))),
        _ => fixture.cache.scan(&never),
    }
}

#[test]
fn counts_are_right_whatever_threads_do() {
    for files in [3, 3, 3, 1000, 1000, 1000] {
        let fixture = Fixture::new(files);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| use_at_random(&fixture)));
            }
        });
        // Opening a file that somebody else deleted corrects the index.
        for number in 0..3 {
            for first in [false, true] {
                drop(fixture.cache.open(&name(number).attachment, first));
            }
        }
        fixture.cache.shrink();
        assert_eq!(fixture.unfinished(), 0);
        let fresh = open(fixture.state.path(), u64::MAX);
        fresh.scan(&never);
        assert_eq!(known(&fixture.cache), known(&fresh));
        assert_eq!(fixture.files_and_bytes(), (fresh.totals().files, fresh.totals().bytes));
        assert!(fresh.totals().bytes <= files * SPACE);
    }
}

/// Creates a million empty files, in about a minute. `ORTHANC_CACHE` names a folder, which is kept: the first run
/// creates the files there, later ones only scan them, for instance after the system's cache was dropped.
#[test]
#[ignore = "creates a million files"]
fn million_files_are_scanned_within_a_minute() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("ORTHANC_CACHE").map(PathBuf::from);
    let state = kept.unwrap_or_else(|| temporary.path().to_owned());
    let names: BTreeSet<PathBuf> = (0..1_000_000).map(|number| name(number).deep()).collect();
    if !state.join("cache").exists() {
        for file in &names {
            let path = state.join("cache").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap();
        }
    }
    let cache = open(&state, u64::MAX);
    let start = Instant::now();
    cache.scan(&never);
    let scanned = start.elapsed();
    println!("{scanned:?} for the scan");
    assert_eq!(cache.totals().files, 1_000_000);
    assert!(scanned < Duration::from_secs(60), "{scanned:?}");
}
