//! Every mistake in `StorageEncryption` stops Orthanc, with one line that says what to do.

use std::fs;

use anyhow::{Context, Result};
use fake_cloud::BucketServer;
use fake_orthanc::{FakeOrthanc, LoadError, LogLevel, StorageAreaVersion};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, Setup, UUID, configuration, load, own_lines, refusal, section, with};

tests![
    mistakes_are_refused_with_the_option_the_value_and_what_is_needed,
    a_key_file_that_this_user_may_not_read_or_that_is_a_folder_is_refused,
    blanks_and_line_ends_in_a_key_file_do_not_matter,
    an_empty_section_or_one_that_is_switched_off_means_clear_data_and_a_warning,
    a1_is_storage_area_1_with_a_recommendation_and_a2_is_storage_area_2,
    the_section_at_the_root_is_honoured_with_a_warning,
    two_different_sections_are_refused,
    a_key_file_that_others_can_use_gets_a_warning,
    an_unknown_option_gets_a_warning,
];

/// The plugin with this `StorageEncryption`, and `root` at the root of the configuration.
fn start<C: Cloud>(
    server: &BucketServer,
    own: Option<Value>,
    root: Option<Value>,
) -> Result<Result<FakeOrthanc, LoadError>> {
    let mut section = section::<C>(server, &json!({}));
    if let Some(own) = own {
        section["StorageEncryption"] = own;
    }
    let mut configuration = configuration::<C>(section);
    if let Some(root) = root {
        configuration["StorageEncryption"] = root;
    }
    load::<C>(configuration)
}

/// The line with which the plugin refuses this, as [`start`] takes it.
fn refused<C: Cloud>(server: &BucketServer, own: Option<Value>, root: Option<Value>) -> Result<String> {
    refusal::<C, _>(start::<C>(server, own, root)?)
}

/// Lines at warning level.
fn warnings<C: Cloud>(host: &FakeOrthanc) -> Vec<String> {
    own_lines::<C>(&host.logs(), LogLevel::Warning)
}

