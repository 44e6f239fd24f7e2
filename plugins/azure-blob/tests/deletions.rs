//! Batches with each kind of credentials, and blobs with snapshots.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::{Context, Result};
use bucket::{Bucket, StorageError};
use cloud::{Azure, later, section};
use conformance::{Cloud as _, configuration, with};
use fake_cloud::{AzureOptions, BucketServer, Operation, Sas};
use serde_json::json;
use storage_plugin::connect;
use tokio::runtime::Runtime;

/// A client of the container.
struct Client {
    bucket: Bucket,
    runtime: Runtime,
    server: BucketServer,
}

impl Client {
    /// Connects with the connection string that `credentials` returns for the address of the server.
    fn with(credentials: impl Fn(&AzureOptions, &str) -> String) -> Result<Self> {
        let options = AzureOptions::default();
        let server = BucketServer::start_azure(&options)?;
        let section = section(&credentials(&options, &server.endpoint()));
        let configuration = configuration::<Azure>(with(section, &json!({"MaxRetries": 0})));
        let root = configuration.as_object().context("the configuration is not an object")?;
        let runtime = Runtime::new()?;
        let bucket = Bucket::new(connect::<OrthancAzureBlobStorage::Azure>(root, runtime.handle())?);
        Ok(Self { bucket, runtime, server })
    }

    /// Creates two objects, and deletes them and a missing one. Returns the numbers of batches and of single requests.
    fn delete(&self) -> (Result<(), StorageError>, u64, u64) {
        let names = ["a b+c&d.dcm", "folder/Röntgen 100%.dcm", "missing"].map(str::to_owned);
        for name in &names[..2] {
            self.server.insert(Azure::BUCKET, name, "content");
        }
        self.server.reset_counts();
        let results = self.runtime.block_on(self.bucket.delete_many(&names));
        let result: Result<(), _> = results.into_iter().collect();
        let requests = self.server.requests();
        assert_eq!(self.server.keys(Azure::BUCKET).is_empty(), result.is_ok());
        (result, requests.of(Operation::DeleteObjects), requests.of(Operation::DeleteObject))
    }
}

fn signature() -> Sas {
    Sas { permissions: "rcwd".to_owned(), ..Sas::until(later()) }
}

#[test]
fn batches_work_with_keys_and_signatures_of_the_container() -> Result<()> {
    for client in [
        Client::with(AzureOptions::connection_string)?,
        Client::with(|options, endpoint| {
            options.sas_connection_string(endpoint, &options.service_sas(Azure::BUCKET, &signature()))
        })?,
    ] {
        assert_eq!(client.delete(), (Ok(()), 1, 0));
    }
    Ok(())
}

/// Azurite answers a batch with such a signature with 500, always.
#[test]
fn single_requests_work_with_signatures_of_the_account() -> Result<()> {
    let client = Client::with(|options, endpoint| {
        options.sas_connection_string(endpoint, &options.account_sas(&signature()))
    })?;
    for _ in 0..2 {
        let (result, batches, single) = client.delete();
        assert_eq!((result.map_err(|error| error.status()), batches, single), (Err(Some(500)), 1, 0));
    }
    assert_eq!(client.delete(), (Ok(()), 1, 3));
    assert_eq!(client.delete(), (Ok(()), 0, 3));
    Ok(())
}

#[test]
fn batch_deletes_snapshots() -> Result<()> {
    let client = Client::with(AzureOptions::connection_string)?;
    let names = ["a", "b"].map(str::to_owned);
    let options = AzureOptions::default();
    let container = format!("{}/{}", options.blob_endpoint(&client.server.endpoint()), Azure::BUCKET);
    for name in &names {
        client.server.insert(Azure::BUCKET, name, "content");
        let url = format!("{container}/{name}?comp=snapshot&{}", options.account_sas(&signature()));
        ureq::put(url).header("x-ms-version", "2023-11-03").send_empty()?;
    }
    client.server.reset_counts();
    assert_eq!(client.runtime.block_on(client.bucket.delete_many(&names)), [Ok(()), Ok(())]);
    assert_eq!(client.server.requests().of(Operation::DeleteObjects), 1);
    assert!(client.server.keys(Azure::BUCKET).is_empty());
    Ok(())
}
