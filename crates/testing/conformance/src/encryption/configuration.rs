//! The section `StorageEncryption`. Each mistake prevents the start with one error line that contains no key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, LoadedPlugin, Trials, UUID, configuration, flat_encrypted, own_lines, with};

tests! {
    OneCloud:
        mistakes_are_refused,
        blanks_in_a_key_file_are_ignored,
        clear_data_is_a_warning,
        formats_have_their_storage_area_and_warning,
        section_at_the_root_is_deprecated,
        different_sections_are_refused,
        shared_key_file_is_a_warning,
        unknown_option_is_a_warning,
}

/// Returns a configuration with `StorageEncryption` in the plugin's section and at the root.
fn both<C: Cloud>(trials: &Trials<C>, own: Option<&Value>, root: Option<&Value>) -> Value {
    let section = own.map_or(json!({}), |own| json!({ "StorageEncryption": own }));
    let configuration = configuration::<C>(trials.section(&section));
    root.map_or(configuration.clone(), |root| with(configuration, &json!({ "StorageEncryption": root })))
}

/// Starts the plugin and returns its warnings.
fn warnings<C: Cloud>(
    trials: &mut Trials<C>,
    own: Option<&Value>,
    root: Option<&Value>,
) -> Result<Vec<String>> {
    let configuration = both(trials, own, root);
    trials.orthanc.reset(fake_orthanc::FakeOrthancOptions::with_configuration(configuration))?;
    Ok(own_lines::<C>(&trials.orthanc.logs(), LogLevel::Warning))
}

/// Checks that there is one warning, with all these fragments.
#[track_caller]
fn assert_one(warnings: &[String], fragments: &[&str]) {
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    for fragment in fragments {
        assert!(warnings[0].contains(fragment), "{fragment:?} is not in {warnings:#?}");
    }
}

