//! What the server is asked for the audit, and what its answers mean. Azurite answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use OrthancAzureBlobStorage::Azure;
use anyhow::{Context, Result, ensure};
use fake_cloud::{AzureOptions, BucketServer, Sas};
use serde_json::json;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, connection};
use tokio::runtime::{Builder, Runtime};

const HOUR: Duration = Duration::from_hours(1);

/// Returns what asks the server about a container, with these credentials.
fn audit(connection_string: &str, container: &str) -> Result<(Runtime, Arc<dyn BucketAudit>)> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let configuration =
        json!({"AzureBlobStorage": {"ConnectionString": connection_string, "ContainerName": container}});
    let configuration = configuration.as_object().context("no object")?;
    let connection = connection::<Azure>(configuration, runtime.handle())?;
    Ok((runtime, connection.audit.context("no audit")?))
}

#[test]
fn private_and_public_containers_differ() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let signature = options.account_sas(&Sas::until(SystemTime::now() + HOUR));
    for access in ["blob", "container"] {
        let url =
            format!("{}/{access}?restype=container&{signature}", options.blob_endpoint(&server.endpoint()));
        ureq::put(url)
            .header("x-ms-version", "2021-12-02")
            .header("x-ms-blob-public-access", access)
            .send_empty()?;
    }
    let connection_string = options.connection_string(&server.endpoint());
    for (container, list_is_allowed, read_is_allowed) in
        [("bucket", false, false), ("blob", false, true), ("container", true, true)]
    {
        server.insert(container, "orthanc/ä b", "content");
        let (runtime, audit) = audit(&connection_string, container)?;
        runtime.block_on(async {
            let is_as_expected = |answer: Answer<Anonymous>, is_allowed: bool| match answer {
                Answer::Known(Anonymous::Allowed) => is_allowed,
                Answer::Known(Anonymous::Refused(_)) => !is_allowed,
                _ => false,
            };
            let list = audit.anonymous_list().await;
            ensure!(is_as_expected(list.clone(), list_is_allowed), "{container}: {list:?}");
            let read = audit.anonymous_read("orthanc/ä b").await;
            ensure!(is_as_expected(read.clone(), read_is_allowed), "{container}: {read:?}");
            let access = audit.public_access().await;
            let Answer::Known(PublicAccess { is_blocked, .. }) = access else { anyhow::bail!("{access:?}") };
            assert_eq!(is_blocked, container == "bucket");
            let versions = audit.versions("orthanc/").await;
            let Answer::Unknown(reason) = &versions else { anyhow::bail!("{versions:?}") };
            ensure!(reason.contains("soft delete is off"), "{reason}");
            assert_eq!(audit.unfinished_uploads("orthanc/").await, Answer::Known(Some(7)));
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn signature_of_a_container_may_not_ask() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let signature = options.service_sas("bucket", &Sas::until(SystemTime::now() + HOUR));
    let (runtime, audit) = audit(&options.sas_connection_string(&server.endpoint(), &signature), "bucket")?;
    runtime.block_on(async {
        let access = audit.public_access().await;
        ensure!(matches!(access, Answer::Denied(_)), "{access:?}");
        let versions = audit.versions("orthanc/").await;
        ensure!(matches!(versions, Answer::Denied(_)), "{versions:?}");
        anyhow::Ok(())
    })
}
