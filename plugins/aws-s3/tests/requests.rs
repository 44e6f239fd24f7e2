//! What S3 is asked for, beyond what every cloud is.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::{Context, Result};
use cloud::S3;
use conformance::{DICOM, KEY, Setup, UUID, configuration, content, done, section};
use fake_cloud::{BucketServer, Operation, Options};
use serde_json::json;

#[test]
fn a_create_is_one_request_with_tags_class_encryption_and_checksum() -> Result<()> {
    let setup = Setup::<S3>::with(&json!({
        "Tags": {"department": "radiology", "odd & key": "50 % of ü/?"},
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "KmsKeyId": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
    }))?;
    done(setup.host.create(UUID, DICOM, b"123456789"))?;

    let requests = setup.server.last_requests();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    assert_eq!((requests[0].operation, requests[0].status), (Operation::PutObject, Some(200)));
    let stored = setup.server.object("bucket", KEY).context("not stored")?;
    assert_eq!(stored.bytes, &b"123456789"[..]);
    let tags = [("department", "radiology"), ("odd & key", "50 % of ü/?")];
    assert_eq!(stored.tags, tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(stored.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(stored.server_side_encryption.as_deref(), Some("aws:kms"));
    assert_eq!(stored.kms_key_id.as_deref(), Some("arn:aws:kms:eu-west-1:111122223333:key/1234abcd"));
    // The catalogue's check value of CRC-64/NVME, AE8B14860A799888.
    assert_eq!(stored.checksum_crc64nvme, "rosUhgp5mIg=");
    setup.check()
}

#[test]
fn the_bucket_can_be_part_of_the_host_name() -> Result<()> {
    let domain = Some("s3.test".to_owned());
    let server = BucketServer::start(Options { virtual_host_domain: domain, ..Options::default() })?;
    let section = section::<S3>(&server, &json!({"Endpoint": "http://s3.test", "VirtualAddressing": true}));
    let mut configuration = configuration::<S3>(section);
    // Nobody knows the name: a proxy finds the way, whose part the server plays.
    configuration["HttpProxy"] = json!(server.endpoint());
    let setup = Setup::<S3>::load(server, configuration)?;
    let bytes = content(100_000);
    done(setup.host.create(UUID, DICOM, &bytes))?;
    assert_eq!(done(setup.host.read_whole(UUID, DICOM))?, bytes);
    assert_eq!(done(setup.host.read_range(UUID, DICOM, 7, 9))?, bytes[7..16]);
    assert_eq!(setup.stored(), [KEY]);
    assert!(setup.server.last_requests().iter().all(|request| request.path == format!("/{KEY}")));
    done(setup.host.remove(UUID, DICOM))?;
    setup.check()
}