fn mistakes_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let keys = Keys::new()?;
    let key = keys.entry(3);
    let text = fs::read_to_string(keys.path("key-3.b64"))?;
    let secret = text.trim();
    let file = |name: &str, content: String| keys.write(name, content);
    let short = file("short", "AAAA\n".to_owned())?;
    let long = file("long", format!("{}A=\n", "A".repeat(44)))?;
    let not_base64 = file("text", "not a key!\n".to_owned())?;
    let empty = file("empty", String::new())?;
    let doubled = file("doubled", format!("{secret}{secret}"))?;
    let marked = file("marked", format!("{secret}!"))?;
    let missing = keys.path("missing");
    let previous = |value: Value| json!({"MasterKey": key, "PreviousMasterKeys": value});
    let master = |value: Value| json!({ "MasterKey": value });
    let other = |option: &str, value: Value| json!({"MasterKey": key, option: value});
    for (encryption, option, fragment) in [
        (json!({"Format": "A2"}), ".MasterKey", ""),
        (json!({"Enable": true}), ".MasterKey", ""),
        (master(json!([])), ".MasterKey", "4294967295"),
        (master(json!([3])), ".MasterKey", "4294967295"),
        (master(json!([key[1], 3])), ".MasterKey", "4294967295"),
        (master(json!([3, key[1], 4])), ".MasterKey", "4294967295"),
        (master(json!([-1, key[1]])), ".MasterKey", "4294967295"),
        (master(json!([4_294_967_296_u64, key[1]])), ".MasterKey", "4294967295"),
        (master(json!([1.5, key[1]])), ".MasterKey", "4294967295"),
        (master(json!("key")), ".MasterKey", "[id, "),
        (master(json!([3, missing])), ".MasterKey", &missing),
        (master(json!([3, keys.path("")])), ".MasterKey", "it is not a regular file"),
        (master(json!([3, short])), ".MasterKey", "3 bytes"),
        (master(json!([3, long])), ".MasterKey", "33 bytes"),
        (master(json!([3, empty])), ".MasterKey", "0 bytes"),
        (master(json!([3, not_base64])), ".MasterKey", "offset 9"),
        (master(json!([3, doubled])), ".MasterKey", &doubled),
        (master(json!([3, marked])), ".MasterKey", &marked),
        // The key itself instead of the path of its file, also with mistakes.
        (json!(secret), "", "a string"),
        (master(json!(secret)), ".MasterKey", ""),
        (master(json!([3, secret])), ".MasterKey", ""),
        (master(json!([3, &secret[1..]])), ".MasterKey", "not shown"),
        (master(json!([3, format!("{secret}A")])), ".MasterKey", "not shown"),
        (master(json!([3, format!("/{secret}")])), ".MasterKey", "not shown"),
        (master(json!([3, format!("{}\n{}\n.", &secret[..20], &secret[20..])])), ".MasterKey", "not shown"),
        (master(json!([3, secret.replace(['+', '/'], "-").replace('=', "_")])), ".MasterKey", "not shown"),
        (master(json!([3, "0123456789abcdef".repeat(4)])), ".MasterKey", "not shown"),
        (other("Format", json!(secret)), ".Format", "a long string"),
        (other("ReadFormats", json!([secret])), ".ReadFormats", "a long string"),
        (other("ReadFormats", json!([])), ".ReadFormats", "A1"),
        (other("ReadFormats", json!(["A2"])), ".ReadFormats", "A1"),
        (other("ReadFormats", json!(["A1", "a2"])), ".ReadFormats", "\"a2\""),
        (previous(json!("key")), ".PreviousMasterKeys", "list"),
        (previous(key.clone()), ".PreviousMasterKeys", "list"),
        (previous(json!([[7]])), ".PreviousMasterKeys", "4294967295"),
        (previous(json!([[7, missing]])), ".PreviousMasterKeys", &missing),
        (previous(json!([[3, keys.path("key-7.b64")]])), ".PreviousMasterKeys", "id 3"),
        (previous(json!(secret)), ".PreviousMasterKeys", ""),
        (previous(json!([[7, secret]])), ".PreviousMasterKeys", ""),
        (other("Format", json!("A3")), ".Format", "\"A3\""),
        (other("Format", json!(2)), ".Format", "2"),
        (other("MaxConcurrentInputSize", json!(0)), ".MaxConcurrentInputSize", "1048576"),
        (other("MaxConcurrentInputSize", json!("1")), ".MaxConcurrentInputSize", "\"1\""),
        (other("Enable", json!(1)), ".Enable", "1"),
        (other("ReadUnencrypted", json!("yes")), ".ReadUnencrypted", "\"yes\""),
        (json!(true), "", "true"),
    ] {
        let configuration = both(&trials, Some(&encryption), None);
        let name = format!("{}.StorageEncryption{option}", C::SECTION);
        trials.refused(&configuration, &[&name, fragment])?;
        for spelling in keys.spellings()? {
            let leak = trials.orthanc.logs().into_iter().find(|(_, line)| line.contains(&spelling));
            assert_eq!(leak, None, "{encryption}");
        }
    }
    Ok(())
}

fn blanks_in_a_key_file_are_ignored<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let text = fs::read_to_string(keys.path("key-3.b64"))?;
    let (first, rest) = text.trim().split_at(20);
    let spread = keys.write("spread", format!("\r\n {first}\r\n\t{rest} \n\n"))?;
    let plugin = LoadedPlugin::<C>::encrypted_with(&json!({}), &json!({"MasterKey": [3, spread]}))?;
    plugin.create(UUID, b"content")?;
    let object = plugin.object(&flat_encrypted(UUID))?;
    assert_eq!(crypto_envelope::decrypt(&plugin.keys.ring(3)?, UUID, &object)?, b"content");
    Ok(())
}

fn clear_data_is_a_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let disabled = json!({"Enable": false, "MasterKey": [3, "/there/is/no/such.key"]});
    for encryption in [None, Some(json!({})), Some(disabled)] {
        let warnings = warnings(&mut trials, encryption.as_ref(), None)?;
        assert_one(&warnings, &[C::URL, "encrypt"]);
        assert_eq!(trials.orthanc.registered(), StorageAreaVersion::Two);
        assert_eq!(trials.orthanc.create(UUID, 1, b"content"), Ok(()));
        let stored = trials.server.remove(C::BUCKET, &format!("{UUID}.dcm"));
        assert_eq!(stored.map(|object| object.bytes), Some(b"content"[..].into()));
    }
    Ok(())
}