fn mistakes_are_refused_with_the_option_the_value_and_what_is_needed<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let keys = Keys::new()?;
    let key = keys.entry(3);
    let short = keys.write("short", "AAAA\n")?;
    let long = keys.write("long", format!("{}A=\n", "A".repeat(44)))?;
    let text = keys.write("text", "not a key!\n")?;
    let empty = keys.write("empty", "")?;
    let missing = keys.path("missing");
    let needed = "[id, \"path of the key file\"] is needed";
    let id_needed = "is malformed: [id, \"path of the key file\"] is needed, with an id from 0 to 4294967295";
    let valid = "`openssl rand -base64 32` writes a valid one";
    let cases = [
        (json!({"Format": "A2"}), format!("MasterKey is missing: {needed} to encrypt")),
        (json!({"Enable": true}), format!("MasterKey is missing: {needed} to encrypt")),
        (json!({"MasterKey": []}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [3]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [key[1], 3]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [3, key[1], 4]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [-1, key[1]]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [4_294_967_296_u64, key[1]]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": [1.5, key[1]]}), format!("MasterKey {id_needed}")),
        (json!({"MasterKey": "key"}), format!("MasterKey is no list: {needed}")),
        (
            json!({"MasterKey": [3, missing]}),
            format!(
                "MasterKey names the key file {missing:?}, which cannot be read: \
                 No such file or directory (os error 2)"
            ),
        ),
        (
            json!({"MasterKey": [3, short]}),
            format!(
                "MasterKey names the key file {short:?}, which is refused: the key file holds 3 bytes \
                 where a master key has exactly 32; {valid}"
            ),
        ),
        (
            json!({"MasterKey": [3, long]}),
            format!(
                "MasterKey names the key file {long:?}, which is refused: the key file holds 33 bytes \
                 where a master key has exactly 32; {valid}"
            ),
        ),
        (
            json!({"MasterKey": [3, empty]}),
            format!(
                "MasterKey names the key file {empty:?}, which is refused: the key file holds 0 bytes \
                 where a master key has exactly 32; {valid}"
            ),
        ),
        (
            json!({"MasterKey": [3, text]}),
            format!(
                "MasterKey names the key file {text:?}, which is refused: the key file is not base64 text: \
                 unexpected byte at offset 9; {valid}"
            ),
        ),
        (
            json!({"MasterKey": key, "PreviousMasterKeys": "key"}),
            "PreviousMasterKeys is no list: a list of [id, \"path of the key file\"] is needed".to_owned(),
        ),
        (
            json!({"MasterKey": key, "PreviousMasterKeys": key}),
            format!("PreviousMasterKeys has an entry that is no list: {needed}"),
        ),
        (json!({"MasterKey": key, "PreviousMasterKeys": [[7]]}), format!("PreviousMasterKeys {id_needed}")),
        (
            json!({"MasterKey": key, "PreviousMasterKeys": [[7, missing]]}),
            format!(
                "PreviousMasterKeys names the key file {missing:?}, which cannot be read: \
                 No such file or directory (os error 2)"
            ),
        ),
        (
            json!({"MasterKey": key, "PreviousMasterKeys": [keys.entry(7), key]}),
            "PreviousMasterKeys is refused: two master keys have the id 3; every key, current or previous, \
             needs an id of its own"
                .to_owned(),
        ),
        (json!({"MasterKey": key, "Format": "A3"}), "Format is \"A3\": one of A1, A2 is needed".to_owned()),
        (json!({"MasterKey": key, "Format": 2}), "Format is 2: one of A1, A2 is needed".to_owned()),
        (
            json!({"MasterKey": key, "MaxConcurrentInputSize": 0}),
            "MaxConcurrentInputSize is 0: a whole number from 1 to 1048576 is needed".to_owned(),
        ),
        (
            json!({"MasterKey": key, "MaxConcurrentInputSize": "1"}),
            "MaxConcurrentInputSize is \"1\": a whole number from 1 to 1048576 is needed".to_owned(),
        ),
        (json!({"MasterKey": key, "Enable": 1}), "Enable is 1: true or false is needed".to_owned()),
        (
            json!({"MasterKey": key, "ReadUnencrypted": "yes"}),
            "ReadUnencrypted is \"yes\": true or false is needed".to_owned(),
        ),
    ];
    for (encryption, problem) in cases {
        let line = refused::<C>(&server, Some(encryption), None)?;
        assert_eq!(line, format!("option {}.StorageEncryption.{problem}", C::SECTION));
    }
    let line = refused::<C>(&server, Some(json!(true)), None)?;
    let expected = format!("option {}.StorageEncryption is true: an object {{…}} is needed", C::SECTION);
    assert_eq!(line, expected);
    Ok(())
}

fn a_key_file_that_this_user_may_not_read_or_that_is_a_folder_is_refused<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let keys = Keys::new()?;
    let folder = keys.path("");
    let line = refused::<C>(&server, Some(json!({"MasterKey": [3, folder]})), None)?;
    assert!(line.contains("cannot be read: Is a directory"), "{line}");
    Ok(())
}

fn blanks_and_line_ends_in_a_key_file_do_not_matter<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let text = fs::read_to_string(keys.path("key-3.b64"))?;
    let (first, rest) = text.trim().split_at(20);
    let spread = keys.write("spread", format!("\r\n {first}\r\n\t{rest} \n\n"))?;
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({"MasterKey": [3, spread]}))?;
    setup.create(UUID, b"content")?;
    let object = setup.object(&format!("{UUID}.dcm.enc"))?;
    assert_eq!(crypto_envelope::decrypt(&setup.keys.ring(3)?, UUID, &object)?, b"content");
    Ok(())
}

fn an_empty_section_or_one_that_is_switched_off_means_clear_data_and_a_warning<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let missing = json!({"Enable": false, "MasterKey": [3, "/there/is/no/such.key"]});
    for encryption in [None, Some(json!({})), Some(missing)] {
        let host = start::<C>(&server, encryption, None)??;
        assert_eq!(
            warnings::<C>(&host),
            [format!("{} will hold patient data in clear: there is no client-side encryption", C::URL)]
        );
        assert_eq!(host.registered(), StorageAreaVersion::Two);
        assert_eq!(host.create(UUID, 1, b"content"), Ok(()));
        assert_eq!(
            &server.remove(C::BUCKET, &format!("{UUID}.dcm")).context("no object")?.bytes[..],
            b"content"
        );
    }
    Ok(())
}

