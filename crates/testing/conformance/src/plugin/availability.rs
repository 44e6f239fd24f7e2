//! Servers that are unreachable at the start and during operations.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_SEQUENCE_OF_CALLS, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, assert_no_secret, configuration, content, done, eventually, library,
    load, refusal, request, section, with,
};

tests! {
    EveryCloud:
        permanent_errors_prevent_the_start,
        unreachable_server_does_not_prevent_the_start,
        unready_server_does_not_prevent_the_start,
        server_may_restart_during_an_operation;
    OneCloud:
        closed_idle_connections_are_replaced,
        callbacks_after_finalize_fail,
}

/// More than any of these tests needs on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn permanent_errors_prevent_the_start<C: Cloud>() -> Result<()> {
    for number in 0.. {
        let (server, complete) = C::with_every_secret()?;
        let mut refusals = C::refusals(&server.endpoint());
        refusals.push(crate::Refusal {
            changes: json!({C::BUCKET_OPTION: "missing"}),
            answer: format!("HTTP 404 {}", C::NO_SUCH_BUCKET),
            secret: None,
        });
        let Some(refused) = refusals.into_iter().nth(number) else { break };
        let section = with(with(complete, &json!({C::HTTP_LOG_OPTION: true})), &refused.changes);
        let outcome = load::<C>(configuration::<C>(section))?;
        let logs = format!("{outcome:?}");
        let line = refusal::<C, _>(outcome)?;
        assert!(
            line.contains(C::URL.trim_end_matches(C::BUCKET)) && line.contains(&refused.answer),
            "{line}"
        );
        // After HTTP 401, credentials that are not in the section are loaded again.
        let repeated = u64::from(refused.answer.starts_with("HTTP 401"));
        assert!(server.requests().total <= C::REQUESTS_AT_START + repeated, "no retries");
        assert_no_secret::<C>(&logs, refused.secret);
    }
    Ok(())
}

fn unreachable_server_does_not_prevent_the_start<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.stop();
    let section = section::<C>(&server, &json!({"MaxRetries": 1}));
    let plugin = LoadedPlugin::<C>::load(server, configuration::<C>(section))?;
    assert_eq!(plugin.orthanc.registered(), StorageAreaVersion::Two);
    let warnings = plugin.lines(LogLevel::Warning);
    let is_about_connection = |line: &String| line.contains(C::URL) && line.contains("Connection refused");
    assert!(warnings.iter().any(is_about_connection), "{warnings:#?}");
    assert_eq!(plugin.orthanc.create(UUID, DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
    plugin.server.start_again()?;
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.read(UUID)?, b"x");
    plugin.check()
}

fn unready_server_does_not_prevent_the_start<C: Cloud>() -> Result<()> {
    let overloaded = format!("HTTP 503 {}", C::error_code("SlowDown"));
    // The time to build the library is not part of the start.
    library::<C>()?;
    for (fault, cause) in [(Fault::slow_down(), overloaded.as_str()), (Fault::Delay(LONG), "1 s")] {
        let server = C::server()?;
        server.faults().push(FaultRule::new(fault).on(request::READ).times(usize::MAX));
        let section = section::<C>(&server, &json!({"ConnectionTimeout": 1}));
        let start = Instant::now();
        let plugin = LoadedPlugin::<C>::load(server, configuration::<C>(section))?;
        assert!(start.elapsed() < Duration::from_secs(5), "{cause}: {:?}", start.elapsed());
        let warnings = plugin.lines(LogLevel::Warning);
        let is_expected = |line: &String| line.contains(C::URL) && line.contains(cause);
        assert!(warnings.iter().any(is_expected), "{cause}: {warnings:#?}");
        plugin.server.faults().clear();
        plugin.create(UUID, b"x")?;
        assert_eq!(plugin.read(UUID)?, b"x");
        plugin.check()?;
    }
    Ok(())
}

/// Restarts the server in the middle of `operation`, after it has transferred some of the bytes.
fn interrupt<C: Cloud, T: Send>(
    plugin: &LoadedPlugin<C>,
    transferred: impl Fn() -> u64,
    operation: impl FnOnce() -> Result<T, i32> + Send,
) -> Result<T> {
    plugin.server.reset_counts();
    plugin.server.bandwidth_per_connection(Some(8_000_000));
    thread::scope(|scope| -> Result<T> {
        let running = scope.spawn(operation);
        eventually("the operation transfers bytes", LONG, || transferred() > 2_000_000)?;
        plugin.server.stop();
        plugin.server.bandwidth_per_connection(None);
        thread::sleep(Duration::from_millis(300));
        plugin.server.start_again()?;
        done(running.join().map_err(|_| anyhow!("panicked"))?)
    })
}

fn server_may_restart_during_an_operation<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    let bytes = content(20_000_000);
    let received = || plugin.server.requests().body_bytes_received;
    interrupt(&plugin, received, || plugin.orthanc.create(UUID, DICOM, &bytes))?;
    assert!(plugin.object(KEY)? == bytes);
    let sent = || plugin.server.requests().body_bytes_sent;
    assert!(interrupt(&plugin, sent, || plugin.orthanc.read_whole(UUID, DICOM))? == bytes);
    let range = interrupt(&plugin, sent, || plugin.orthanc.read_range(UUID, DICOM, 1, bytes.len() - 1))?;
    assert!(range == bytes[1..]);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn closed_idle_connections_are_replaced<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 0}))?;
    plugin.create(UUID, &content(1_000_000))?;
    for _ in 0..5 {
        plugin.server.stop();
        plugin.server.start_again()?;
        plugin.create(UUID, &content(1_000_000))?;
        assert!(plugin.read(UUID)? == content(1_000_000));
    }
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn callbacks_after_finalize_fail<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::start()?;
    plugin.create(UUID, b"x")?;
    plugin.orthanc.finalize();
    plugin.server.reset_counts();
    assert_eq!(plugin.orthanc.create(UUID, DICOM, b"x"), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 0, 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(plugin.orthanc.remove(UUID, DICOM), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(plugin.requests(), 0);
    // The server may notice a closed connection a moment later.
    eventually("all connections are closed", LONG, || plugin.server.connections_open() == 0)?;
    plugin.check()
}
