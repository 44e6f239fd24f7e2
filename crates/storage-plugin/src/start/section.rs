//! The plugin's section of Orthanc's configuration.

use std::sync::Arc;

use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};

use crate::config::{
    CommonOptions, ConfigError, KeyServices, NetworkOptions, OpenKeyService, Section, is_comment, resembles,
};
use crate::operations::key_calls::KeyServiceCalls;
use crate::provider::{Provider, ProviderContext};

/// The options that name the bucket, of all clouds.
const BUCKET: &[&str] = &["BucketName", "ContainerName"];

/// The plugin's section, under its present or its older name.
///
/// # Errors
///
/// Returns an error if the section is missing and another one has a similar name.
pub(crate) fn section<P: Provider>(
    configuration: &Map<String, Value>,
) -> Result<Option<Section<'_>>, ConfigError> {
    if let Some(section) = Section::find(configuration, P::SECTION)? {
        return Ok(Some(section));
    }
    if let Some(name) = configuration.keys().find(|name| !is_comment(name) && resembles(name, P::SECTION)) {
        let problem = format!("is not a section; did you mean {}?", P::SECTION);
        return Err(Section::root(configuration).error(name, problem));
    }
    let Some(older) = P::OLDER_SECTION else { return Ok(None) };
    let section = Section::find(configuration, older)?;
    if section.is_some() {
        tracing::warn!("the section {older:?} is deprecated; rename it to {:?}", P::SECTION);
    }
    Ok(section)
}

/// Reads the options that all clouds share. `calls` counts the requests to key services.
///
/// # Errors
///
/// Returns an error if one of them, or of the cloud's key service, is not valid.
pub(crate) fn common<'a, P: Provider>(
    section: &mut Section<'a>,
    configuration: &'a Map<String, Value>,
    context: &ProviderContext<'_>,
    calls: &Arc<KeyServiceCalls>,
) -> Result<CommonOptions, InitializeError> {
    let name = section.name().to_owned();
    let mut open = |service: &mut Section<'_>| {
        let mut own = Section::find(configuration, &name)?.unwrap_or_else(|| Section::root(configuration));
        Ok(calls.counting(P::key_service(service, &mut own, context)?))
    };
    CommonOptions::read(section, configuration, &mut key_services::<P>(&mut open))
}

fn key_services<'f, P: Provider>(open: &'f mut OpenKeyService<'f>) -> KeyServices<'f> {
    KeyServices { name: P::KEY_SERVICE, has_earlier: P::HAS_KEY_VAULT_BLOBS, open }
}

/// Checks the names of the options, after all of them have been read.
///
/// # Errors
///
/// As [`Section::check_names`].
pub(crate) fn check_names(
    section: &Section<'_>,
    configuration: &Map<String, Value>,
) -> Result<(), ConfigError> {
    section.check_names()?;
    warn_of_misplaced(section, section.name(), configuration);
    Ok(())
}

/// Whether the plugin is to be used, which the earlier plugin for Azure Key Vault had an option for.
pub(crate) fn is_enabled<P: Provider>(section: &mut Section<'_>) -> Result<bool, ConfigError> {
    let is_enabled = !P::HAS_KEY_VAULT_BLOBS || section.flag("EnableStorage", true)?;
    if !is_enabled {
        tracing::warn!("`{}.EnableStorage` is false: the plugin is disabled", section.name());
    }
    Ok(is_enabled)
}

/// Logs that the plugin is disabled, and names the options that were written without its section.
pub(crate) fn warn_of_missing<P: Provider>(
    configuration: &Map<String, Value>,
) -> Result<(), InitializeError> {
    tracing::warn!("the configuration has no section {:?}: the plugin is disabled", P::SECTION);
    let empty = Map::new();
    let mut section = Section::root(&empty);
    section.know(BUCKET);
    let mut none = |_: &mut Section<'_>| Err(InitializeError::new("not configured"));
    CommonOptions::read(&mut section, &empty, &mut key_services::<P>(&mut none))?;
    NetworkOptions::read(&mut section, None)?;
    warn_of_misplaced(&section, P::SECTION, configuration);
    Ok(())
}

/// Warns of options at the root of the configuration. Orthanc has none of the same name.
fn warn_of_misplaced(section: &Section<'_>, name: &str, configuration: &Map<String, Value>) {
    let mut misplaced = section.read_options_in(configuration);
    // It was there before release 1.0, and is still read.
    misplaced.retain(|option| *option != "StorageEncryption");
    if !misplaced.is_empty() {
        tracing::warn!(
            "options at the root of the configuration, which have no effect there: {}; move them into the section {name:?}",
            misplaced.join(", ")
        );
    }
}
