//! Transfers of large objects in parts, on a server with slow connections.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use bucket::{Cause, ReadRange, TransferOptions};
use fake_cloud::{Fault, FaultRule, Operation};

use crate::Cloud;
use crate::client::fixture::{Client, all, failed};
use crate::fixture::{content, request};

tests! {
    EveryCloud:
        small_objects_take_one_request,
        large_object_is_uploaded_in_parts,
        failed_part_is_sent_again,
        failed_upload_in_parts_changes_nothing,
        large_download_continues_in_parts;
    OneCloud:
        parts_of_a_download_may_have_no_etag,
        object_replaced_between_parts_is_noticed_without_etags,
}

const MEBIBYTE: usize = 1024 * 1024;
/// Bytes per second of a connection that is slow enough for transfers in parts.
const SLOW: u64 = 20 * 1024 * 1024;
/// Size of an object that is transferred in parts over slow connections.
pub(crate) const LARGE: usize = 17 * MEBIBYTE + 5;
/// Number of parts of 5 MiB in `LARGE`.
const PARTS: u64 = 4;

fn slow<C: Cloud>() -> Result<Client<C>> {
    let client =
        Client::in_parts(TransferOptions { connections: 4, part_size: 5 * 1024 * 1024, always: false })?;
    client.server.bandwidth_per_connection(Some(SLOW));
    Ok(client)
}

/// Returns a client that uploads every large object in parts, however fast the line is.
pub(crate) fn in_parts<C: Cloud>() -> Result<Client<C>> {
    Client::in_parts(TransferOptions { connections: 4, part_size: 5 * 1024 * 1024, always: true })
}

/// Returns a client that has measured a slow connection, so that it uploads the next large object in parts.
pub(crate) fn known_to_be_slow<C: Cloud>() -> Result<Client<C>> {
    let client = slow()?;
    client.put("first", content(LARGE))?;
    assert_eq!(client.server.requests().of(request::CREATE), 1, "the first upload must be one request");
    client.server.reset_counts();
    Ok(client)
}

/// Content of the same number of parts as `LARGE` that differs from `content(LARGE)`.
fn other_content() -> Vec<u8> {
    content(LARGE + 1)[1..].to_vec()
}

fn small_objects_take_one_request<C: Cloud>() -> Result<()> {
    let client = known_to_be_slow::<C>()?;
    for size in [0, 1, MEBIBYTE, 6 * MEBIBYTE] {
        client.put("object", content(size))?;
        assert!(client.get("object", ReadRange::Whole)? == content(size), "{size}");
        let requests = client.server.requests();
        assert_eq!((requests.of(request::CREATE), requests.of(request::READ)), (1, 1), "{size}");
        assert_eq!(client.requests(), 2, "{size}");
    }
    Ok(())
}

fn large_object_is_uploaded_in_parts<C: Cloud>() -> Result<()> {
    // A new object and a replaced one.
    for name in ["with 100% #odd/näme+", "first"] {
        let client = known_to_be_slow::<C>()?;
        client.put(name, other_content())?;
        client.assert_stored(name, &other_content());
        let requests = client.server.requests();
        assert_eq!((requests.of(request::CREATE), requests.of(Operation::UploadPart)), (0, PARTS));
        assert_eq!(requests.of(Operation::CompleteMultipartUpload), 1);
        assert_eq!(requests.total, PARTS + 1 + C::REQUESTS_BEFORE_PARTS);
        // In addition to the connection of the first upload.
        assert!(client.server.connections_accepted() > 0, "the parts must be sent in parallel");
        assert!(client.server.unfinished_uploads(C::BUCKET).is_empty());
        assert_eq!(client.keys().len(), if name == "first" { 1 } else { 2 });
    }
    Ok(())
}

fn failed_part_is_sent_again<C: Cloud>() -> Result<()> {
    for fault in [Fault::slow_down(), Fault::CloseBeforeResponse, Fault::CloseAfterRequestBytes(1_000_000)] {
        // A repeated part is slow, and the client may stop using parts. So each fault has its own client.
        let client = known_to_be_slow::<C>()?;
        let rule = FaultRule::new(fault.clone()).on(Operation::UploadPart).skip(1);
        let pushed = client.server.faults().push(rule);
        client.put("second", content(LARGE))?;
        assert_eq!(pushed.fired(), 1, "{fault:?}");
        assert_eq!(client.server.requests().of(Operation::UploadPart), PARTS + 1, "{fault:?}");
        client.assert_stored("second", &content(LARGE));
        client.delete("second")?;
        assert!(client.server.unfinished_uploads(C::BUCKET).is_empty());
    }
    Ok(())
}

