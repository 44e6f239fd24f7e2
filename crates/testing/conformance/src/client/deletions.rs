//! Deletion of many objects at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use bucket::{Cause, ReadRange, StorageError};
use fake_cloud::{Fault, FaultRule, Operation};
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::names::{ENCODED, ODD};
use crate::fixture::eventually;

tests! {
    EveryCloud:
        many_objects_take_few_requests,
        odd_names_are_deleted_byte_for_byte,
        encoded_names_are_not_deleted,
        protected_object_does_not_fail_the_others,
        bulk_deletion_in_a_missing_bucket_fails,
        missing_support_is_remembered,
        server_that_always_fails_bulk_requests_has_no_support,
        denied_deletions_stay_bulk_requests,
        unavailable_server_ends_the_call_soon,
        broken_bulk_request_is_sent_again,
        dropped_deletion_ends_its_requests;
    OneCloud:
        unavailable_server_ends_single_requests_soon,
        object_that_cannot_be_deleted_is_passed_over,
}

const LIMIT: Duration = Duration::from_secs(30);
/// Requests for single objects at once.
const CONNECTIONS: usize = 4;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("folder/{number}")).collect()
}

/// A client of a bucket with these objects.
fn with_objects<C: Cloud>(names: &[String]) -> Result<Client<C>> {
    let client = Client::start()?;
    insert(&client, names);
    Ok(client)
}

fn insert<C: Cloud>(client: &Client<C>, names: &[String]) {
    for name in names {
        client.server.insert(C::BUCKET, name, "content");
    }
}

fn delete<C: Cloud>(client: &Client<C>, names: &[String]) -> Vec<Result<(), StorageError>> {
    client.runtime.block_on(client.bucket.delete_many(names))
}

/// Deletes objects, each of which must succeed.
fn delete_all<C: Cloud>(client: &Client<C>, names: &[String]) -> Result<()> {
    let results = delete(client, names);
    ensure!(results.len() == names.len(), "{} results", results.len());
    Ok(results.into_iter().collect::<Result<_, _>>()?)
}

/// Returns the numbers of bulk requests and of single requests since the start or the last call. There must be no
/// others.
fn requests<C: Cloud>(client: &Client<C>) -> (u64, u64) {
    let requests = client.server.requests();
    let counts = (requests.of(Operation::DeleteObjects), requests.of(Operation::DeleteObject));
    assert_eq!(client.requests(), counts.0 + counts.1);
    counts
}

fn fault<C: Cloud>(client: &Client<C>, operation: Operation, fault: Fault) {
    client.server.faults().push(FaultRule::new(fault).on(operation).times(usize::MAX));
}

fn many_objects_take_few_requests<C: Cloud>() -> Result<()> {
    let client = with_objects::<C>(&["folder/0", "folder/99", "folder/2499", "other"].map(str::to_owned))?;
    delete_all(&client, &names(2500))?;
    assert_eq!(requests(&client), (2500_u64.div_ceil(C::LARGEST_DELETION), 0));
    assert_eq!(client.keys(), ["other"]);
    for (count, expected) in [(0, (0, 0)), (1, (0, 1)), (2, (1, 0))] {
        delete_all(&client, &names(count))?;
        assert_eq!(requests(&client), expected, "{count}");
    }
    delete_all(&client, &["other", "folder/0", "other"].map(str::to_owned))?;
    assert_eq!((requests(&client), client.keys().len()), ((1, 0), 0));
    Ok(())
}

fn odd_names_are_deleted_byte_for_byte<C: Cloud>() -> Result<()> {
    let mut names: Vec<String> = ODD.map(str::to_owned).into();
    names.extend(ODD.map(|name| format!("folder/{name}/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm")));
    let client = Client::<C>::start()?;
    for name in &names {
        client.put(name, "content")?;
    }
    client.requests();
    delete_all(&client, &names)?;
    assert_eq!((requests(&client), client.keys()), ((1, 0), Vec::new()));
    Ok(())
}

fn encoded_names_are_not_deleted<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    for name in ENCODED {
        client.put(name, "content")?;
    }
    client.requests();
    let (deleted, mut left): (Vec<_>, Vec<_>) =
        ENCODED.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    left.sort_by_key(|(_, name)| *name);
    let deleted: Vec<_> = deleted.into_iter().map(|(_, name)| name.to_owned()).collect();
    delete_all(&client, &deleted)?;
    assert_eq!(requests(&client), (1, 0));
    assert_eq!(client.keys(), left.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
    Ok(())
}

