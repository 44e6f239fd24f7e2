//! Uploads that succeed only if the object was compared with what was sent.

use std::time::Duration;

use anyhow::Result;
use bucket::{Cause, StorageError};
use bytes::Bytes;
use fake_cloud::{Fault, FaultRule, Odd, Operation};
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::multipart::{LARGE, in_parts};
use crate::fixture::{content, request};

tests! {
    EveryCloud:
        checksum_in_the_answer_confirms_an_upload,
        answer_without_a_checksum_costs_more_requests,
        other_content_in_the_bucket_is_noticed,
        upload_in_parts_is_looked_at,
        settled_upload_is_not_compared_again,
        object_is_compared_with_content;
    OneCloud:
        md5_in_the_e_tag_confirms_an_upload,
        ignored_checksums_do_not_confirm_an_upload,
}

const SIZE: usize = 300_000;

fn put<C: Cloud>(client: &Client<C>, content: Vec<u8>) -> Result<(), StorageError> {
    client.runtime.block_on(client.bucket.put_confirmed("object", content.into()))
}

fn has<C: Cloud>(client: &Client<C>, content: Vec<u8>) -> Result<bool, StorageError> {
    client.runtime.block_on(client.bucket.has("object", &Bytes::from(content)))
}

/// Adds a fault to all requests for these operations.
fn fault<C>(client: &Client<C>, operations: &[Operation], fault: &Fault) {
    for operation in operations {
        client.server.faults().push(FaultRule::new(fault.clone()).on(*operation).times(usize::MAX));
    }
}

/// Returns the numbers of uploads, looks and reads since the start or the last call, which are all requests.
fn counts<C>(client: &Client<C>) -> [u64; 3] {
    let requests = client.server.requests();
    let counts = [request::CREATE, request::HEAD, request::READ].map(|operation| requests.of(operation));
    assert_eq!(counts.iter().sum::<u64>(), requests.total, "{requests:?}");
    client.server.reset_counts();
    counts
}

/// Content of the same size as `content(size)`.
fn other(size: usize) -> Vec<u8> {
    content(size + 1)[1..].to_vec()
}

fn checksum_in_the_answer_confirms_an_upload<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    for size in [0, 1, SIZE, 20_000_000] {
        put(&client, content(size))?;
        assert_eq!(counts(&client), [1, 0, 0], "{size}");
        client.assert_stored("object", &content(size));
    }
    Ok(())
}

fn answer_without_a_checksum_costs_more_requests<C: Cloud>() -> Result<()> {
    let nothing = Fault::Odd(Odd::OpaqueEtag);
    let client = Client::<C>::start()?;
    // A checksum that differs may be of something else.
    for odd in [Odd::WrongChecksum, Odd::OpaqueEtag] {
        client.server.faults().push(FaultRule::new(Fault::Odd(odd)).on(request::CREATE));
        put(&client, content(SIZE))?;
        assert_eq!(counts(&client), [1, 1, 0], "{odd:?}");
    }
    fault(&client, &[request::CREATE], &nothing);
    fault(&client, &[request::HEAD], &nothing);
    for size in [0, SIZE] {
        put(&client, content(size))?;
        assert_eq!(counts(&client), [1, 1, 1], "{size}");
    }
    fault(&client, &[request::READ], &Fault::CorruptResponseByte(5000));
    assert_eq!(failed(put(&client, content(SIZE)))?.cause, Cause::CopyDamaged);
    Ok(())
}

