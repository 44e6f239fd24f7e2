//! Mistakes that only the plugin for Google knows.

use anyhow::Result;
use fake_cloud::{GoogleOptions, Interceptor};
use serde_json::{Value, json};

use super::setup::Setup;
use super::{Mistake, stops};
use crate::small_server::SmallServer;

pub(super) const MISTAKES: &[Mistake] = &[
    stops(&["cannot be read"], |it| it.set("ServiceAccountFile", "/nowhere/key.json")),
    stops(&["is not valid JSON"], |it| account(it, "hunter2")),
    stops(&["has no \"…\""], |it| {
        account(it, "{\"type\": \"service_account\", \"private_key\": \"hunter2\"}")
    }),
    stops(&["has no RSA key in PEM format"], |it| {
        let key = json!({"type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": "hunter2"});
        account(it, &key.to_string())
    }),
    stops(&["must have the \"type\" \"service_account\" or \"authorized_user\""], |it| {
        account(it, "{\"type\": \"external_account\"}")
    }),
    stops(&["must contain a service account key"], |it| account(it, &user("hunter2").to_string())),
    stops(&["must be projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY"], |it| {
        key(it, "europe-west3/ring/key")
    }),
    stops(&["must name a key, not a version of it"], |it| {
        key(it, "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1")
    }),
    stops(&["the metadata server …"], |it| {
        // This machine has no service account.
        let service = SmallServer::start(|_| (404, String::new()))?;
        it.environment("GCE_METADATA_HOST", service.url("").trim_start_matches("http://"))?;
        it.keep(service);
        it.change(&json!({"ServiceAccountFile": null}))
    }),
    stops(&["Google's token service …"], |it| {
        let google = Interceptor::start(it.server.port())?;
        let authority = it.keys.write("authority.pem", google.authority())?;
        let file = it.keys.write("user.json", user("hunter2").to_string())?;
        it.root("HttpsCACertificates", authority)?;
        it.environment("HTTPS_PROXY", google.proxy())?;
        it.environment("GOOGLE_APPLICATION_CREDENTIALS", file)?;
        it.keep(google);
        it.change(&json!({"ServiceAccountFile": null, "Endpoint": "storage.googleapis.com"}))
    }),
];

fn account(it: &mut Setup<'_>, content: &str) -> Result<()> {
    let file = it.keys.write("key.json", content)?;
    it.set("ServiceAccountFile", file)
}

fn key(it: &mut Setup<'_>, name: &str) -> Result<()> {
    it.set("StorageEncryption", json!({"MasterKey": {"GoogleKms": {"Key": name}}}))
}

/// Returns the file of a user whose token Google has revoked.
fn user(refresh_token: &str) -> Value {
    let mut user = GoogleOptions::new().map(|options| options.user.json()).unwrap_or_default();
    user["refresh_token"] = json!(refresh_token);
    user
}
