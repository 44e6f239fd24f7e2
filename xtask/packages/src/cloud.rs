//! The clouds that the proofs store to: servers on this machine.

use std::fs;
use std::path::Path;

use anyhow::Result;
use fake_cloud::{AzureOptions, BucketServer, GoogleOptions, Options};
use serde_json::{Value, json};

use real_orthanc::workspace::Plugin;

/// The bucket that each server has.
pub(crate) const BUCKET: &str = "bucket";

/// Starts a plugin's cloud. Returns the server and the options of the plugin's section.
///
/// Files for the plugin are written to `folder`; `path` returns their names as the plugin sees them.
pub(crate) fn serve(
    plugin: Plugin,
    folder: &Path,
    path: impl Fn(&Path) -> String,
) -> Result<(BucketServer, Value)> {
    match plugin.package() {
        "azure-blob" => {
            let options = AzureOptions::default();
            let server = BucketServer::start_azure(&options)?;
            let connection_string = options.connection_string(&server.endpoint());
            Ok((server, json!({ "ConnectionString": connection_string, "ContainerName": BUCKET })))
        }
        "google-cloud" => {
            let options = GoogleOptions::new()?;
            let server = BucketServer::start_google(options.clone())?;
            let file = folder.join("service-account.json");
            fs::write(&file, options.service_accounts[0].json(&server.endpoint()).to_string())?;
            let section = json!({
                "ServiceAccountFile": path(&file),
                "BucketName": BUCKET,
                "Endpoint": server.endpoint(),
            });
            Ok((server, section))
        }
        _ => {
            let options = Options::default();
            let server = BucketServer::start(options.clone())?;
            let section = json!({
                "BucketName": BUCKET,
                "Region": options.region,
                "AccessKey": options.access_key,
                "SecretKey": options.secret_key,
                "Endpoint": server.endpoint(),
                "VirtualAddressing": false,
            });
            Ok((server, section))
        }
    }
}
