//! Mistakes that only the plugin for Azure knows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use fake_cloud::{AzureOptions, KeyVault, VaultClient};
use serde_json::{Value, json};

use super::setup::Setup;
use super::{Mistake, stops, warns};
use crate::fixture::{request, with};
use crate::small_server::SmallServer;

/// `hunter2`
const KEY: &str = "aHVudGVyMg==";

pub(super) const MISTAKES: &[Mistake] = &[
    stops(&["is missing; set it or AccountName"], |it| it.change(&json!({"ConnectionString": null}))),
    stops(&["must not be set together with ConnectionString"], |it| it.set("AccountName", "hospital")),
    stops(&["must be Name=value pairs separated by semicolons"], |it| string(it, "hunter2")),
    stops(&["must not have an empty …"], |it| string(it, "AccountName=;AccountKey=aHVudGVyMg==")),
    stops(&["must not have … twice"], |it| {
        string(it, "AccountName=a;AccountName=b;AccountKey=aHVudGVyMg==")
    }),
    stops(&["must have a valid base64 AccountKey"], |it| {
        string(it, "AccountName=hospital;AccountKey=hunter2!")
    }),
    stops(&["must be valid base64"], |it| identity(it, "AccountKey", "hunter2!")),
    stops(&["must have an AccountName or a BlobEndpoint"], |it| string(it, "AccountKey=aHVudGVyMg==")),
    stops(&["must have an AccountKey or a SharedAccessSignature"], |it| string(it, "AccountName=hospital")),
    stops(&["must have an AccountName together with its AccountKey"], |it| {
        string(it, "BlobEndpoint=https://storage.test;AccountKey=aHVudGVyMg==")
    }),
    stops(
        &[
            "must have a BlobEndpoint of the form https://host[:port], on an emulator https://host[:port]/account",
        ],
        |it| {
            string(
                it,
                "BlobEndpoint=https://orthanc:hunter2@storage.test;AccountName=hospital;AccountKey=aHVudGVyMg==",
            )
        },
    ),
    stops(&["must have a SharedAccessSignature of the form sv=…&sig=…"], |it| {
        string(it, "AccountName=hospital;SharedAccessSignature=hunter2")
    }),
    stops(&["must have an AccountName of 3 to 24 lowercase letters and digits"], |it| {
        string(it, "AccountName=https://hospital.blob.core.windows.net;AccountKey=aHVudGVyMg==")
    }),
    stops(&["must be 3 to 24 lowercase letters and digits"], |it| {
        it.change(&json!({"ConnectionString": null, "AccountName": "My Hospital"}))
    }),
    stops(&["must have https or http as DefaultEndpointsProtocol"], |it| {
        string(it, "DefaultEndpointsProtocol=ftp;AccountName=hospital;AccountKey=aHVudGVyMg==")
    }),
    stops(&["must have a domain such as core.windows.net as EndpointSuffix"], |it| {
        string(it, "AccountName=hospital;AccountKey=aHVudGVyMg==;EndpointSuffix=core windows net")
    }),
    stops(&["must be https://host[:port], on an emulator https://host[:port]/account"], |it| {
        identity(it, "BlobEndpoint", "storage.test?sig=hunter2")
    }),
    stops(&["must be 3 to 63 characters"], |it| it.set("ContainerName", "Orthanc_Images")),
    stops(&["requires the section AzureKeyVault"], |it| it.set("EncryptionEnabled", true)),
    stops(&["is false, but EncryptionEnabled is true"], |it| {
        let key_vault = json!({"kid": "https://hospital.vault.azure.net/keys/images"});
        it.change(&json!({"EncryptionEnabled": true, "AzureKeyVault": key_vault, "StorageEncryption": {"Enable": false}}))
    }),
    warns(&["Entra ID refused the request; check clientId, clientSecret and tenantId"], |it| {
        vault(it, &json!({"clientSecret": "hunter2"}), None)
    }),
    warns(&["the vault does not name a tenant of Entra ID that tokens for its domain come from"], |it| {
        let challenge =
            "Bearer authorization=\"https://hunter.test/tenant\", resource=\"https://vault.azure.net\"";
        vault(it, &json!({}), Some(challenge))
    }),
    warns(&["… is deprecated"], |it| {
        let options = AzureOptions::default();
        let older = json!({"ContainerName": "bucket", "AccountName": options.account, "AccountKey": options.key,
            "BlobEndpoint": options.blob_endpoint(&it.server.endpoint())});
        it.root("BlobStorage", older)?;
        it.replace(None)
    }),
    stops(&["AuthenticationFailed"], |it| {
        let options = AzureOptions { key: KEY.to_owned(), ..AzureOptions::default() };
        string(it, &options.connection_string(&it.server.endpoint()))
    }),
    warns(&["AuthorizationPermissionMismatch", "continuing; reading requires …"], |it| {
        it.deny(request::READ)
    }),
    warns(&["did not exist and was created"], |it| {
        it.change(&json!({"ContainerName": "new", "CreateContainerIfNotExists": true}))
    }),
    stops(&["the account accepts only https://"], |it| it.refuse(400, "AccountRequiresHttps")),
    stops(&["Entra ID refused the request"], |it| {
        let entra = SmallServer::start(|_| (401, "{\"error\": \"invalid_client\"}".to_owned()))?;
        it.environment("AZURE_AUTHORITY_HOST", entra.url("/"))?;
        it.environment("AZURE_TENANT_ID", "hospital")?;
        it.environment("AZURE_CLIENT_ID", "orthanc")?;
        it.environment("AZURE_CLIENT_SECRET", "hunter2")?;
        identity(it, "RootPath", "")
    }),
    stops(&["the managed identity service …"], |it| {
        let service = SmallServer::start(|_| (400, String::new()))?;
        it.environment("IDENTITY_ENDPOINT", service.url("/msi/token"))?;
        identity(it, "RootPath", "")
    }),
    stops(&["the Azure CLI …"], |it| {
        let service = SmallServer::start(|_| (400, String::new()))?;
        it.environment("IDENTITY_ENDPOINT", service.url("/msi/token"))?;
        let program = it.keys.write("az", "#!/bin/sh\nexit 1\n")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let folder = Path::new(&program).parent().context("no folder")?.display();
        it.environment("PATH", format!("{folder}:/usr/bin:/bin"))?;
        identity(it, "RootPath", "")
    }),
];