fn failed_upload_in_parts_changes_nothing<C: Cloud>() -> Result<()> {
    for (name, operation, skipped) in [
        ("first", Operation::UploadPart, 2),
        ("second", Operation::UploadPart, 2),
        ("second", Operation::CompleteMultipartUpload, 0),
    ] {
        let client = known_to_be_slow::<C>()?;
        let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(operation).times(usize::MAX);
        client.server.faults().push(denied.skip(skipped));
        let error = failed(client.put(name, other_content()))?;
        assert_eq!(error.cause, Cause::Denied, "{operation:?}");
        assert_eq!(client.keys(), ["first"], "{operation:?}");
        client.assert_stored("first", &content(LARGE));
        let left = client.server.unfinished_uploads(C::BUCKET);
        assert!(left.is_empty() || !C::PARTS_CAN_BE_DROPPED, "{operation:?}: {left:?}");
        let aborts = client.server.requests().of(Operation::AbortMultipartUpload);
        assert_eq!(aborts, u64::from(C::PARTS_CAN_BE_DROPPED), "{operation:?}");
        // The remaining parts must not become part of the next object with that name.
        client.server.faults().clear();
        client.put(name, other_content())?;
        client.assert_stored(name, &other_content());
    }
    Ok(())
}

fn large_download_continues_in_parts<C: Cloud>() -> Result<()> {
    let bytes = content(40 * MEBIBYTE + 3);
    for broken_parts in [0, 1] {
        let client = slow::<C>()?;
        client.server.insert(C::BUCKET, "object", bytes.clone());
        let rule = FaultRule::new(Fault::ResetAfterResponseBytes(100_000)).on(request::READ_RANGE);
        let pushed = client.server.faults().push(rule.times(broken_parts));
        assert!(client.get("object", ReadRange::Whole)? == bytes, "the bytes differ");
        assert_eq!(pushed.fired(), broken_parts);
        let requests = client.server.requests();
        assert_eq!(requests.of(request::READ), 1, "a download begins with one plain request");
        // How many depends on how busy this machine is. The bucket's own tests count them in simulated time.
        assert!(requests.of(request::READ_RANGE) > 0, "{requests:?}");
        let connections = client.server.connections_accepted();
        assert!(connections > 1, "{connections} connections for {requests:?}");
    }
    Ok(())
}

fn parts_of_a_download_may_have_no_etag<C: Cloud>() -> Result<()> {
    let bytes = content(40 * MEBIBYTE + 3);
    let both = [request::READ, request::READ_RANGE];
    for without in [&both[..], &both[..1], &both[1..]] {
        let client = slow::<C>()?;
        client.server.insert(C::BUCKET, "object", bytes.clone());
        for operation in without {
            let rule = FaultRule::new(Fault::DropEtag).on(*operation).times(usize::MAX);
            client.server.faults().push(rule);
        }
        assert!(client.get("object", ReadRange::Whole)? == bytes, "the bytes differ");
        assert!(client.server.requests().of(request::READ_RANGE) > 0, "{without:?}");
    }
    Ok(())
}

fn object_replaced_between_parts_is_noticed_without_etags<C: Cloud>() -> Result<()> {
    let client = slow::<C>()?;
    let size = 40 * MEBIBYTE;
    client.server.insert(C::BUCKET, "object", content(size));
    client.server.faults().push(FaultRule::new(Fault::DropEtag).times(usize::MAX));
    let hold = client.server.hold(request::READ_RANGE);
    let download = {
        let bucket = client.bucket.clone();
        client.runtime.spawn(async move { all(bucket.get("object", ReadRange::Whole).await?).await })
    };
    ensure!(hold.wait_until(1, Duration::from_secs(30)), "no download in parts");
    // `Last-Modified` has a resolution of one second.
    thread::sleep(Duration::from_millis(1100));
    client.server.insert(C::BUCKET, "object", vec![7; size]);
    hold.release();
    let error = failed(client.runtime.block_on(download)?)?;
    assert_eq!(error.cause, Cause::Changed);
    Ok(())
}
