//! A server that is away: at the start, in the middle of operations, and while objects are to be deleted.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use fake_cloud::{BucketServer, Fault, FaultRule};
use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{BAD_SEQUENCE_OF_CALLS, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, KEY, Setup, UUID, configuration, content, done, eventually, load, object_url, refusal, request,
    section, uuid,
};

tests![
    wrong_credentials_and_a_missing_bucket_stop_the_start_with_a_clear_line,
    a_server_that_is_away_at_the_start_is_a_warning_and_is_used_when_it_comes,
    a_server_that_is_overloaded_at_the_start_is_a_warning,
    a_server_that_restarts_in_the_middle_of_an_operation_is_not_seen_by_orthanc,
    connections_that_the_server_has_closed_meanwhile_are_not_seen_by_orthanc,
    a_deletion_while_the_server_is_away_is_done_when_it_comes_back,
    a_deletion_that_fails_in_the_background_is_an_error_line,
    a_plugin_with_an_unfinished_deletion_ends_soon_and_says_so,
    a_plugin_that_ends_waits_for_its_deletions,
    callbacks_after_the_end_fail_and_touch_nothing,
];

/// More than any of these tests needs on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The one error line with which the plugin refuses to start on a server.
fn refused<C: Cloud>(server: &BucketServer, options: &Value) -> Result<String> {
    let line = refusal::<C, _>(load::<C>(configuration::<C>(section::<C>(server, options)))?)?;
    assert!(server.requests().total <= C::REQUESTS_AT_START, "it is not tried again");
    server.reset_counts();
    Ok(line)
}

fn wrong_credentials_and_a_missing_bucket_stop_the_start_with_a_clear_line<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    for refusal in C::refusals(&server.endpoint()) {
        let line = refused::<C>(&server, &refusal.changes)?;
        let beginning = format!("cannot check {}: {}", C::URL, refusal.cause);
        assert!(line.starts_with(&beginning), "{line}\n{beginning}");
    }
    let line = refused::<C>(&server, &json!({C::BUCKET_OPTION: "missing"}))?;
    let missing = format!(
        "cannot check {}: the bucket does not exist: create it, or correct its name in the configuration (HTTP 404 {}: ",
        C::URL.replace(C::BUCKET, "missing"),
        C::NO_SUCH_BUCKET
    );
    assert!(line.starts_with(&missing), "{line}");
    Ok(())
}

fn a_server_that_is_away_at_the_start_is_a_warning_and_is_used_when_it_comes<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.stop();
    let section = section::<C>(&server, &json!({"MaxRetries": 1}));
    let setup = Setup::<C>::load(server, configuration::<C>(section))?;
    assert_eq!(setup.host.registered(), StorageAreaVersion::Two);
    let warnings = setup.lines(LogLevel::Warning);
    let expected = format!(
        "cannot check {}: cannot connect: Connection refused (os error 111); going on, since the server may come up later",
        C::URL
    );
    assert!(warnings.contains(&expected), "{warnings:#?}");
    assert_eq!(setup.host.create(UUID, DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
    setup.server.start_again()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, b"x");
    setup.check()
}

fn a_server_that_is_overloaded_at_the_start_is_a_warning<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.faults().push(FaultRule::new(Fault::slow_down()).on(request::READ));
    let section = section::<C>(&server, &json!({}));
    let setup = Setup::<C>::load(server, configuration::<C>(section))?;
    let warnings = setup.lines(LogLevel::Warning);
    let answer = format!("HTTP 503 {}", C::error_code("SlowDown"));
    assert!(warnings.iter().any(|line| line.contains(&answer)), "{warnings:#?}");
    done(setup.host.create(UUID, DICOM, b"x"))
}

/// Stops the server in the middle of `operation`, of whose bytes the server then has seen a part, and starts it again.
fn interrupt<C: Cloud, T: Send>(
    setup: &Setup<C>,
    seen: impl Fn() -> u64,
    operation: impl FnOnce() -> Result<T, i32> + Send,
) -> Result<T> {
    setup.server.reset_counts();
    setup.server.bandwidth_per_connection(Some(8_000_000));
    std::thread::scope(|scope| -> Result<T> {
        let operation = scope.spawn(operation);
        eventually("the operation is in its middle", LONG, || seen() > 2_000_000)?;
        setup.server.stop();
        setup.server.bandwidth_per_connection(None);
        std::thread::sleep(Duration::from_millis(300));
        setup.server.start_again()?;
        done(operation.join().map_err(|_| anyhow!("panicked"))?)
    })
}

