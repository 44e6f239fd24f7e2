//! Other storage plugins: Orthanc accepts one storage area.

use orthanc_ffi::{ErrorCode, InitializeError, OrthancError};
use serde_json::{Map, Value};

use crate::provider::Provider;

/// Sections of other storage plugins, with the option that enables each, and its default.
const OPTIONS: [(&str, &str, bool); 5] = [
    ("DelayedDeletion", "Enable", true),
    ("AdvancedStorage", "Enable", false),
    ("PostgreSQL", "EnableStorage", false),
    ("MySQL", "EnableStorage", false),
    ("Odbc", "EnableStorage", false),
];
/// Sections whose plugin is enabled if they exist.
const SECTIONS: [&str; 3] = ["AwsS3Storage", "AzureBlobStorage", "GoogleCloudStorage"];

/// Returns what disables the other storage plugins that the configuration enables.
fn remedies<P: Provider>(configuration: &Map<String, Value>) -> Vec<String> {
    let options = OPTIONS.iter().filter_map(|(section, option, default)| {
        let section_value = configuration.get(*section)?.as_object()?;
        let is_enabled = section_value.get(*option).map_or(Some(*default), Value::as_bool)?;
        is_enabled.then(|| format!("set `{section}.{option}` to false"))
    });
    let sections = SECTIONS.iter().filter(|section| **section != P::SECTION);
    let sections = sections.filter(|section| configuration.contains_key(**section));
    options.chain(sections.map(|section| format!("remove the section {section:?}"))).collect()
}

/// Warns of other storage plugins that the configuration enables. They may not be installed, or be loaded later, in which
/// case Orthanc does not use them.
pub(crate) fn warn<P: Provider>(configuration: &Map<String, Value>) {
    let remedies = remedies::<P>(configuration);
    if !remedies.is_empty() {
        tracing::warn!(
            "the configuration enables another storage plugin, but Orthanc uses only one: {}",
            remedies.join(", ")
        );
    }
}

/// Explains the failure to register the storage area.
pub(crate) fn explain<P: Provider>(
    error: OrthancError,
    configuration: &Map<String, Value>,
) -> InitializeError {
    if error.code() != ErrorCode::STORAGE_AREA_ALREADY_REGISTERED {
        return error.into();
    }
    let remedies = remedies::<P>(configuration);
    let remedy = if remedies.is_empty() {
        "remove the library of the other one, whose registration is above, from the folders in `Plugins`"
            .to_owned()
    } else {
        remedies.join(", ")
    };
    InitializeError::new(format!(
        "another plugin is Orthanc's storage already, and there can be only one: {remedy}, or remove the section {:?}",
        P::SECTION
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::messages::Cloud;

    #[test]
    fn enabled_storage_plugins_are_named_with_their_option() {
        let of = |configuration: Value| remedies::<Cloud>(configuration.as_object().unwrap()).join("; ");
        for harmless in [
            json!({"Cloud": {}, "PostgreSQL": {"EnableIndex": true}, "AdvancedStorage": {}}),
            json!({"DelayedDeletion": {"Enable": false}, "MySQL": {"EnableStorage": "odd"}, "Odbc": 7}),
        ] {
            assert_eq!(of(harmless), "");
        }
        assert_eq!(of(json!({"DelayedDeletion": {}})), "set `DelayedDeletion.Enable` to false");
        let several = json!({"PostgreSQL": {"EnableStorage": true}, "AwsS3Storage": {}});
        assert_eq!(
            of(several),
            "set `PostgreSQL.EnableStorage` to false; remove the section \"AwsS3Storage\""
        );
    }
}
