//! Servers, and proxies in front of them, that limit the size of requests.

use anyhow::Result;
use bucket::{Cause, TransferOptions};
use fake_cloud::{Fault, FaultRule, Operation};

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::fixture::{content, request};

tests! {
    EveryCloud:
        refused_size_leads_to_parts,
        connection_that_breaks_at_a_size_leads_to_parts,
        refused_parts_become_smaller,
        size_that_cannot_be_split_is_an_error,
        refused_size_of_a_completion_is_not_that_of_a_part,
        every_object_above_the_size_of_a_part_may_be_split;
}

const MEBIBYTE: usize = 1024 * 1024;
const SIZE: usize = 11 * MEBIBYTE;
const TOO_LARGE: Fault = Fault::CloseAfterRequestBytes(100_000);

fn refused() -> Fault {
    Fault::status(413, "EntityTooLarge")
}

fn client<C: Cloud>(mebibytes: u64, always: bool) -> Result<Client<C>> {
    Client::in_parts(TransferOptions { connections: 1, part_size: mebibytes * 1024 * 1024, always })
}

/// The numbers of uploads in one request, of parts and of completions.
fn uploads<C: Cloud>(client: &Client<C>) -> [u64; 3] {
    let requests = client.server.requests();
    client.server.reset_counts();
    [request::CREATE, Operation::UploadPart, Operation::CompleteMultipartUpload]
        .map(|operation| requests.of(operation))
}

fn refused_size_leads_to_parts<C: Cloud>() -> Result<()> {
    let client = client::<C>(5, false)?;
    client.server.faults().push(FaultRule::new(refused()).on(request::CREATE));
    for (name, expected) in [("first", [1, 3, 1]), ("second", [0, 3, 1])] {
        client.put(name, content(SIZE))?;
        client.assert_stored(name, &content(SIZE));
        assert_eq!(uploads(&client), expected, "{name}");
    }
    client.put("small", content(5 * MEBIBYTE))?;
    assert_eq!(uploads(&client), [1, 0, 0]);
    Ok(())
}

fn connection_that_breaks_at_a_size_leads_to_parts<C: Cloud>() -> Result<()> {
    let client = client::<C>(5, false)?;
    client.server.faults().push(FaultRule::new(TOO_LARGE).on(request::CREATE).times(usize::MAX));
    for (name, expected) in [("first", [2, 3, 1]), ("second", [0, 3, 1])] {
        client.put(name, content(SIZE))?;
        client.assert_stored(name, &content(SIZE));
        assert_eq!(uploads(&client), expected, "{name}");
    }
    Ok(())
}

fn refused_parts_become_smaller<C: Cloud>() -> Result<()> {
    for (fault, refusals) in [(refused(), 1), (TOO_LARGE, 2)] {
        let client = client::<C>(10, true)?;
        client.server.faults().push(FaultRule::new(fault).on(Operation::UploadPart).times(refusals));
        client.put("object", content(SIZE))?;
        client.assert_stored("object", &content(SIZE));
        assert_eq!(uploads(&client), [0, refusals as u64 + 3, 1]);
        assert!(client.server.unfinished_uploads(C::BUCKET).is_empty() || !C::PARTS_CAN_BE_DROPPED);
    }
    Ok(())
}

fn size_that_cannot_be_split_is_an_error<C: Cloud>() -> Result<()> {
    let client = client::<C>(5, false)?;
    for operation in [request::CREATE, Operation::UploadPart] {
        client.server.faults().push(FaultRule::new(refused()).on(operation).times(usize::MAX));
    }
    for (size, expected) in [(5 * MEBIBYTE, [1, 0, 0]), (SIZE, [0, 1, 0])] {
        let error = failed(client.put("object", content(size)))?;
        assert_eq!((&error.cause, error.transient, error.status()), (&Cause::TooLarge, false, Some(413)));
        assert_eq!(uploads(&client), expected);
    }
    assert!(client.keys().is_empty());
    Ok(())
}

fn refused_size_of_a_completion_is_not_that_of_a_part<C: Cloud>() -> Result<()> {
    let client = client::<C>(10, true)?;
    client.server.faults().push(FaultRule::new(refused()).on(Operation::CompleteMultipartUpload));
    let error = failed(client.put("object", content(SIZE)))?;
    assert_eq!((&error.cause, uploads(&client)), (&Cause::TooLarge, [0, 2, 1]));
    client.put("object", content(SIZE))?;
    assert_eq!(uploads(&client), [0, 2, 1]);
    Ok(())
}

fn every_object_above_the_size_of_a_part_may_be_split<C: Cloud>() -> Result<()> {
    let client = client::<C>(5, true)?;
    for (size, expected) in [(5 * MEBIBYTE, [1, 0, 0]), (5 * MEBIBYTE + 1, [0, 2, 1])] {
        client.put("object", content(size))?;
        client.assert_stored("object", &content(size));
        assert_eq!(uploads(&client), expected);
    }
    Ok(())
}
