//! What the server is asked for the audit, and what its answers mean.

use std::sync::Arc;

use OrthancAwsS3Storage::S3;
use anyhow::{Context, Result, ensure};
use fake_cloud::{BucketServer, BucketSettings, Options};
use serde_json::json;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, Versions, connection};
use tokio::runtime::{Builder, Runtime};

/// A server with an object, and what asks it.
struct Asked {
    runtime: Runtime,
    audit: Arc<dyn BucketAudit>,
    server: BucketServer,
}

impl Asked {
    fn start(settings: BucketSettings) -> Result<Self> {
        let options = Options { settings, ..Options::default() };
        let server = BucketServer::start(options.clone())?;
        server.insert("bucket", "orthanc/ä b", "content");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let configuration = json!({"AwsS3Storage": {
            "BucketName": "bucket", "Region": options.region, "Endpoint": server.endpoint(),
            "AccessKey": options.access_key, "SecretKey": options.secret_key,
        }});
        let configuration = configuration.as_object().context("no object")?;
        let connection = connection::<S3>(configuration, runtime.handle())?;
        Ok(Self { runtime, audit: connection.audit.context("no audit")?, server })
    }

    fn anonymous(&self) -> [Answer<Anonymous>; 2] {
        self.runtime.block_on(async {
            [self.audit.anonymous_list().await, self.audit.anonymous_read("orthanc/ä b").await]
        })
    }

    fn public_access(&self) -> Answer<PublicAccess> {
        self.runtime.block_on(self.audit.public_access())
    }

    fn versions(&self) -> Answer<Versions> {
        self.runtime.block_on(self.audit.versions("orthanc/"))
    }

    fn unfinished_uploads(&self) -> Answer<Option<u64>> {
        self.runtime.block_on(self.audit.unfinished_uploads("orthanc/"))
    }
}

#[test]
fn good_bucket_is_closed() -> Result<()> {
    let asked = Asked::start(BucketSettings::default())?;
    let refused = Answer::Known(Anonymous::Refused("HTTP 403 AccessDenied".to_owned()));
    assert_eq!(asked.anonymous(), [refused.clone(), refused]);
    ensure!(matches!(asked.public_access(), Answer::Known(PublicAccess { is_blocked: true, .. })));
    assert_eq!(asked.versions(), Answer::Known(Versions::Off));
    assert_eq!(asked.unfinished_uploads(), Answer::Known(Some(7)));
    assert_eq!(asked.server.requests().total, 5, "each question is one request, and none is repeated");
    Ok(())
}

#[test]
fn public_bucket_is_noticed() -> Result<()> {
    let settings = BucketSettings {
        is_public: true,
        blocks_public_access: false,
        keeps_versions: true,
        upload_days: None,
        ..BucketSettings::default()
    };
    let asked = Asked::start(settings.clone())?;
    assert_eq!(asked.anonymous(), [Answer::Known(Anonymous::Allowed), Answer::Known(Anonymous::Allowed)]);
    ensure!(matches!(asked.public_access(), Answer::Known(PublicAccess { is_blocked: false, .. })));
    ensure!(matches!(asked.versions(), Answer::Known(Versions::Kept { days: None, .. })));
    assert_eq!(asked.unfinished_uploads(), Answer::Known(None));
    let asked = Asked::start(BucketSettings { noncurrent_days: Some(90), ..settings })?;
    ensure!(matches!(asked.versions(), Answer::Known(Versions::Kept { days: Some(90), .. })));
    Ok(())
}

#[test]
fn missing_permissions_are_named() -> Result<()> {
    let asked = Asked::start(BucketSettings { can_be_asked: false, ..BucketSettings::default() })?;
    assert_eq!(asked.public_access(), Answer::Denied("s3:GetBucketPublicAccessBlock"));
    assert_eq!(asked.versions(), Answer::Denied("s3:GetBucketVersioning"));
    assert_eq!(asked.unfinished_uploads(), Answer::Denied("s3:GetLifecycleConfiguration"));
    Ok(())
}

#[test]
fn unreachable_server_is_unknown() -> Result<()> {
    let mut asked = Asked::start(BucketSettings::default())?;
    asked.server = BucketServer::start(Options::default())?;
    let unknown = |reason: String| {
        ensure!(reason.contains("cannot connect"), "{reason}");
        anyhow::Ok(())
    };
    for answer in asked.anonymous() {
        let Answer::Unknown(reason) = answer else { anyhow::bail!("{answer:?}") };
        unknown(reason)?;
    }
    let Answer::Unknown(reason) = asked.public_access() else { anyhow::bail!("known") };
    unknown(reason)
}
