//! Mistakes in what all clouds have in common.

use std::fs;

use anyhow::Result;
use fake_cloud::{BUCKET, Fault, Odd};
use serde_json::{Value, json};

use super::setup::Setup;
use super::{Make, Mistake, reports, stops, warns};
use crate::fixture::request;

pub(super) const MISTAKES: &[Mistake] = &[
    warns(&["the configuration has no section \"…\""], |it| it.replace(None)),
    stops(&["must be a string"], |it| it.set("RootPath", 7)),
    stops(&["must be true or false"], |it| it.set("VerifyChecksums", "true")),
    stops(&["must be an integer from … to …"], |it| it.set("MaxConnections", "25")),
    stops(&["must be one of …"], |it| it.set("StorageStructure", "Flat")),
    stops(&["must be an object {…}"], |it| it.set("StorageEncryption", "hunter2")),
    stops(&["is missing"], |it| it.change(&json!({it.bucket_option: null}))),
    stops(&["must not be empty"], |it| it.set(it.bucket_option, "")),
    stops(&["is not an option; did you mean …?"], |it| it.set("RootPaht", "x")),
    stops(&["is not an option; did you mean …?"], |it| {
        it.set("StorageEncyption", json!({"MasterKey": "hunter2"}))
    }),
    stops(&["is not an option; did you mean …?"], |it| it.set("MasterKeys", "hunter2")),
    stops(&["is not an option; did you mean …?"], |it| it.encrypt(&json!({"ReadUnencrypt": true}))),
    stops(&["is not an option; did you mean …?"], |it| {
        it.set("Encryption", json!({"MasterKey": [1, "hunter2"]}))
    }),
    warns(&["options at the root of the configuration, which have no effect there: …"], |it| {
        it.root("RootPath", "x")
    }),
    warns(&["unknown options in the section \"…\""], |it| it.set("ColourOfTheBucket", "hunter2")),
    warns(&["… is deprecated"], |it| it.set("MigrationFromFileSystemEnabled", true)),
    stops(&["the path must not begin with \"/\""], |it| it.set("RootPath", "/orthanc")),
    stops(&["the path must not contain empty folders"], |it| it.set("RootPath", "orthanc//ct")),
    warns(&["which has blanks or backslashes; check that they are meant"], |it| {
        it.set("RootPath", "orthanc ")
    }),
    stops(&["must name a readable file"], |it| it.root("HttpsCACertificates", "/nowhere/ca.pem")),
    stops(&["must be a PEM file with at least one certificate"], |it| {
        let file = it.keys.write("ca.pem", "hunter2")?;
        it.root("HttpsCACertificates", file)
    }),
    stops(&["must be [protocol://][user:password@]host[:port]"], |it| it.root("HttpProxy", "hunter2@:80")),
    stops(&["must be [protocol://][user:password@]host[:port]"], |it| it.set("Proxy", "orthanc:hunter2@:80")),
    stops(&["`StorageDirectory` cannot be used"], |it| {
        it.set("HybridMode", "WriteToFileSystem")?;
        it.root("StorageDirectory", "/proc/orthanc")
    }),
    stops(&["was removed; delete this section"], |it| {
        it.change(&json!({"HybridMode": "WriteToFileSystem", "Offload": {"AfterDays": 30}}))
    }),
    stops(&["requires \"HybridMode\": \"WriteBack\""], |it| it.set("WriteBack", json!({"MaxCacheMB": 5}))),
    stops(&["is not an option; did you mean …?"], |it| write_back(it, &json!({"MaxCacheMb": 5}))),
    stops(&["\"HybridMode\": \"WriteBack\" requires a StateDirectory that can be written to"], |it| {
        it.change(&json!({"HybridMode": "WriteBack", "StateDirectory": "/proc/orthanc"}))
    }),
    stops(&["must be a path of letters, digits, \"-\" and \"_\" like \"/stow-rs\""], |it| {
        stow(it, &json!({"Root": "stow-rs"}))
    }),
    stops(&["the path must not begin with \"/\""], |it| stow(it, &json!({"Prefix": "/stow"}))),
    stops(&["must not contain the folder \".orthanc-object-storage\" of the plugin's own objects"], |it| {
        stow(it, &json!({"Prefix": "a/.orthanc-object-storage"}))
    }),
    stops(&["must be an integer from … to …"], |it| stow(it, &json!({"ResponseDelay": 601}))),
    stops(&["must be a URL like \"https://pacs.example.org/dicom-web\""], |it| {
        stow(it, &json!({"WadoUrl": "pacs.test/wado"}))
    }),
    stops(&["must begin with http:// or https://, got …"], |it| {
        stow(it, &json!({"WadoUrl": "ftp://pacs.test"}))
    }),
    stops(&["must not contain a user or password: answers contain it"], |it| {
        stow(it, &json!({"WadoUrl": "https://orthanc:hunter2@pacs.test"}))
    }),
    stops(&["must not contain \"?\" or \"#\": paths are appended to it"], |it| {
        stow(it, &json!({"WadoUrl": "https://pacs.test/?token=hunter2"}))
    }),
    stops(&["requires client-side encryption: set StorageEncryption in the plugin's section"], |it| {
        stow(it, &json!({"Enable": true, "Encrypt": true}))
    }),
    stops(&["must be two times of a day like \"02:00-06:00\""], |it| {
        it.set("Verification", json!({"Schedule": "2-6"}))
    }),
    warns(&["`Verification` requires a StateDirectory that can be written to"], |it| {
        it.change(&json!({"Verification": {}, "StateDirectory": "/proc/orthanc"}))
    }),
    warns(&["so nothing is cached"], |it| write_back(it, &json!({"KeepFreeMB": u64::from(u32::MAX)}))),
    warns(&["so the cache is limited by KeepFreeMB"], |it| {
        write_back(it, &json!({"MaxCacheMB": u64::from(u32::MAX)}))
    }),
    warns(&["in memory, so attachments that are still pending are lost when the machine restarts"], |it| {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        set_mode(&folder.path().display().to_string(), 0o777)?;
        it.change(&json!({"HybridMode": "WriteBack", "StateDirectory": folder.path()}))?;
        it.keep(folder);
        Ok(())
    }),
    warns(&["StateDirectory cannot be used"], |it| it.set("StateDirectory", "/proc/orthanc")),
    stops(&["StateDirectory has attachments that are in no bucket, so it must be writable"], |it| {
        let folder = tempfile::tempdir()?;
        let pending = folder.path().join("0/pending/fb");
        fs::create_dir_all(&pending)?;
        fs::write(pending.join("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.1"), "x")?;
        // Nobody can write a file in the place of a folder.
        fs::create_dir(folder.path().join("0/lock"))?;
        it.set("StateDirectory", folder.path().display().to_string())?;
        it.keep(folder);
        Ok(())
    }),
    stops(&["DeletionDelay requires a StateDirectory that can be written to"], |it| {
        it.change(&json!({"StateDirectory": "/proc/orthanc", "DeletionDelay": 60}))
    }),
    stops(&["must be a name alone, not …"], |it| it.set(it.bucket_option, "s3://images")),
    stops(&["must be a name alone, not …"], |it| it.set(it.bucket_option, "arn:aws:s3:::images")),
    stops(&["must be a name alone, not …"], |it| it.set(it.bucket_option, "images/ct")),
    stops(&["the bucket does not exist"], |it| it.set(it.bucket_option, "hospital")),
    stops(&["the answer does not come from the storage server", "this does not look like …"], |it| {
        it.answer(Fault::Odd(Odd::WebPage(200)))
    }),
    reports(&["continuing, but attachments cannot be stored in the bucket", "storing requires …"], |it| {
        it.deny(request::CREATE)
    }),
    warns(
        &["continuing; objects of deleted attachments will remain in the bucket", "deleting requires …"],
        |it| it.deny(request::REMOVE),
    ),
    warns(&["this object of an earlier start cannot be replaced"], |it| {
        it.server.insert(BUCKET, ".orthanc-object-storage/write-check", "x");
        it.deny(request::CREATE)
    }),
    warns(&["continuing, since the server may become available later"], |it| it.answer(Fault::slow_down())),
    warns(&["will contain unencrypted patient data"], |_| Ok(())),
    warns(&["new objects are encrypted in format A1"], |it| it.encrypt(&json!({"Format": "A1"}))),
    warns(&["objects in format A1 are accepted"], |it| it.encrypt(&json!({"Format": "A2"}))),
    stops(&["is missing; it must be [id, \"path of the key file\"]"], |it| {
        it.set("StorageEncryption", json!({"Format": "A2"}))
    }),
    stops(&["must be [id, \"path of the key file\"]"], |it| master(it, &json!("hunter2"))),
    stops(&["must name a readable key file"], |it| master(it, &json!([1, "/etc/orthanc/nowhere.key"]))),
    stops(&["must name a readable key file"], |it| {
        it.key_file("hunter2")?;
        set_mode(&it.keys.path("new.key"), 0o000)
    }),
    stops(&["must be the path of a key file, got a key"], |it| {
        let key = fs::read_to_string(it.keys.path("key-7.b64"))?;
        master(it, &json!([1, key.trim()]))
    }),
    stops(&["must name a valid key file", "the key file must be base64 text, got an invalid byte"], |it| {
        it.key_file("hunter2 is not a key!")
    }),
    stops(&["the key file must contain a key of 32 bytes"], |it| it.key_file("aHVudGVyMg==")),
    stops(&["the key file must be base64 text, got hexadecimal"], |it| it.key_file(&"b7".repeat(32))),
    stops(&["two master keys have the id …"], |it| {
        let other = json!([3, it.keys.path("key-7.b64")]);
        it.encrypt(&json!({"PreviousMasterKeys": [other]}))
    }),
    stops(&["differs from the section at the root of the configuration"], |it| {
        it.root("StorageEncryption", it.keys.section(&json!({})))?;
        it.encrypt(&json!({"Enable": false}))
    }),
    reports(&["is damaged, so it is not known whether master key … is the one used before"], |it| {
        it.server.insert(BUCKET, ".orthanc-object-storage/key-3", "hunter2");
        it.encrypt(&json!({}))
    }),
    Mistake {
        before: Some(|it| it.encrypt(&json!({}))),
        ..stops(&["master key … is not the key that was used under this id"], |it| {
            master(it, &json!([3, it.keys.path("key-7.b64")]))
        })
    },
    hides(
        &["it is not encrypted, so set \"ReadUnencrypted\": true"],
        |_| Ok(()),
        |it| it.encrypt(&json!({})),
    ),
    hides(&["it is encrypted, so configure StorageEncryption"], |it| it.encrypt(&json!({})), |_| Ok(())),
    hides(&["it is outside RootPath, so correct RootPath"], |_| Ok(()), |it| it.set("RootPath", "x")),
    hides(&["set \"StorageStructure\": \"…\""], |_| Ok(()), |it| it.set("StorageStructure", "legacy")),
    warns(&["other users can access the key file …"], |it| {
        it.encrypt(&json!({}))?;
        set_mode(&it.keys.path("key-3.b64"), 0o644)
    }),
];

/// A change of the configuration after which an instance is not found any more.
const fn hides(messages: &'static [&'static str], before: Make, make: Make) -> Mistake {
    Mistake { before: Some(before), ..reports(messages, make) }
}

fn stow(it: &mut Setup<'_>, section: &Value) -> Result<()> {
    it.set("StowRs", section.clone())
}

fn write_back(it: &mut Setup<'_>, section: &Value) -> Result<()> {
    it.change(&json!({"HybridMode": "WriteBack", "WriteBack": section}))
}

fn master(it: &mut Setup<'_>, key: &Value) -> Result<()> {
    it.set("StorageEncryption", json!({ "MasterKey": key }))
}

fn set_mode(path: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
