//! Large objects over several connections, on a server whose connections are slow.

use anyhow::Result;
use bucket::{Cause, ReadRange, TransferOptions};
use fake_cloud::{Fault, FaultRule, Operation};

use crate::Cloud;
use crate::client::fixture::Client;
use crate::client::objects::failed;
use crate::fixture::{content, request};

tests![
    objects_that_are_not_large_are_one_request_each,
    a_large_object_goes_in_parts_after_a_slow_one_and_is_whole,
    a_large_object_in_parts_replaces_what_was_there,
    a_part_that_the_server_cannot_take_now_is_sent_again,
    a_failed_upload_in_parts_leaves_nothing_behind,
    a_failed_upload_in_parts_leaves_what_was_there,
    a_large_download_goes_on_in_parts_and_is_whole,
    a_part_of_a_download_that_breaks_is_read_again,
];

const MEBIBYTE: usize = 1024 * 1024;
/// Bytes a second: a connection that is in the way.
const SLOW: u64 = 20 * 1024 * 1024;
/// What is split if a connection is slow.
const LARGE: usize = 17 * MEBIBYTE + 5;
/// Parts of 5 MiB in it.
const PARTS: u64 = 4;

/// A bucket on slow connections.
fn slow<C: Cloud>() -> Result<Client<C>> {
    let bucket = Client::in_parts(TransferOptions { connections: 4, part_size: 5 * 1024 * 1024 })?;
    bucket.server.bandwidth_per_connection(Some(SLOW));
    Ok(bucket)
}

/// A bucket whose engine knows that its connections are slow: the next large upload goes in parts.
fn known_to_be_slow<C: Cloud>() -> Result<Client<C>> {
    let bucket = slow()?;
    bucket.put("first", content(LARGE))?;
    assert_eq!(bucket.server.requests().of(request::CREATE), 1, "nothing was known yet");
    bucket.server.reset_counts();
    Ok(bucket)
}

fn objects_that_are_not_large_are_one_request_each<C: Cloud>() -> Result<()> {
    let bucket = known_to_be_slow::<C>()?;
    for size in [0, 1, MEBIBYTE, 6 * MEBIBYTE] {
        bucket.put("object", content(size))?;
        assert!(bucket.get("object", ReadRange::Whole)? == content(size), "{size}");
        let requests = bucket.server.requests();
        assert_eq!((requests.of(request::CREATE), requests.of(request::READ)), (1, 1), "{size}");
        assert_eq!(bucket.requests(), 2, "{size}");
    }
    Ok(())
}

fn a_large_object_goes_in_parts_after_a_slow_one_and_is_whole<C: Cloud>() -> Result<()> {
    let bucket = known_to_be_slow::<C>()?;
    let name = "with 100% #odd/näme+";
    bucket.put(name, content(LARGE))?;
    bucket.assert_stored(name, &content(LARGE));
    let requests = bucket.server.requests();
    assert_eq!((requests.of(request::CREATE), requests.of(Operation::UploadPart)), (0, PARTS));
    assert_eq!(requests.of(Operation::CompleteMultipartUpload), 1);
    assert_eq!(requests.total, PARTS + 1 + C::REQUESTS_BEFORE_PARTS);
    assert!(bucket.server.connections_accepted() > 1, "one after the other");
    assert!(bucket.server.unfinished_uploads(C::BUCKET).is_empty());
    assert_eq!(bucket.keys(), ["first", name]);
    Ok(())
}

fn a_large_object_in_parts_replaces_what_was_there<C: Cloud>() -> Result<()> {
    let bucket = known_to_be_slow::<C>()?;
    let other = content(LARGE + 1)[1..].to_vec();
    bucket.put("first", other.clone())?;
    bucket.assert_stored("first", &other);
    assert_eq!(bucket.server.requests().of(Operation::UploadPart), PARTS);
    assert_eq!(bucket.keys(), ["first"]);
    Ok(())
}

