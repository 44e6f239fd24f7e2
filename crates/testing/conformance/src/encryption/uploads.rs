//! Uploads of A2 envelopes, which are made as they are sent.

use anyhow::Result;
use fake_cloud::{Fault, FaultRule, Operation};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, UUID, content, flat_encrypted, request};

tests! {
    OneCloud:
        large_attachment_is_encrypted_part_by_part,
        broken_request_is_sent_again_with_the_same_bytes;
}

/// Sent in parts, and their number.
const LARGE: usize = 40 * 1024 * 1024;
const PARTS: u64 = 9;

/// Whether the object decrypts to `content(size)`, which another ciphertext anywhere in it would prevent.
fn is_intact<C: Cloud>(plugin: &LoadedPlugin<C>, size: usize) -> Result<bool> {
    let object = plugin.object(&flat_encrypted(UUID))?;
    let ring = plugin.keys.ring(3)?;
    Ok(object.starts_with(b"A2") && crypto_envelope::decrypt(&ring, UUID, &object)? == content(size))
}

fn large_attachment_is_encrypted_part_by_part<C: Cloud>() -> Result<()> {
    let options = json!({ "TransferPoolSize": 4, "UseTransferManager": true });
    let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({ "Format": "A2" }))?;
    let rule = FaultRule::new(Fault::CloseAfterRequestBytes(300_000)).on(Operation::UploadPart).skip(2);
    let rule = plugin.server.faults().push(rule);
    plugin.create(UUID, &content(LARGE))?;
    assert_eq!(rule.fired(), 1);
    let requests = plugin.server.requests();
    assert_eq!((requests.of(request::CREATE), requests.of(Operation::UploadPart)), (0, PARTS + 1));
    assert!(is_intact(&plugin, LARGE)?);
    assert!(plugin.read(UUID)? == content(LARGE));
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn broken_request_is_sent_again_with_the_same_bytes<C: Cloud>() -> Result<()> {
    let options = json!({ "MaxRetries": 1 });
    let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({ "Format": "A2" }))?;
    for size in [100_000, 10_000_000] {
        let sent = plugin.fault(request::CREATE, Fault::CloseAfterRequestBytes(70_000), 1);
        plugin.create(UUID, &content(size))?;
        assert_eq!((sent.fired(), plugin.requests()), (1, 2), "{size}");
        assert!(is_intact(&plugin, size)?, "{size}");
        // The object is compared with content that is encrypted again.
        let lost = plugin.fault(request::CREATE, Fault::CloseBeforeResponse, 2);
        plugin.create(UUID, &content(size))?;
        assert!(lost.fired() == 2 && is_intact(&plugin, size)?, "{size}");
        plugin.requests();
    }
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}
