//! What the server is asked for the audit, and what its answers mean.

use std::fs;
use std::sync::Arc;

use OrthancGoogleCloudStorage::Google;
use anyhow::{Context, Result, ensure};
use fake_cloud::{BucketServer, BucketSettings, GoogleOptions};
use serde_json::json;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, Versions, connection};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A server with an object, and what asks it.
struct Asked {
    runtime: Runtime,
    audit: Arc<dyn BucketAudit>,
    server: BucketServer,
    _folder: TempDir,
}

impl Asked {
    fn start(settings: BucketSettings) -> Result<Self> {
        let options = GoogleOptions { settings, ..GoogleOptions::new().map_err(std::io::Error::other)? };
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("service-account.key");
        fs::write(&key, options.service_accounts[0].json("https://oauth2.googleapis.com").to_string())?;
        let server = BucketServer::start_google(options)?;
        server.insert("bucket", "orthanc/ä b", "content");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let configuration = json!({"GoogleCloudStorage": {
            "BucketName": "bucket", "ServiceAccountFile": key, "Endpoint": server.endpoint(),
        }});
        let configuration = configuration.as_object().context("no object")?;
        let connection = connection::<Google>(configuration, runtime.handle())?;
        Ok(Self { runtime, audit: connection.audit.context("no audit")?, server, _folder: folder })
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
fn missing_permission_is_named() -> Result<()> {
    let asked = Asked::start(BucketSettings { can_be_asked: false, ..BucketSettings::default() })?;
    let denied = "storage.buckets.get on the bucket";
    assert_eq!(asked.public_access(), Answer::Denied(denied));
    assert_eq!(asked.versions(), Answer::Denied(denied));
    assert_eq!(asked.unfinished_uploads(), Answer::Denied(denied));
    Ok(())
}
