//! Mistakes that only the plugin for S3 knows, and those about certificates.

use anyhow::Result;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;

use super::setup::Setup;
use super::{Mistake, stops, warns};
use crate::fixture::request;
use crate::plugin::tls::{Authority, TlsFront, self_signed};

pub(super) const MISTAKES: &[Mistake] = &[
    stops(&["is not a section; did you mean …?"], |it| {
        it.root("AWSS3Storage", json!({"BucketName": "bucket"}))?;
        it.replace(None)
    }),
    stops(&["must be an object of strings"], |it| it.set("Tags", json!({"ward": 7}))),
    stops(&["must have at most 10 tags"], |it| {
        it.set("Tags", json!({"0": "", "1": "", "2": "", "3": "", "4": "", "5": "", "6": "", "7": "", "8": "", "9": "", "a": ""}))
    }),
    stops(&["must have keys of 1 to 128 and values of up to 256 characters"], |it| {
        it.set("Tags", json!({"": "x"}))
    }),
    stops(&["must be [https://]host[:port]"], |it| it.set("Endpoint", "s3://bucket")),
    stops(&["must be [https://]host[:port]"], |it| {
        it.set("Endpoint", "https://orthanc:hunter2@storage.test")
    }),
    stops(&["must be [https://]host[:port]"], |it| it.set("Endpoint", "https://storage.test/bucket")),
    stops(&["must be the name of a region such as eu-central-1"], |it| {
        it.set("Region", "https://eu-central-1.test")
    }),
    stops(&["must be false for the endpoint …, whose host is an IP address"], |it| {
        it.set("VirtualAddressing", true)
    }),
    warns(&["neither … nor … is known to the name server"], |it| {
        it.change(&json!({"Endpoint": "https://storage.invalid", "VirtualAddressing": null}))
    }),
    warns(&["the endpoint … is not encrypted"], |it| {
        // No server has an address of this network.
        it.change(&json!({"Endpoint": "http://192.0.2.1:9", "ConnectionTimeout": 1}))
    }),
    stops(&["must not contain control characters such as line breaks"], |it| {
        it.set("SecretKey", "hunter2\nhunter2")
    }),
    stops(&["is missing; it must be set together with …"], |it| it.change(&json!({"AccessKey": null}))),
    stops(&["must not be empty; a value \"${NAME}\" is empty if …"], |it| {
        it.change(&json!({"AccessKey": "${NO_SUCH_KEY}", "SecretKey": "${NO_SUCH_KEY}"}))
    }),
    stops(&["requires AccessKey and SecretKey"], |it| {
        it.change(&json!({"AccessKey": null, "SecretKey": null, "SessionToken": "hunter2"}))
    }),
    stops(&["requires \"ServerSideEncryption\": \"aws:kms\""], |it| it.set("KmsKeyId", "key")),
    stops(&["must be the ARN of a key …"], |it| kms(it, &json!({"KeyId": "key of the hospital"}))),
    stops(&["must be …, the region in KeyId"], |it| {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        kms(it, &json!({"KeyId": arn, "Region": "us-east-1"}))
    }),
    stops(&["must begin with https://, since file keys are sent there"], |it| {
        kms(it, &json!({"KeyId": "alias/images", "Endpoint": "http://kms.hospital.test"}))
    }),
    stops(&["access denied", "InvalidAccessKeyId"], |it| it.set("AccessKey", "AKIAHUNTER")),
    stops(&["SignatureDoesNotMatch"], |it| it.set("SecretKey", "hunter2")),
    stops(&["InvalidToken"], |it| it.set("SessionToken", "hunter2")),
    stops(&["ExpiredToken"], |it| it.refuse(400, "ExpiredToken")),
    stops(&["RequestTimeTooSkewed"], |it| it.refuse(403, "RequestTimeTooSkewed")),
    warns(&["AccessDenied", "continuing; reading requires …"], |it| it.deny(request::READ)),
    stops(&["no credentials: …", "set AccessKey and SecretKey, or …"], |it| {
        chain(it, "AWS_EC2_METADATA_DISABLED", "true")
    }),
    stops(&["the AWS configuration (files or environment) is not valid"], |it| {
        let file = it.keys.write("config", "[profile hospital\n")?;
        it.environment("AWS_CONFIG_FILE", file)?;
        chain(it, "AWS_PROFILE", "hospital")
    }),
    warns(&["the AWS credential chain failed"], |it| {
        chain(it, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/")
    }),
    stops(&["the AWS credentials contain control characters"], |it| {
        it.environment("AWS_ACCESS_KEY_ID", "AKIAHUNTER")?;
        chain(it, "AWS_SECRET_ACCESS_KEY", "hunter2\nhunter2")
    }),
    stops(&["the server does not speak TLS on this port"], |it| {
        it.set("Endpoint", format!("https://127.0.0.1:{}", it.server.port()))
    }),
    stops(&["the server speaks only TLS on this port"], |it| {
        secured(it, &["127.0.0.1"], 2099, Some("HttpsCACertificates"))?;
        it.set("Endpoint", it.option("Endpoint").replace("https:", "http:"))
    }),
    stops(&["the server's TLS certificate is not trusted", "UnknownIssuer"], |it| {
        secured(it, &["127.0.0.1"], 2099, None)
    }),
    stops(&["it is self-signed; set HttpsCACertificates to the certificate itself"], |it| {
        let (config, _) = self_signed()?;
        front(it, config)
    }),
    stops(&["not valid for name"], |it| secured(it, &["storage.test"], 2099, Some("HttpsCACertificates"))),
    stops(&["certificate expired"], |it| secured(it, &["127.0.0.1"], 2020, Some("HttpsCACertificates"))),
    stops(&["it has no subjectAltName"], |it| secured(it, &[], 2099, Some("HttpsCACertificates"))),
    stops(&["install the package ca-certificates"], |it| {
        it.environment("SSL_CERT_FILE", "/dev/null")?;
        it.environment("SSL_CERT_DIR", "/nowhere")?;
        secured(it, &["127.0.0.1"], 2099, None)
    }),
    warns(&["the configuration enables another storage plugin, but Orthanc uses only one: …"], |it| {
        it.root("DelayedDeletion", json!({"Enable": true}))
    }),
    stops(&["another plugin is Orthanc's storage already, and there can be only one: …"], |it| {
        let library = |name| -> Result<_> { Ok(plugin_library(Plugin::named(name)?, Profile::Dev)?) };
        // Its server does not answer, which does not prevent its start.
        let other = json!({"AccountName": "hospital", "AccountKey": "aHVudGVyMg==", "ContainerName": "images",
            "BlobEndpoint": "http://127.0.0.1:9"});
        it.root("AzureBlobStorage", other)?;
        it.root("Plugins", json!([library("azure-blob")?, library("aws-s3")?]))
    }),
    Mistake {
        is_of_the_plugin: false,
        ..stops(&["Plugin '…' already registered"], |it| {
            let library = plugin_library(Plugin::named("aws-s3")?, Profile::Dev)?;
            let copy = it.keys.write("copy.so", std::fs::read(library)?)?;
            it.plugin(copy)
        })
    },
];

/// Removes the credentials from the section, and sets a variable of the AWS default credential chain.
fn chain(it: &mut Setup<'_>, variable: &'static str, value: &str) -> Result<()> {
    it.environment(variable, value)?;
    it.change(&json!({"AccessKey": null, "SecretKey": null}))
}

/// Sets the master key to one in AWS KMS.
fn kms(it: &mut Setup<'_>, options: &Value) -> Result<()> {
    it.set("StorageEncryption", json!({"MasterKey": {"AwsKms": options}}))
}

/// Puts TLS in front of the server, with a certificate for `names` that expires in the year `until`. The option is set to
/// the file of its authority.
fn secured(it: &mut Setup<'_>, names: &[&str], until: i32, option: Option<&'static str>) -> Result<()> {
    let authority = Authority::new("Hospital")?;
    front(it, authority.server(names, until)?)?;
    if let Some(option) = option {
        it.root(option, authority.file.path().display().to_string())?;
    }
    it.keep(authority);
    Ok(())
}

/// Puts TLS with this certificate in front of the server.
fn front(it: &mut Setup<'_>, config: ServerConfig) -> Result<()> {
    let front = TlsFront::start(config, it.server.port())?;
    it.set("Endpoint", format!("https://127.0.0.1:{}", front.port))?;
    it.keep(front);
    Ok(())
}
