//! Many threads that need file keys at once.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use conformance::{LoadedPlugin, eventually, uuid};
use fake_cloud::{GoogleOptions, Operation};
use fake_orthanc::FakeOrthancOptions;
use serde_json::{Value, json};

use crate::cloud::Google;
use crate::plugin::{configured, server};

const THREADS: usize = 16;

/// Runs `work` in all threads, which get the numbers from `first` on.
fn in_threads(
    first: usize,
    each: usize,
    work: impl Fn(usize) -> Result<()> + Copy + Send + Sync,
) -> Result<()> {
    thread::scope(|scope| {
        let numbers = |index| first + index * each..first + (index + 1) * each;
        let thread = |index| scope.spawn(move || numbers(index).try_for_each(work));
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    })
}

/// Loads the plugin with these changes of `StorageEncryption`.
fn load(encryption: &Value) -> Result<(GoogleOptions, Value, LoadedPlugin<Google>)> {
    let (options, server) = server()?;
    let configuration = configured(&server, encryption);
    let plugin = LoadedPlugin::load(server, configuration.clone())?;
    Ok((options, configuration, plugin))
}

/// The key that is wrapped at start is the first one. The next one is wrapped before it is needed.
#[test]
fn key_is_wrapped_for_10_000_attachments() -> Result<()> {
    let (options, _, plugin) = load(&json!({"KeyDecayCount": 10_000}))?;
    let store = |number| plugin.create(&uuid(number), b"content");
    in_threads(0, 8992 / THREADS, store)?;
    assert_eq!(options.keys.plaintexts().len(), 1);
    in_threads(10_000, 1, store)?;
    eventually("the next key", Duration::from_secs(30), || options.keys.plaintexts().len() == 2)?;
    let hold = plugin.server.hold(Operation::WrapKey);
    // The first key is used up, and no store waits.
    in_threads(20_000, 8976 / THREADS, store)?;
    hold.release();
    assert_eq!(options.keys.plaintexts().len(), 2);
    assert_eq!(plugin.read(&uuid(10_000))?, b"content");
    assert_eq!(plugin.server.requests().of(Operation::UnwrapKey), 0);
    plugin.check()
}

#[test]
fn each_attachment_may_have_its_key() -> Result<()> {
    // With a pool, the key that is wrapped at start is used.
    for (pool, at_start) in [(1000, 0), (0, 1)] {
        let (options, _, plugin) = load(&json!({"KeyDecayCount": 1, "KeyPoolSize": pool}))?;
        in_threads(0, 20, |number| plugin.create(&uuid(number), b"content"))?;
        assert_eq!(options.keys.plaintexts().len(), 20 * THREADS + at_start, "{pool}");
        let unwraps = || plugin.server.requests().of(Operation::UnwrapKey);
        assert_eq!(unwraps(), 0);
        in_threads(0, 20, |number| {
            ensure!(plugin.read(&uuid(number))? == b"content", "other content");
            Ok(())
        })?;
        assert_eq!(unwraps(), if pool == 0 { 20 * THREADS as u64 } else { 0 }, "{pool}");
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn key_that_many_threads_need_is_unwrapped_once() -> Result<()> {
    let (_, configuration, mut plugin) = load(&json!({}))?;
    in_threads(0, 10, |number| plugin.create(&uuid(number), b"content"))?;
    for is_whole in [true, false] {
        plugin.orthanc.reset(FakeOrthancOptions::with_configuration(configuration.clone()))?;
        plugin.server.reset_counts();
        let hold = plugin.server.hold(Operation::UnwrapKey);
        let plugin = &plugin;
        thread::scope(|scope| {
            let readers = scope.spawn(move || {
                in_threads(0, 10, |number| {
                    let uuid = uuid(number);
                    let read = if is_whole { plugin.read(&uuid) } else { plugin.range(&uuid, 0, 7) };
                    ensure!(read? == b"content", "other content");
                    Ok(())
                })
            });
            let is_asked = hold.wait_until(1, Duration::from_secs(30));
            // Until all threads wait for the key.
            let all_read = || {
                let counts = plugin.server.requests();
                counts.of(Operation::GetObject) + counts.of(Operation::GetObjectRange) >= THREADS as u64
            };
            eventually("all threads read", Duration::from_secs(30), all_read)?;
            hold.release();
            readers.join().map_err(|_| anyhow!("panicked"))??;
            ensure!(is_asked, "the service was not asked");
            Ok(())
        })?;
        assert_eq!(plugin.server.requests().of(Operation::UnwrapKey), 1);
        plugin.check()?;
    }
    Ok(())
}