fn string(it: &mut Setup<'_>, value: &str) -> Result<()> {
    it.set("ConnectionString", value)
}

/// Sets the master key to one in a vault, of whose options some are changed.
fn vault(it: &mut Setup<'_>, options: &Value, challenge: Option<&str>) -> Result<()> {
    let client = VaultClient::default();
    let vault = KeyVault::start(client.clone())?;
    vault.create_key("images")?;
    if let Some(challenge) = challenge {
        vault.set_challenge(challenge);
    }
    let authority = it.keys.write("authority.pem", vault.authority())?;
    it.root("HttpsCACertificates", authority)?;
    it.set("Proxy", vault.proxy())?;
    it.keep(vault);
    let most = json!({"kid": "https://hospital.vault.azure.net/keys/images", "clientId": client.id,
        "clientSecret": client.secret});
    it.set("StorageEncryption", json!({"MasterKey": {"AzureKeyVault": with(most, options)}}))
}

/// Sets the account's name instead of a connection string, and another option.
fn identity(it: &mut Setup<'_>, option: &str, value: &str) -> Result<()> {
    let options = AzureOptions::default();
    let endpoint = options.blob_endpoint(&it.server.endpoint());
    it.change(&json!({"ConnectionString": null, "AccountName": options.account, "BlobEndpoint": endpoint}))?;
    it.set(option, value)
}
