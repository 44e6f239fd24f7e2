//! The plugin's section, and what it keeps on the disk.

use serde_json::Value;

use crate::facts::{Encryption, Facts, StorageFacts};
use crate::finding::{Area, Check, Finding};
use crate::general::shared_files;
use crate::options::{Options, listed};

const AREA: Area = Area::Storage;

/// Plugins that keep the index in a database server: their sections, and the names that they give themselves.
const INDEX_PLUGINS: [(&str, &str); 3] =
    [("PostgreSQL", "postgresql-index"), ("MySQL", "mysql-index"), ("Odbc", "odbc-index")];

pub(crate) fn check(options: &Options<'_>, facts: &Facts) -> Vec<Finding> {
    let storage = &facts.storage;
    vec![
        endpoint(storage),
        encryption(storage),
        format(storage),
        key_files(storage),
        key_disk(options, facts),
        state(storage),
        maximum_size(options),
    ]
}

fn endpoint(storage: &StorageFacts) -> Finding {
    let check = AREA.check("storage-endpoint", "server of the bucket");
    if storage.is_endpoint_exposed {
        return check.critical(
            storage.endpoint.as_str(),
            "images cross the network in clear: use https, with your authority in HttpsCACertificates if it is your own",
        );
    }
    check.ok(storage.endpoint.as_str())
}

fn encryption(storage: &StorageFacts) -> Finding {
    let option = format!("{}.StorageEncryption", storage.section);
    let check = AREA.check("storage-encryption", &option);
    match &storage.encryption {
        Some(_) => check.ok("on"),
        None => check.warning(
            "off",
            "anyone who can read the bucket can read the images: set MasterKey and \"Format\": \"A2\" (docs/encryption.md)",
        ),
    }
}

fn format(storage: &StorageFacts) -> Finding {
    let option = format!("{}.StorageEncryption.Format", storage.section);
    let check = AREA.check("storage-encryption-format", &option);
    match &storage.encryption {
        None => check.ok("without effect, since encryption is off"),
        Some(Encryption { format, .. }) if format == "A1" => check.warning(
            format.as_str(),
            "set \"Format\": \"A2\" if no C++ plugin uses this bucket: A1 does not protect against the replacement of images",
        ),
        Some(encryption) => accepted_formats(check, encryption),
    }
}

/// The finding about what is read besides format A2.
fn accepted_formats(check: Check<'_>, encryption: &Encryption) -> Finding {
    let Encryption { format, reads_a1, reads_unencrypted, reads_key_vault } = encryption;
    let forms = [
        (*reads_unencrypted, "unencrypted attachments", "set \"ReadUnencrypted\": false"),
        (*reads_a1, "A1", "set \"ReadFormats\": [\"A2\"]"),
        (
            *reads_key_vault,
            "blobs of the earlier plugin for Azure Key Vault",
            "remove AzureKeyVault and EnableStorage (docs/migrating.md)",
        ),
    ];
    let accepted: Vec<_> = forms.iter().filter(|(is_read, ..)| *is_read).collect();
    if accepted.is_empty() {
        return check.ok(format.as_str());
    }
    let names: Vec<_> = accepted.iter().map(|(_, name, _)| *name).collect();
    let options: Vec<_> = accepted.iter().map(|(.., option)| *option).collect();
    check.warning(
        format!("{format}; also read: {}", names.join(", ")),
        format!(
            "{} if the bucket has no such objects (POST /object-storage/reencrypt brings them into format A2): anyone \
             who can write to the bucket can replace images",
            options.join(" and ")
        ),
    )
}

fn key_files(storage: &StorageFacts) -> Finding {
    let check = AREA.check("storage-key-files", "files with master keys");
    if storage.key_files.is_empty() {
        return check.ok("none");
    }
    shared_files(check, &storage.key_files, "chown root:orthanc FILE && chmod 640 FILE")
}

/// A stolen disk, or a backup of it, with both the keys and the index also reveals the images.
fn key_disk(options: &Options<'_>, facts: &Facts) -> Finding {
    let storage = &facts.storage;
    let check = AREA.check("storage-key-disk", "file system of the master keys");
    if storage.key_files.is_empty() {
        return check.ok("none");
    }
    let has_server = INDEX_PLUGINS.iter().any(|(section, plugin)| {
        let section = options.object(section).ok().flatten();
        let is_loaded = facts.plugins.iter().any(|loaded| loaded == plugin);
        is_loaded && section.is_some_and(|section| section.get("EnableIndex") == Some(&Value::Bool(true)))
    });
    if has_server {
        return check.ok("the index is in a database server");
    }
    let device = |access: Option<crate::Access>| access.map(|access| access.device);
    let index = storage.index.as_ref().and_then(|index| device(index.access));
    let keys: Vec<_> = storage.key_files.iter().map(|key| (key.path.as_str(), device(key.access))).collect();
    let Some(index) = index.filter(|_| keys.iter().all(|(_, device)| device.is_some())) else {
        let advice = "it could not be determined: check that the keys are not on the disk of the index, nor in its backups";
        return check.warning("unknown", advice);
    };
    let with_index: Vec<_> =
        keys.iter().filter(|(_, device)| *device == Some(index)).map(|(path, _)| *path).collect();
    if with_index.is_empty() {
        return check.ok("not that of the index");
    }
    check.warning(
        format!("that of the index: {}", listed(with_index)),
        "keep the keys on another file system, so that no stolen disk and no backup has both: use a key service, or \
         LoadCredential= of systemd (docs/security.md)",
    )
}

fn state(storage: &StorageFacts) -> Finding {
    let option = format!("{}.StateDirectory", storage.section);
    let check = AREA.check("storage-state-directory", &option);
    match &storage.state {
        None => check.ok("not used"),
        Some(state) => shared_files(check, std::slice::from_ref(state), "chmod 750 FOLDER"),
    }
}

fn maximum_size(options: &Options<'_>) -> Finding {
    let check = AREA.check("storage-maximum-size", "MaximumStorageSize");
    match options.number(check.option, 0) {
        Err(wrong) => wrong.finding(check),
        Ok(setting) if setting.value == 0 => check.ok(setting.shown),
        Ok(setting) => check.warning(
            format!("{} MB", setting.shown),
            "set it to 0: a bucket does not fill up, and Orthanc deletes the oldest patients, or refuses new images, when \
             this size is reached, so that anyone who can store images can make others disappear",
        ),
    }
}
