//! Uploads whose answer is lost after the server has done the work, or has not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bucket::{Cause, Payload, UploadJournal};
use bytes::Bytes;
use fake_cloud::{Fault, FaultRule, Operation};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::multipart::{LARGE, in_parts};
use crate::fixture::{content, request};

tests! {
    EveryCloud:
        lost_answer_to_an_upload_is_not_a_failure,
        slow_confirmation_is_waited_for_while_the_server_answers,
        refusal_after_a_lost_answer_is_not_a_failure,
        upload_that_was_not_carried_out_fails,
        lost_completion_is_not_a_failure,
        lost_completion_of_another_object_fails,
        lost_completion_of_a_stream_is_not_a_failure,
        refused_upload_is_not_a_missing_object,
        unfinished_upload_can_be_aborted;
}

const SIZE: usize = 300_000;

/// Adds a fault to all requests for `operation`.
fn always<C>(client: &Client<C>, operation: Operation, fault: Fault) {
    client.server.faults().push(FaultRule::new(fault).on(operation).times(usize::MAX));
}

fn lost_answer_to_an_upload_is_not_a_failure<C: Cloud>() -> Result<()> {
    // The connection breaks at each attempt, or the answer comes after the time limit.
    for (options, fault, attempts) in [
        (json!({"MaxRetries": 1}), Fault::CloseBeforeResponse, 2),
        (json!({"RequestTimeout": 1}), Fault::Delay(Duration::from_secs(60)), 1),
    ] {
        let client = Client::<C>::with(&options)?;
        always(&client, request::CREATE, fault);
        client.put("object", content(SIZE))?;
        let requests = client.server.requests();
        let counts = (requests.of(request::CREATE), requests.of(request::HEAD), requests.total);
        assert_eq!(counts, (attempts, 1, attempts + 1), "one look, which compares the server's checksum");
        client.assert_stored("object", &content(SIZE));
    }
    Ok(())
}

fn slow_confirmation_is_waited_for_while_the_server_answers<C: Cloud>() -> Result<()> {
    // The question needs a second connection.
    let options = json!({"OutageTimeout": 1, "MaxConnections": 1, "TransferPoolSize": 1});
    let slow = Fault::Delay(Duration::from_secs(4));
    let client = Client::<C>::with(&options)?;
    client.server.faults().push(FaultRule::new(slow.clone()).on(request::CREATE));
    client.put("object", content(SIZE))?;
    client.assert_stored("object", &content(SIZE));
    let requests = client.server.requests();
    assert_eq!(requests.of(request::CREATE), 1);
    ensure!((4..=8).contains(&requests.of(request::HEAD)), "{requests:?}");

    // A server that says nothing else either is given up, however long it may take to confirm.
    let client = Client::<C>::with(&options)?;
    always(&client, request::CREATE, slow);
    always(&client, request::HEAD, Fault::Delay(Duration::from_secs(60)));
    let error = failed(client.put("object", content(SIZE)))?;
    assert_eq!(error.cause, Cause::Unanswered(Duration::from_secs(1)));
    ensure!(error.may_remain, "{error}");
    Ok(())
}

fn refusal_after_a_lost_answer_is_not_a_failure<C: Cloud>() -> Result<()> {
    // For example, these credentials may create objects, but not replace any.
    let client = Client::<C>::start()?;
    client.server.faults().push(FaultRule::new(Fault::CloseBeforeResponse).on(request::CREATE));
    always(&client, request::CREATE, Fault::status(403, "AccessDenied"));
    client.put("object", content(SIZE))?;
    client.assert_stored("object", &content(SIZE));
    Ok(())
}

fn upload_that_was_not_carried_out_fails<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({"MaxRetries": 1}))?;
    let older = content(SIZE + 1)[1..].to_vec();
    for (older, found) in [(None, "missing"), (Some(older), "of the same size")] {
        if let Some(older) = older {
            client.server.insert(C::BUCKET, "object", older);
        }
        for fault in [Fault::CloseAfterRequestBytes(100_000), Fault::status(500, "InternalError")] {
            client.server.faults().clear();
            always(&client, request::CREATE, fault.clone());
            let error = failed(client.put("object", content(SIZE)))?;
            assert!(error.transient && error.attempts == 2, "{found} with {fault:?}: {error}");
            assert_eq!(client.server.requests().of(request::HEAD), 1, "{found} with {fault:?}");
            client.server.reset_counts();
        }
        // Refusals that say that nothing was done need no look.
        client.server.faults().clear();
        always(&client, request::CREATE, Fault::status(429, "TooManyRequests"));
        failed(client.put("object", content(SIZE)))?;
        assert_eq!(client.server.requests().of(request::HEAD), 0, "{found}");
        client.server.reset_counts();
    }
    Ok(())
}