fn other_content_in_the_bucket_is_noticed<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    for bytes in [other(SIZE), content(SIZE - 1)] {
        client.server.faults().push(FaultRule::new(Fault::StoreInstead(bytes.into())).on(request::CREATE));
        let error = failed(put(&client, content(SIZE)))?;
        assert_eq!((&error.cause, error.may_remain), (&Cause::CopyDamaged, true), "{error}");
        assert_eq!(counts(&client), [1, 1, 0]);
    }
    // The server replaces the object after its answer, which has no checksum.
    fault(&client, &[request::CREATE], &Fault::Odd(Odd::OpaqueEtag));
    for bytes in [other(SIZE), content(SIZE - 1)] {
        client.server.faults().push(FaultRule::new(Fault::ReplaceObject(bytes.into())).on(request::HEAD));
        assert_eq!(failed(put(&client, content(SIZE)))?.cause, Cause::CopyDamaged);
        assert_eq!(counts(&client), [1, 1, 0]);
    }
    client.server.faults().push(FaultRule::new(Fault::status(404, C::NO_SUCH_OBJECT)).on(request::HEAD));
    assert_eq!(failed(put(&client, content(SIZE)))?.cause, Cause::CopyDamaged);
    client.server.faults().push(FaultRule::new(Fault::status(403, "AccessDenied")).on(request::HEAD));
    let error = failed(put(&client, content(SIZE)))?;
    assert!(error.cause == Cause::Denied && error.may_remain, "{error}");
    // The next attempt is not affected by what is in the bucket.
    client.server.faults().clear();
    put(&client, content(SIZE))?;
    client.assert_stored("object", &content(SIZE));
    Ok(())
}

fn upload_in_parts_is_looked_at<C: Cloud>() -> Result<()> {
    let client = in_parts::<C>()?;
    put(&client, content(LARGE))?;
    let requests = client.server.requests();
    let looks = [request::HEAD, request::READ].map(|operation| requests.of(operation));
    assert_eq!(looks, [1, C::READS_TO_CONFIRM_PARTS]);
    client.assert_stored("object", &content(LARGE));
    let replaced = Fault::StoreInstead(other(LARGE).into());
    client.server.faults().push(FaultRule::new(replaced).on(Operation::CompleteMultipartUpload));
    assert_eq!(failed(put(&client, content(LARGE)))?.cause, Cause::CopyDamaged);
    Ok(())
}

fn settled_upload_is_not_compared_again<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({"RequestTimeout": 1}))?;
    fault(&client, &[request::CREATE], &Fault::Delay(Duration::from_secs(60)));
    put(&client, content(SIZE))?;
    assert_eq!(counts(&client), [1, 1, 0]);
    client.assert_stored("object", &content(SIZE));
    Ok(())
}

fn object_is_compared_with_content<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    assert!(!has(&client, content(SIZE))?);
    assert_eq!(counts(&client), [0, 1, 0]);
    client.put("object", content(SIZE))?;
    client.server.reset_counts();
    for (bytes, expected) in
        [(content(SIZE), true), (other(SIZE), false), (content(SIZE - 1), false), (Vec::new(), false)]
    {
        let size = bytes.len();
        assert_eq!(has(&client, bytes)?, expected, "{size}");
        assert_eq!(counts(&client), [0, 1, 0], "{size}");
    }
    fault(&client, &[request::HEAD], &Fault::Odd(Odd::OpaqueEtag));
    for (bytes, expected, reads) in
        [(content(SIZE), true, 1), (other(SIZE), false, 1), (content(SIZE - 1), false, 0)]
    {
        assert_eq!(has(&client, bytes)?, expected);
        assert_eq!(counts(&client), [0, 1, reads]);
    }
    fault(&client, &[request::READ], &Fault::status(404, C::NO_SUCH_OBJECT));
    assert!(!has(&client, content(SIZE))?, "the object is deleted meanwhile");
    client.server.faults().clear();
    fault(&client, &[request::HEAD], &Fault::status(403, "AccessDenied"));
    assert_eq!(failed(has(&client, content(SIZE)))?.cause, Cause::Denied);
    Ok(())
}

fn md5_in_the_e_tag_confirms_an_upload<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    fault(&client, &[request::CREATE], &Fault::Odd(Odd::NoChecksum));
    put(&client, content(SIZE))?;
    assert_eq!(counts(&client), [1, 0, 0]);
    fault(&client, &[request::HEAD], &Fault::Odd(Odd::NoChecksum));
    assert!(has(&client, content(SIZE))?);
    assert_eq!(counts(&client), [0, 1, 0]);
    // An `ETag` that is not the MD5 of the content may be something else.
    assert!(!has(&client, other(SIZE))?);
    assert_eq!(counts(&client), [0, 1, 1]);
    Ok(())
}

fn ignored_checksums_do_not_confirm_an_upload<C: Cloud>() -> Result<()> {
    let client = Client::<C>::ignoring_checksums()?;
    put(&client, content(SIZE))?;
    assert_eq!(counts(&client), [1, 1, 1]);
    Ok(())
}
