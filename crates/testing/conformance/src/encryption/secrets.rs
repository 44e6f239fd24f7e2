//! No log line contains a key. Errors of the configuration are in `configuration`.

use anyhow::Result;
use fake_cloud::Fault;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{DICOM, LoadedPlugin, flat_encrypted, request, uuid};

tests! { OneCloud: verbose_log_contains_no_key }

fn verbose_log_contains_no_key<C: Cloud>() -> Result<()> {
    let mut lines = Vec::new();
    for format in ["A1", "A2"] {
        let options = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1});
        let encryption = json!({ "Format": format, "ReadUnencrypted": true });
        let mut plugin = LoadedPlugin::<C>::encrypted_with(&options, &encryption)?;
        plugin.create(&uuid(1), &vec![7; 300_000])?;
        plugin.read(&uuid(1))?;
        let key = flat_encrypted(&uuid(1));
        let object = plugin.object(&key)?;
        for at in [3, 6, 8, 20, 60, 100, object.len() - 1] {
            let mut damaged = object.to_vec();
            damaged[at] ^= 1;
            plugin.insert(&key, damaged);
            assert!(plugin.read(&uuid(1)).is_err(), "byte {at}");
            let _ = plugin.orthanc.read_range(&uuid(1), DICOM, 1000, 1000);
        }
        plugin.insert(&key, object);
        plugin.fault(request::CREATE, Fault::slow_down(), 9);
        assert!(plugin.create(&uuid(2), b"content").is_err());
        assert!(plugin.create("no UUID", b"content").is_err());
        lines.extend(plugin.orthanc.logs());
        plugin.restart_encrypted(&options, &json!({ "MasterKey": plugin.keys.entry(7) }))?;
        assert!(plugin.read(&uuid(1)).is_err());
        lines.extend(plugin.orthanc.logs());
        for spelling in plugin.keys.spellings()? {
            let leak = lines.iter().find(|(_, text)| text.contains(&spelling));
            assert_eq!(leak, None);
        }
    }
    assert!(lines.len() > 100, "the log is not verbose: {} lines", lines.len());
    Ok(())
}
