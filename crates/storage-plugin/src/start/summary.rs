//! What the plugin says about itself: in the log at start, and in `GET /object-storage/status`.

use crypto_envelope::Format;
use hybrid::Side;
use serde_json::{Value, json};

use crate::config::CommonOptions;
use crate::operations::Facts;
use crate::provider::Provider;

/// The fields of `GET /object-storage/status` that follow from the configuration.
pub(crate) fn facts<P: Provider>(bucket: &str, common: &CommonOptions) -> Facts {
    let mode = match common.hybrid.as_ref().map(|options| options.first) {
        None => "Disabled",
        Some(Side::FileSystem) => "WriteToFileSystem",
        Some(Side::ObjectStorage) => "WriteToObjectStorage",
    };
    let encryption = common.encryption.as_ref().map_or(Value::Null, |options| {
        json!({
            "Format": options.format.to_string(),
            "MasterKeyId": options.ring.current_id(),
            "KeyIds": options.ring.ids().collect::<Vec<_>>(),
            "ReadFormats": options.read_formats.iter().map(Format::to_string).collect::<Vec<_>>(),
            "ReadUnencrypted": options.read_unencrypted,
        })
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Facts { version, provider: P::SECTION, bucket: bucket.to_owned(), mode, encryption }
}