fn protected_object_does_not_fail_the_others<C: Cloud>() -> Result<()> {
    let names = names(5);
    let client = with_objects::<C>(&names)?;
    client.server.protect(C::BUCKET, &names[2]);
    let single = failed(client.delete(&names[2]))?;
    client.requests();
    for _ in 0..2 {
        let mut results = delete(&client, &names);
        let error = failed(results.remove(2))?;
        assert_eq!((&error.cause, error.status()), (&single.cause, single.status()), "{error}");
        assert!(!error.transient && error.object == single.object, "{error}");
        assert_eq!(results, vec![Ok(()); 4]);
        assert_eq!((requests(&client), client.keys()), ((1, 0), vec![names[2].clone()]));
    }
    Ok(())
}

fn bulk_deletion_in_a_missing_bucket_fails<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({C::BUCKET_OPTION: "missing"}))?;
    for result in delete(&client, &names(2500)) {
        let error = failed(result)?;
        assert_eq!((&error.cause, error.transient), (&Cause::BucketMissing, false), "{error}");
    }
    let (bulk, single) = requests(&client);
    assert!(bulk == 1 && single <= CONNECTIONS as u64, "{bulk} bulk requests, {single} single ones");
    Ok(())
}

fn missing_support_is_remembered<C: Cloud>() -> Result<()> {
    let mut server = C::server()?;
    for (status, code) in [
        (501, "NotImplemented"),
        (405, "MethodNotAllowed"),
        (404, "NoSuchKey"),
        (403, "AccessDenied"),
        (400, "MalformedXML"),
        (411, "MissingContentLength"),
    ] {
        let client = Client::<C>::of(server, &json!({}))?;
        fault(&client, Operation::DeleteObjects, Fault::status(status, code));
        let names = names(10);
        for expected in [(1, 10), (0, 10)] {
            insert(&client, &names[1..]);
            delete_all(&client, &names)?;
            assert_eq!((requests(&client), client.keys().len()), (expected, 0), "{status}");
        }
        client.server.faults().clear();
        server = client.server;
    }
    Ok(())
}

fn server_that_always_fails_bulk_requests_has_no_support<C: Cloud>() -> Result<()> {
    let names = names(6);
    let client = Client::<C>::with(&json!({"MaxRetries": 0}))?;
    let one_failure = FaultRule::new(Fault::status(500, "InternalError")).on(Operation::DeleteObjects);
    // A success in between shows that the server does support them.
    for failures in [2, 2] {
        insert(&client, &names);
        client.server.faults().push(one_failure.clone().times(failures));
        for _ in 0..failures {
            for result in delete(&client, &names) {
                let error = failed(result)?;
                assert!(error.transient && error.status() == Some(500), "{error}");
            }
            assert_eq!((requests(&client), client.keys().len()), ((1, 0), 6));
        }
        delete_all(&client, &names)?;
        assert_eq!((requests(&client), client.keys().len()), ((1, 0), 0));
    }
    client.server.faults().push(one_failure.times(usize::MAX));
    let counts = [(1, 0), (1, 0), (1, 6), (0, 6)];
    for (call, expected) in counts.into_iter().enumerate() {
        let results = delete(&client, &names);
        assert_eq!(results.iter().all(Result::is_ok), call >= 2, "{results:?}");
        assert_eq!(requests(&client), expected);
    }
    Ok(())
}

fn denied_deletions_stay_bulk_requests<C: Cloud>() -> Result<()> {
    let names = names(600);
    let client = with_objects::<C>(&names[..5])?;
    for operation in [Operation::DeleteObjects, Operation::DeleteObject] {
        fault(&client, operation, Fault::status(403, "AccessDenied"));
    }
    for _ in 0..2 {
        for (result, name) in delete(&client, &names).into_iter().zip(&names) {
            let error = failed(result)?;
            assert_eq!((&error.cause, error.transient), (&Cause::Denied, false), "{error}");
            assert!(error.object.ends_with(name), "{error}");
        }
        assert_eq!(requests(&client), (1, CONNECTIONS as u64));
    }
    client.server.faults().clear();
    delete_all(&client, &names[..20])?;
    assert_eq!((requests(&client), client.keys().len()), ((1, 0), 0));
    Ok(())
}

