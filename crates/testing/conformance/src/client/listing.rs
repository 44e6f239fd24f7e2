//! Lists of objects, in pages.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bucket::{Cause, Listing, ObjectStorage, StorageError};
use fake_cloud::{Fault, FaultRule, Operation};
use serde_json::json;
use storage_layout::{Layout, RootPath};

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::names::ODD;

tests! {
    EveryCloud:
        listed_names_are_those_of_the_objects,
        list_continues_where_the_server_failed,
        list_of_a_missing_bucket_fails;
}

/// The attachments below `root`.
fn objects<C: Cloud>(client: &Client<C>, root: &str) -> Result<ObjectStorage> {
    let layout = Layout { root: RootPath::new(root)?, ..Layout::default() };
    Ok(ObjectStorage::new(client.bucket.clone(), layout, false, false))
}

/// The names on the pages that are left.
fn rest<C: Cloud>(client: &Client<C>, listing: &mut Listing) -> Result<Vec<String>, StorageError> {
    let mut names = Vec::new();
    while let Some(page) = client.runtime.block_on(listing.next_page())? {
        names.extend(page.objects.into_iter().map(|object| object.name));
    }
    Ok(names)
}

fn listed_names_are_those_of_the_objects<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with_pages(3)?;
    for name in ODD {
        client.put(name, "outside")?;
    }
    let root = "a folder/50% #1~é+";
    let mut expected = Vec::new();
    for name in ODD {
        let name = format!("{root}/{name}");
        client.put(&name, "content")?;
        expected.push(C::stored_name(&name));
    }
    client.put(&format!("{root}/.orthanc-object-storage/key-1"), "not listed")?;
    client.put(&format!("{root}x"), "not listed")?;
    expected.sort();
    client.server.reset_counts();
    let mut listing = objects(&client, root)?.list();
    let mut names = Vec::new();
    while let Some(page) = client.runtime.block_on(listing.next_page())? {
        ensure!(page.objects.len() <= 3, "{} objects in a page", page.objects.len());
        let server_time = page.server_time.context("no Date")?;
        for object in page.objects {
            ensure!(object.size == 7, "{object:?}");
            let age = server_time.duration_since(object.modified).unwrap_or_default();
            let ahead = object.modified.duration_since(SystemTime::now()).unwrap_or_default();
            ensure!(age.max(ahead) < Duration::from_secs(600), "{object:?} at {server_time:?}");
            names.push(object.name);
        }
    }
    names.sort();
    // Backslashes are slashes in Azure, so that two names may be one.
    expected.dedup();
    assert_eq!(names, expected);
    let pages = (expected.len() + 1).div_ceil(3) as u64;
    let requests = client.server.requests();
    ensure!(requests.of(Operation::ListObjects) >= pages && requests.total <= pages + 2, "{requests:?}");

    let inspected = client.runtime.block_on(objects(&client, "")?.inspect(&expected[0]))?;
    ensure!(inspected.is_some_and(|object| object.size == 7), "it was listed");
    ensure!(client.runtime.block_on(objects(&client, "")?.inspect("none"))?.is_none());
    Ok(())
}

fn list_continues_where_the_server_failed<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with_pages(2)?;
    let names: Vec<_> = (0..7).map(|number| format!("folder/{number}")).collect();
    for name in &names {
        client.put(name, "content")?;
    }
    client.server.reset_counts();
    let requests = || client.server.requests().of(Operation::ListObjects);
    let objects = objects(&client, "folder")?;
    let mut listing = objects.list();
    let first = client.runtime.block_on(listing.next_page())?.context("no page")?;
    client.server.faults().push(FaultRule::new(Fault::slow_down()).on(Operation::ListObjects).times(2));
    let second = client.runtime.block_on(listing.next_page())?.context("no page")?;
    let before = requests();
    let denied = Fault::status(403, "AccessDenied");
    client.server.faults().push(FaultRule::new(denied).on(Operation::ListObjects).times(1));
    let error = failed(client.runtime.block_on(listing.next_page()))?;
    ensure!(error.cause == Cause::Denied && error.operation == bucket::Operation::List, "{error}");
    let after = requests();
    let listed = first.objects.into_iter().chain(second.objects).map(|object| object.name);
    let all: Vec<_> = listed.chain(rest(&client, &mut listing)?).collect();
    assert_eq!(all, names);
    // Four pages and three failures, none of which is sent once more. Each further prefix has an empty page: on S3,
    // objects of an Orthanc on Windows may be below `folder\`.
    let further = objects.object_names().prefixes().len() as u64 - 1;
    ensure!(
        (before, after, requests()) == (4, 5, 7 + further),
        "{before}, {after}, {} requests, {further} further prefixes",
        requests()
    );
    Ok(())
}

fn list_of_a_missing_bucket_fails<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({C::BUCKET_OPTION: "missing"}))?;
    let error = failed(client.runtime.block_on(objects(&client, "")?.list().next_page()))?;
    ensure!(error.cause == Cause::BucketMissing, "{error}");
    Ok(())
}
