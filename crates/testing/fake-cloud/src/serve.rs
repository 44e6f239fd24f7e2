//! A server for each plugin, with the section of Orthanc's configuration that lets the plugin use it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::{AzureOptions, BucketServer, GoogleOptions, Options};

/// The bucket of each server that [`serve`] starts.
pub const BUCKET: &str = "bucket";

/// The key in Google Cloud KMS of the server that [`serve`] starts for `google-cloud`.
pub const CRYPTO_KEY: &str = "projects/test/locations/global/keyRings/orthanc/cryptoKeys/master";

/// Starts the cloud of a plugin, named by its cargo package. Returns the server and the options of the plugin's section.
///
/// Files for the plugin are written to `folder`; `path` returns their names as the plugin sees them.
///
/// # Errors
///
/// Returns an error if the server cannot be started, or no plugin is called `package`.
pub fn serve(
    package: &str,
    folder: &Path,
    path: impl Fn(&Path) -> String,
) -> io::Result<(BucketServer, Value)> {
    match package {
        "azure-blob" => {
            let options = AzureOptions::default();
            let server = BucketServer::start_azure(&options)?;
            let connection_string = options.connection_string(&server.endpoint());
            Ok((server, json!({ "ConnectionString": connection_string, "ContainerName": BUCKET })))
        }
        "google-cloud" => {
            let options = GoogleOptions::new().map_err(io::Error::other)?;
            options.keys.rotate(CRYPTO_KEY);
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
        "aws-s3" => {
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
        other => Err(io::Error::other(format!("there is no server for {other}"))),
    }
}