fn a1_is_storage_area_1_with_a_recommendation_and_a2_is_storage_area_2<C: Cloud>() -> Result<()> {
    let a1 = "new objects are encrypted in format A1, as the C++ plugins do; where no such plugin uses this bucket, \
              \"Format\": \"A2\" is stronger and faster";
    for options in [json!({}), json!({"Format": "A1"}), json!({"Enable": true})] {
        let setup = Setup::<C>::encrypted_with(&json!({}), &options)?;
        assert_eq!(setup.host.registered(), StorageAreaVersion::One);
        assert_eq!(warnings::<C>(&setup.host), [a1]);
    }
    let setup = Setup::<C>::encrypted("A2")?;
    assert_eq!(setup.host.registered(), StorageAreaVersion::Two);
    assert_eq!(warnings::<C>(&setup.host), [""; 0]);
    Ok(())
}

fn the_section_at_the_root_is_honoured_with_a_warning<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let keys = Keys::new()?;
    let encryption = keys.section(&json!({"Format": "A2"}));
    let host = start::<C>(&server, None, Some(encryption.clone()))??;
    assert_eq!(
        warnings::<C>(&host),
        [format!(
            "StorageEncryption at the root of the configuration is deprecated: move it into {}",
            C::SECTION
        )]
    );
    assert_eq!(host.create(UUID, 1, b"content"), Ok(()));
    assert_eq!(server.keys(C::BUCKET), [format!("{UUID}.dcm.enc")]);

    // The same twice is no contradiction, and an empty one says nothing.
    let host = start::<C>(&server, Some(encryption.clone()), Some(encryption.clone()))??;
    assert_eq!(warnings::<C>(&host), [""; 0]);
    let host = start::<C>(&server, Some(encryption.clone()), Some(json!({})))??;
    assert_eq!(warnings::<C>(&host), [""; 0]);
    let host = start::<C>(&server, None, Some(json!({})))??;
    assert_eq!(host.registered(), StorageAreaVersion::Two);

    let mistaken = refused::<C>(&server, None, Some(json!({"Format": "A2"})))?;
    assert!(mistaken.starts_with("option StorageEncryption.MasterKey is missing"), "{mistaken}");
    Ok(())
}

fn two_different_sections_are_refused<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let keys = Keys::new()?;
    let own = keys.section(&json!({"Format": "A2"}));
    for root in [keys.section(&json!({})), with(own.clone(), &json!({"Enable": false}))] {
        for (own, root) in
            [(own.clone(), root.clone()), (root.clone(), own.clone()), (json!({}), root.clone())]
        {
            assert_eq!(
                refused::<C>(&server, Some(own), Some(root))?,
                format!(
                    "option {}.StorageEncryption differs from the one at the root of the configuration: \
                     remove one of the two",
                    C::SECTION
                )
            );
        }
    }
    Ok(())
}

fn a_key_file_that_others_can_use_gets_a_warning<C: Cloud>() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let server = C::server()?;
    let keys = Keys::new()?;
    let path = keys.path("key-7.b64");
    for (mode, warned) in [(0o400, false), (0o600, false), (0o640, true), (0o604, true), (0o644, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let options = json!({"Format": "A2", "PreviousMasterKeys": [keys.entry(7)]});
        let host = start::<C>(&server, Some(keys.section(&options)), None)??;
        let warning = format!("the key file {path:?} can be used by others than its owner: chmod 600 it");
        let expected = if warned { vec![warning] } else { Vec::new() };
        assert_eq!(warnings::<C>(&host), expected, "{mode:o}");
    }
    Ok(())
}

fn an_unknown_option_gets_a_warning<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted_with(
        &json!({}),
        &json!({"Format": "A2", "MaxConcurentInputSize": 1, "Key": "x"}),
    )?;
    assert_eq!(
        warnings::<C>(&setup.host),
        [format!(
            "unknown options in the section \"{}.StorageEncryption\", which have no effect: Key, MaxConcurentInputSize",
            C::SECTION
        )]
    );
    Ok(())
}