fn a_server_that_restarts_in_the_middle_of_an_operation_is_not_seen_by_orthanc<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    let bytes = content(20_000_000);
    let received = || setup.server.requests().body_bytes_received;
    interrupt(&setup, received, || setup.host.create(UUID, DICOM, &bytes))?;
    assert!(setup.server.object(C::BUCKET, KEY).is_some_and(|stored| stored.bytes == bytes));
    let sent = || setup.server.requests().body_bytes_sent;
    assert!(interrupt(&setup, sent, || setup.host.read_whole(UUID, DICOM))? == bytes);
    let range = interrupt(&setup, sent, || setup.host.read_range(UUID, DICOM, 1, bytes.len() - 1))?;
    assert!(range == bytes[1..]);
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

fn connections_that_the_server_has_closed_meanwhile_are_not_seen_by_orthanc<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::with(&json!({"MaxRetries": 0}))?;
    done(setup.host.create(UUID, DICOM, &content(1_000_000)))?;
    for _ in 0..5 {
        setup.server.stop();
        setup.server.start_again()?;
        done(setup.host.create(UUID, DICOM, &content(1_000_000)))?;
        assert!(done(setup.host.read_whole(UUID, DICOM))? == content(1_000_000));
    }
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

fn a_deletion_while_the_server_is_away_is_done_when_it_comes_back<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    done(setup.host.create(&uuid(1), DICOM, b"y"))?;
    setup.server.stop();
    std::thread::scope(|scope| -> Result<()> {
        let start = Instant::now();
        let removals = [UUID.to_owned(), uuid(1)].map(|uuid| {
            let host = &setup.host;
            scope.spawn(move || host.remove(&uuid, DICOM))
        });
        for removal in removals {
            done(removal.join().map_err(|_| anyhow!("panicked"))?)?;
        }
        // Orthanc's database is locked all the while.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        Ok(())
    })?;
    let warnings = setup.lines(LogLevel::Warning);
    let line = format!(
        "{} is not deleted yet: the server does not answer; it is tried further",
        object_url::<C>(KEY)
    );
    assert_eq!(warnings.iter().filter(|warning| **warning == line).count(), 1, "{warnings:#?}");
    assert_eq!(setup.stored().len(), 2);
    setup.server.start_again()?;
    eventually("the objects are deleted", LONG, || setup.stored().is_empty())?;
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

fn a_deletion_that_fails_in_the_background_is_an_error_line<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.server.stop();
    done(setup.host.remove(UUID, DICOM))?;
    setup.fault(request::REMOVE, Fault::status(403, "AccessDenied"), 1);
    setup.server.start_again()?;
    eventually("the deletion fails", LONG, || !setup.errors().is_empty())?;
    let line = setup.only_error();
    assert!(line.starts_with(&format!("cannot delete {}: access denied: ", object_url::<C>(KEY))), "{line}");
    assert!(line.ends_with("; the object stays in the bucket, though Orthanc has no use for it"), "{line}");
    setup.check()
}

fn a_plugin_with_an_unfinished_deletion_ends_soon_and_says_so<C: Cloud>() -> Result<()> {
    let mut setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.server.stop();
    done(setup.host.remove(UUID, DICOM))?;
    let start = Instant::now();
    setup.host.finalize();
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let line = setup.only_error();
    assert_eq!(line, "1 deletions did not come to an end: their objects stay in the bucket");
    setup.check()
}

fn a_plugin_that_ends_waits_for_its_deletions<C: Cloud>() -> Result<()> {
    let mut setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.server.stop();
    done(setup.host.remove(UUID, DICOM))?;
    setup.server.start_again()?;
    setup.host.finalize();
    assert!(setup.stored().is_empty());
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}

fn callbacks_after_the_end_fail_and_touch_nothing<C: Cloud>() -> Result<()> {
    let mut setup = Setup::<C>::start()?;
    done(setup.host.create(UUID, DICOM, b"x"))?;
    setup.host.finalize();
    setup.server.reset_counts();
    assert_eq!(setup.host.create(UUID, DICOM, b"x"), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(setup.host.read_range(UUID, DICOM, 0, 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(setup.host.remove(UUID, DICOM), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(setup.server.requests().total, 0);
    // The server may be a moment late to notice that a connection was closed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while setup.server.connections_open() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(setup.server.connections_open(), 0);
    setup.check()
}