fn a_part_that_the_server_cannot_take_now_is_sent_again<C: Cloud>() -> Result<()> {
    for fault in [Fault::slow_down(), Fault::CloseBeforeResponse, Fault::CloseAfterRequestBytes(1_000_000)] {
        // A new one each time: a repeated part costs time, from which the engine learns that parts do not help.
        let bucket = known_to_be_slow::<C>()?;
        bucket.server.reset_counts();
        let rule = FaultRule::new(fault.clone()).on(Operation::UploadPart).skip(1);
        let rule = bucket.server.faults().push(rule);
        bucket.put("second", content(LARGE))?;
        assert_eq!(rule.fired(), 1, "{fault:?}");
        assert_eq!(bucket.server.requests().of(Operation::UploadPart), PARTS + 1, "{fault:?}");
        bucket.assert_stored("second", &content(LARGE));
        bucket.delete("second")?;
        assert!(bucket.server.unfinished_uploads(C::BUCKET).is_empty());
    }
    Ok(())
}

fn a_failed_upload_in_parts_leaves_nothing_behind<C: Cloud>() -> Result<()> {
    for operation in [Operation::UploadPart, Operation::CompleteMultipartUpload] {
        let bucket = known_to_be_slow::<C>()?;
        let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(operation).times(usize::MAX);
        let skipped = if operation == Operation::UploadPart { 2 } else { 0 };
        bucket.server.faults().push(denied.skip(skipped));
        let error = failed(bucket.put("second", content(LARGE)))?;
        assert_eq!(error.cause, Cause::Denied, "{operation:?}");
        assert_eq!(bucket.keys(), ["first"], "{operation:?}");
        let left = bucket.server.unfinished_uploads(C::BUCKET);
        assert!(left.is_empty() || !C::PARTS_CAN_BE_DROPPED, "{operation:?}: {left:?}");
        let dropped = bucket.server.requests().of(Operation::AbortMultipartUpload);
        assert_eq!(dropped, u64::from(C::PARTS_CAN_BE_DROPPED), "{operation:?}");
        // Nor do the parts get into the next object of that name.
        bucket.server.faults().clear();
        let other = content(LARGE + 1)[1..].to_vec();
        bucket.put("second", other.clone())?;
        bucket.assert_stored("second", &other);
    }
    Ok(())
}

fn a_failed_upload_in_parts_leaves_what_was_there<C: Cloud>() -> Result<()> {
    let bucket = known_to_be_slow::<C>()?;
    let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(Operation::UploadPart).skip(2);
    bucket.server.faults().push(denied);
    failed(bucket.put("first", content(LARGE + 1)[1..].to_vec()))?;
    bucket.assert_stored("first", &content(LARGE));
    assert_eq!(bucket.keys(), ["first"]);
    Ok(())
}

fn a_large_download_goes_on_in_parts_and_is_whole<C: Cloud>() -> Result<()> {
    let bucket = slow::<C>()?;
    bucket.server.insert(C::BUCKET, "object", content(40 * MEBIBYTE + 3));
    assert!(bucket.get("object", ReadRange::Whole)? == content(40 * MEBIBYTE + 3), "the bytes differ");
    let requests = bucket.server.requests();
    assert_eq!(requests.of(request::READ), 1, "it begins with one plain request");
    assert!(requests.of(request::READ_RANGE) > 1, "{requests:?}");
    assert!(bucket.server.connections_accepted() > 1, "one after the other");
    Ok(())
}

fn a_part_of_a_download_that_breaks_is_read_again<C: Cloud>() -> Result<()> {
    let bucket = slow::<C>()?;
    bucket.server.insert(C::BUCKET, "object", content(40 * MEBIBYTE));
    let rule = FaultRule::new(Fault::ResetAfterResponseBytes(100_000)).on(request::READ_RANGE);
    let rule = bucket.server.faults().push(rule);
    assert!(bucket.get("object", ReadRange::Whole)? == content(40 * MEBIBYTE), "the bytes differ");
    assert_eq!(rule.fired(), 1);
    Ok(())
}
