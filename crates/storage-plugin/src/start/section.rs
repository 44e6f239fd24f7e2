//! The plugin's section of Orthanc's configuration.

use serde_json::{Map, Value};

use crate::config::{ConfigError, Section};
use crate::provider::Provider;

/// The plugin's section, under its present or its older name.
pub(crate) fn section<P: Provider>(
    configuration: &Map<String, Value>,
) -> Result<Option<Section<'_>>, ConfigError> {
    if let Some(section) = Section::find(configuration, P::SECTION)? {
        return Ok(Some(section));
    }
    let Some(older) = P::OLDER_SECTION else { return Ok(None) };
    let section = Section::find(configuration, older)?;
    if section.is_some() {
        tracing::warn!("the section {older:?} is deprecated; rename it to {:?}", P::SECTION);
    }
    Ok(section)
}
