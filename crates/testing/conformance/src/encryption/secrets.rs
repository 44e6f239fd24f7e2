//! No log line has a key.

use std::fs;

use anyhow::{Context, Result};
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::LoadError;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, Setup, configuration, load, request, section, uuid};

tests![no_key_is_in_the_log_of_a_verbose_session_with_failures, no_key_is_in_the_message_about_a_mistake,];

fn no_key_is_in_the_log_of_a_verbose_session_with_failures<C: Cloud>() -> Result<()> {
    let mut lines = Vec::new();
    for format in ["A1", "A2"] {
        let encryption = json!({ "Format": format, "ReadUnencrypted": true });
        let mut setup =
            Setup::<C>::encrypted_with(&json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1}), &encryption)?;
        setup.create(&uuid(1), &vec![7; 300_000])?;
        setup.read(&uuid(1))?;
        let _ = setup.host.read_range(&uuid(1), 1, 1000, 1000);
        let key = format!("{}.dcm.enc", uuid(1));
        let object = setup.object(&key)?;
        for at in [3, 6, 8, 20, 60, 100, object.len() - 1] {
            let mut damaged = object.to_vec();
            damaged[at] ^= 1;
            setup.insert(&key, damaged);
            assert!(setup.read(&uuid(1)).is_err(), "byte {at}");
            let _ = setup.host.read_range(&uuid(1), 1, 1000, 1000);
        }
        setup.insert(&key, object);
        setup.server.faults().push(FaultRule::new(Fault::slow_down()).on(request::CREATE).times(9));
        assert!(setup.create(&uuid(2), b"content").is_err());
        assert!(setup.create("no UUID", b"content").is_err());
        lines.extend(setup.host.logs());
        setup.restart_encrypted(
            &json!({C::HTTP_LOG_OPTION: true}),
            &json!({ "MasterKey": setup.keys.entry(7) }),
        )?;
        assert!(setup.read(&uuid(1)).is_err());
        lines.extend(setup.host.logs());
        for spelling in setup.keys.spellings()? {
            let leak = lines.iter().find(|(_, text)| text.contains(&spelling));
            assert_eq!(leak, None);
        }
    }
    // The session was verbose, or this would prove nothing.
    assert!(lines.len() > 100, "{}", lines.len());
    Ok(())
}

fn no_key_is_in_the_message_about_a_mistake<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let keys = Keys::new()?;
    let text = fs::read_to_string(keys.path("key-3.b64"))?;
    let text = text.trim();
    let doubled = keys.write("doubled", format!("{text}{text}"))?;
    let marked = keys.write("marked", format!("{text}!"))?;
    let mistakes = [
        json!({"MasterKey": [3, doubled]}),
        json!({"MasterKey": [3, marked]}),
        json!({"MasterKey": keys.entry(3), "PreviousMasterKeys": [[3, keys.path("key-7.b64")]]}),
        json!({"MasterKey": keys.entry(3), "Format": "A9"}),
        // The key itself where its file's path belongs.
        json!({"MasterKey": text}),
        json!({"MasterKey": [3, text]}),
        json!({"MasterKey": keys.entry(3), "PreviousMasterKeys": text}),
        json!({"MasterKey": keys.entry(3), "PreviousMasterKeys": [[7, text]]}),
    ];
    for mistake in mistakes {
        let section = section::<C>(&server, &json!({ "StorageEncryption": mistake }));
        let error = load::<C>(configuration::<C>(section))?.err().context("it was accepted")?;
        let LoadError::Initialize { logs, .. } = error else { anyhow::bail!("{error}") };
        for spelling in keys.spellings()? {
            assert!(!logs.iter().any(|(_, line)| line.contains(&spelling)), "{mistake}");
        }
    }
    Ok(())
}
