//! Operations whose future is dropped, as at a stop of Orthanc.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use bucket::{Payload, ReadRange, StorageError};
use fake_cloud::Operation;
use tokio::task::JoinHandle;

use crate::Cloud;
use crate::client::fixture::{Client, all};
use crate::client::multipart::{LARGE, known_to_be_slow};
use crate::fixture::{content, eventually, request};

tests! {
    OneCloud:
        dropped_operation_ends_at_once,
}

const LONG: Duration = Duration::from_secs(30);

/// Starts an operation in the background.
fn start<C: Cloud>(client: &Client<C>, operation: Operation) -> JoinHandle<Result<(), StorageError>> {
    let bucket = client.bucket.clone();
    client.runtime.spawn(async move {
        match operation {
            request::CREATE => bucket.put("small", Payload::Owned(content(100_000).into())).await,
            Operation::UploadPart => bucket.put("large", Payload::Owned(content(LARGE).into())).await,
            request::REMOVE => bucket.delete("first").await,
            _ => all(bucket.get("first", ReadRange::Whole).await?).await.map(drop),
        }
    })
}

fn dropped_operation_ends_at_once<C: Cloud>() -> Result<()> {
    let client = known_to_be_slow::<C>()?;
    for (operation, requests) in [
        (request::READ, 1),
        // A download that tries a second connection.
        (request::READ_RANGE, 1),
        (request::REMOVE, 1),
        (request::CREATE, 1),
        (Operation::UploadPart, 2),
    ] {
        let hold = client.server.hold(operation);
        let running = start(&client, operation);
        ensure!(hold.wait_until(requests, LONG), "{operation:?}: {} requests", hold.waiting());
        running.abort();
        let ended = client.runtime.block_on(running);
        assert!(ended.is_err_and(|error| error.is_cancelled()), "{operation:?} has ended by itself");
        // A server that has not read the whole request does not notice that its connection is closed.
        let is_noticed = !matches!(operation, request::CREATE | Operation::UploadPart);
        if is_noticed {
            eventually("the requests are cancelled", LONG, || hold.waiting() == 0)?;
        }
        client.server.reset_counts();
        hold.release();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(client.server.requests().total, 0, "{operation:?} goes on");
    }
    assert!(client.keys().contains(&"first".to_owned()), "not deleted");
    Ok(())
}