fn unavailable_server_ends_the_call_soon<C: Cloud>() -> Result<()> {
    let names = names(2500);
    let client = with_objects::<C>(&names[..2])?;
    fault(&client, Operation::DeleteObjects, Fault::slow_down());
    for (result, name) in delete(&client, &names).into_iter().zip(&names) {
        let error = failed(result)?;
        assert_eq!((&error.cause, error.transient, error.status()), (&Cause::Busy, true, Some(503)));
        assert!(error.object.ends_with(name), "{error}");
    }
    // Two retries of the first request.
    assert_eq!((requests(&client), client.keys().len()), ((3, 0), 2));
    client.server.faults().clear();
    client.server.stop();
    for result in delete(&client, &names) {
        let error = failed(result)?;
        assert!(error.transient && matches!(error.cause, Cause::Network(_)), "{error}");
    }
    client.server.start_again()?;
    delete_all(&client, &names[..3])?;
    assert_eq!((requests(&client), client.keys().len()), ((1, 0), 0));
    Ok(())
}

fn broken_bulk_request_is_sent_again<C: Cloud>() -> Result<()> {
    let names = names(5);
    let client = Client::<C>::start()?;
    for fault in [
        Fault::CloseBeforeResponse,
        Fault::CloseAfterRequestBytes(10),
        Fault::ResetAfterResponseBytes(10),
        Fault::CloseAfterResponseBytes(100),
        Fault::status(503, "SlowDown"),
        Fault::status(500, "InternalError"),
    ] {
        insert(&client, &names);
        let rule = client.server.faults().push(FaultRule::new(fault.clone()).on(Operation::DeleteObjects));
        delete_all(&client, &names)?;
        assert_eq!((rule.fired(), requests(&client), client.keys().len()), (1, (2, 0), 0), "{fault:?}");
    }
    Ok(())
}

fn dropped_deletion_ends_its_requests<C: Cloud>() -> Result<()> {
    let names = names(20);
    let client = with_objects::<C>(&names)?;
    for (operation, count) in [(Operation::DeleteObjects, 1), (Operation::DeleteObject, CONNECTIONS)] {
        let hold = client.server.hold(operation);
        let bucket = client.bucket.clone();
        let some = names.clone();
        let deletion = client.runtime.spawn(async move { bucket.delete_many(&some).await });
        assert!(hold.wait_until(count, LIMIT), "{operation:?}");
        assert_eq!(hold.waiting(), count);
        deletion.abort();
        eventually("the end of the requests", LIMIT, || hold.waiting() == 0)?;
        hold.release();
        assert_eq!(client.keys().len(), names.len());
        client.server.reset_counts();
        fault(&client, Operation::DeleteObjects, Fault::status(501, "NotImplemented"));
    }
    assert_eq!(client.get(&names[0], ReadRange::Whole)?, b"content");
    Ok(())
}

/// A client of a server that does not support bulk requests.
fn without_support<C: Cloud>(names: &[String]) -> Result<Client<C>> {
    let client = Client::<C>::with(&json!({"MaxRetries": 0}))?;
    fault(&client, Operation::DeleteObjects, Fault::status(501, "NotImplemented"));
    delete_all(&client, &names[..2])?;
    assert_eq!(requests(&client), (1, 2));
    insert(&client, names);
    Ok(client)
}

fn unavailable_server_ends_single_requests_soon<C: Cloud>() -> Result<()> {
    let names = names(100);
    let client = without_support::<C>(&names)?;
    fault(&client, Operation::DeleteObject, Fault::slow_down());
    for (result, name) in delete(&client, &names).into_iter().zip(&names) {
        let error = failed(result)?;
        assert!(error.transient && error.object.ends_with(name), "{error}");
    }
    let (bulk, single) = requests(&client);
    assert!(bulk == 0 && (8..8 + CONNECTIONS as u64).contains(&single), "{single}");
    assert_eq!(client.keys().len(), names.len());
    Ok(())
}

fn object_that_cannot_be_deleted_is_passed_over<C: Cloud>() -> Result<()> {
    let names = names(30);
    for (status, code, transient) in [(500, "InternalError", true), (403, "AccessDenied", false)] {
        let client = without_support::<C>(&names)?;
        let rule = FaultRule::new(Fault::status(status, code)).on(Operation::DeleteObject);
        client.server.faults().push(rule.times(20));
        let (deleted, kept): (Vec<_>, Vec<_>) = delete(&client, &names).into_iter().partition(Result::is_ok);
        assert_eq!((deleted.len(), kept.len(), requests(&client)), (10, 20, (0, 30)));
        assert!(kept.into_iter().filter_map(Result::err).all(|error| error.transient == transient));
        assert_eq!(client.keys().len(), 20);
    }
    Ok(())
}