fn formats_have_their_storage_area_and_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let keys = Keys::new()?;
    for options in [json!({}), json!({"Format": "A1"}), json!({"Enable": true})] {
        let warnings = warnings(&mut trials, Some(&keys.section(&options)), None)?;
        assert_eq!(trials.orthanc.registered(), StorageAreaVersion::One);
        assert_one(&warnings, &["A1", "\"Format\": \"A2\""]);
    }
    for formats in [json!(["A1", "A2"]), json!(["A2"])] {
        let section = keys.section(&json!({"Format": "A2", "ReadFormats": formats}));
        let accepting = warnings(&mut trials, Some(&section), None)?;
        assert_eq!(trials.orthanc.registered(), StorageAreaVersion::Two);
        if formats == json!(["A2"]) {
            assert_eq!(accepting, [""; 0]);
        } else {
            assert_one(&accepting, &["A1", "\"ReadFormats\": [\"A2\"]"]);
        }
    }
    Ok(())
}

fn section_at_the_root_is_deprecated<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let encryption = Keys::new()?;
    let section = encryption.section(&json!({"Format": "A2", "ReadFormats": ["A2"]}));
    assert_one(
        &warnings(&mut trials, None, Some(&section))?,
        &["StorageEncryption", "deprecated", C::SECTION],
    );
    assert_eq!(trials.orthanc.create(UUID, 1, b"content"), Ok(()));
    assert!(trials.server.keys(C::BUCKET).contains(&flat_encrypted(UUID)));

    // Two equal sections do not contradict each other, and an empty one is ignored.
    for root in [&section, &json!({})] {
        assert_eq!(warnings(&mut trials, Some(&section), Some(root))?, [""; 0]);
    }
    warnings(&mut trials, None, Some(&json!({})))?;
    assert_eq!(trials.orthanc.registered(), StorageAreaVersion::Two);

    let configuration = both(&trials, None, Some(&json!({"Format": "A2"})));
    let line = trials.refused(&configuration, &["StorageEncryption.MasterKey"])?;
    assert!(!line.contains(C::SECTION), "{line}");
    Ok(())
}

fn different_sections_are_refused<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let keys = Keys::new()?;
    let own = keys.section(&json!({"Format": "A2"}));
    for root in [keys.section(&json!({})), with(own.clone(), &json!({"Enable": false}))] {
        for (own, root) in [(&own, &root), (&root, &own), (&json!({}), &root)] {
            let configuration = both(&trials, Some(own), Some(root));
            trials.refused(&configuration, &[&format!("{}.StorageEncryption", C::SECTION)])?;
        }
    }
    Ok(())
}

fn shared_key_file_is_a_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let keys = Keys::new()?;
    let path = keys.path("key-7.b64");
    let options = json!({"Format": "A2", "ReadFormats": ["A2"], "PreviousMasterKeys": [keys.entry(7)]});
    let section = keys.section(&options);
    for (mode, is_warning) in
        [(0o400, false), (0o600, false), (0o640, false), (0o660, true), (0o604, true), (0o644, true)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let warnings = warnings(&mut trials, Some(&section), None)?;
        assert_eq!(warnings.len(), usize::from(is_warning), "{mode:o}: {warnings:#?}");
        let command = format!("chmod 640 {path}");
        assert!(
            warnings.iter().all(|line| line.contains("chown root:") && line.contains(&command)),
            "{warnings:#?}"
        );
    }
    Ok(())
}

fn unknown_option_is_a_warning<C: Cloud>() -> Result<()> {
    let mut trials = Trials::<C>::start()?;
    let keys = Keys::new()?;
    let options = json!({"Format": "A2", "ReadFormats": ["A2"], "Password": "hunter2", "Key": "x"});
    let section = keys.section(&options);
    let name = format!("{}.StorageEncryption", C::SECTION);
    assert_one(&warnings(&mut trials, Some(&section), None)?, &[&name, "Key, Password"]);
    Ok(())
}