fn lost_completion_is_not_a_failure<C: Cloud>() -> Result<()> {
    let client = in_parts::<C>()?;
    let lost = FaultRule::new(Fault::CloseBeforeResponse).on(Operation::CompleteMultipartUpload);
    client.server.faults().push(lost);
    client.put("object", content(LARGE))?;
    client.assert_stored("object", &content(LARGE));
    let requests = client.server.requests();
    let operations = [Operation::CompleteMultipartUpload, request::HEAD, Operation::AbortMultipartUpload];
    assert_eq!(operations.map(|operation| requests.of(operation)), [2, 1, 0]);
    Ok(())
}

fn lost_completion_of_another_object_fails<C: Cloud>() -> Result<()> {
    let client = in_parts::<C>()?;
    let lost = FaultRule::new(Fault::CloseBeforeResponse).on(Operation::CompleteMultipartUpload);
    client.server.faults().push(lost);
    let other = content(LARGE + 1)[1..].to_vec();
    always(&client, request::HEAD, Fault::ReplaceObject(other.clone().into()));
    let error = failed(client.put("object", content(LARGE)))?;
    let code = error.answer.as_ref().and_then(|answer| answer.code.as_deref());
    assert_eq!(code, Some(C::NO_SUCH_UPLOAD), "{error}");
    assert!(matches!(&error.cause, Cause::Unconfirmed(_)), "{error}");
    assert!(error.to_string().contains("different"), "{error}");
    client.assert_stored("object", &other);
    Ok(())
}

fn lost_completion_of_a_stream_is_not_a_failure<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    let put = |content: Vec<u8>| {
        let chunks: Vec<_> =
            content.chunks(1_000_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        client.runtime.block_on(client.bucket.put_stream("object", stream::iter(chunks)))
    };
    let lose = || {
        let lost = FaultRule::new(Fault::CloseBeforeResponse).on(Operation::CompleteMultipartUpload);
        client.server.faults().push(lost);
    };
    lose();
    ensure!(put(content(LARGE))? == LARGE as u64);
    client.assert_stored("object", &content(LARGE));
    let requests = client.server.requests();
    let operations = [Operation::CompleteMultipartUpload, request::HEAD, Operation::AbortMultipartUpload];
    assert_eq!(operations.map(|operation| requests.of(operation)), [2, 1, 0]);

    // Another client has stored something else of the same size.
    lose();
    let other = content(LARGE + 1)[1..].to_vec();
    always(&client, request::HEAD, Fault::ReplaceObject(other.clone().into()));
    let error = failed(put(content(LARGE)))?;
    assert!(matches!(&error.cause, Cause::Unconfirmed(_)) && error.may_remain, "{error}");
    assert!(error.to_string().contains("different"), "{error}");
    client.assert_stored("object", &other);
    Ok(())
}

fn refused_upload_is_not_a_missing_object<C: Cloud>() -> Result<()> {
    let not_found = || Fault::status(404, C::NO_SUCH_OBJECT);
    let client = Client::<C>::start()?;
    always(&client, request::CREATE, not_found());
    let error = failed(client.put("object", content(SIZE)))?;
    assert_eq!((&error.cause, error.status(), client.requests()), (&Cause::Refused, Some(404), 1));

    let client = in_parts::<C>()?;
    always(&client, Operation::CompleteMultipartUpload, not_found());
    let error = failed(client.put("object", content(LARGE)))?;
    assert_eq!((&error.cause, error.status()), (&Cause::Refused, Some(404)));
    Ok(())
}

/// A journal that keeps the uploads that have not ended.
#[derive(Debug, Default)]
struct Journal(Mutex<Vec<(String, String)>>);

impl UploadJournal for Journal {
    fn began(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().push((name.to_owned(), upload_id.to_owned()));
        Ok(())
    }

    fn ended(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().retain(|entry| (entry.0.as_str(), entry.1.as_str()) != (name, upload_id));
        Ok(())
    }
}

fn unfinished_upload_can_be_aborted<C: Cloud>() -> Result<()> {
    let client = in_parts::<C>()?;
    let journal = Arc::new(Journal::default());
    let bucket = client.bucket.clone().with_journal(Arc::<Journal>::clone(&journal));
    client.runtime.block_on(bucket.put("first", Payload::Owned(content(LARGE).into())))?;
    assert_eq!(*journal.0.lock(), []);

    let hold = client.server.hold(Operation::CompleteMultipartUpload);
    let upload = {
        let bucket = bucket.clone();
        client.runtime.spawn(async move { bucket.put("second", Payload::Owned(content(LARGE).into())).await })
    };
    ensure!(hold.wait_until(1, Duration::from_secs(30)), "no upload in parts");
    upload.abort();
    // The next process has only the journal.
    let entries = journal.0.lock().clone();
    let (name, id) = entries.first().context("the journal is empty")?;
    assert_eq!((entries.len(), name.as_str()), (1, "second"));
    for _ in 0..2 {
        client.runtime.block_on(bucket.abort_upload(name, id))?;
        let left = client.server.unfinished_uploads(C::BUCKET);
        assert!(left.is_empty() || !C::PARTS_CAN_BE_DROPPED, "{left:?}");
    }
    hold.release();
    assert_eq!(client.keys(), ["first"]);
    Ok(())
}
