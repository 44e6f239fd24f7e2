//! `StowRs`: the gateway that stores instances by their UIDs.

use std::time::Duration;

use bucket::OWN_FOLDER;
use storage_layout::RootPath;
use url::Url;

use super::{ConfigError, Section};

/// The section.
pub(crate) const STOW_RS: &str = "StowRs";

const DEFAULT_ROOT: &str = "/stow-rs";
/// Clients and proxies give up before.
const LONGEST_DELAY: u64 = 600;

/// The options of an enabled gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StowOptions {
    /// The path of the route, without a slash at its end: `/stow-rs`.
    pub(crate) root: String,
    /// The folder of the objects in the bucket, outside the plugin's root path.
    pub(crate) prefix: RootPath,
    /// The URL on which answers build those of instances, without a slash at its end; `None` to leave them out.
    pub(crate) wado_url: Option<String>,
    /// The time between the last upload and the answer.
    pub(crate) delay: Duration,
    /// Whether the objects are encrypted.
    pub(crate) encrypt: bool,
}

/// Reads the section; `None` if the gateway is not enabled. `encrypts` says whether the plugin encrypts attachments.
pub(super) fn read(section: &mut Section<'_>, encrypts: bool) -> Result<Option<StowOptions>, ConfigError> {
    let options = section.subsection(STOW_RS, |section| {
        let enabled = section.flag("Enable", false)?;
        let root = section.non_empty("Root")?.unwrap_or_else(|| DEFAULT_ROOT.to_owned());
        let root = root_path(&root).map_err(|problem| section.error("Root", problem))?;
        let prefix = section.string("Prefix")?.unwrap_or_default();
        let prefix = prefix_of(&prefix).map_err(|problem| section.error("Prefix", problem))?;
        let wado_url = section.non_empty("WadoUrl")?;
        let wado_url = wado_url
            .map(|url| wado_url_of(&url).map_err(|problem| section.error("WadoUrl", problem)))
            .transpose()?;
        let delay = Duration::from_secs(section.number("ResponseDelay", 0, 0..=LONGEST_DELAY)?);
        let encrypt = section.flag("Encrypt", false)?;
        if enabled && encrypt && !encrypts {
            let problem = "requires client-side encryption: set StorageEncryption in the plugin's section";
            return Err(section.error("Encrypt", problem));
        }
        Ok((enabled, StowOptions { root, prefix, wado_url, delay, encrypt }))
    })?;
    Ok(options.and_then(|(enabled, options)| enabled.then_some(options)))
}

/// Returns the folder of the objects. Folders of the plugin's own objects are refused in any place: this Orthanc, or another
/// one on the bucket, may have its root path there.
fn prefix_of(text: &str) -> Result<RootPath, String> {
    if text.split('/').any(|folder| folder == OWN_FOLDER) {
        return Err(format!(
            "must not contain the folder {OWN_FOLDER:?} of the plugin's own objects, got {text:?}"
        ));
    }
    RootPath::new(text.trim_end_matches('/')).map_err(|error| format!("is not valid: {error}"))
}

/// Returns the path of a route without the slash at its end. Orthanc reads routes as regular expressions, so the
/// characters are limited.
fn root_path(root: &str) -> Result<String, String> {
    let trimmed = root.trim_end_matches('/');
    let is_folder = |folder: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !folder.is_empty() && folder.bytes().all(is_plain)
    };
    match trimmed.strip_prefix('/') {
        Some(folders) if folders.split('/').all(is_folder) => Ok(trimmed.to_owned()),
        _ => Err(format!(
            "must be a path of letters, digits, \"-\" and \"_\" like {DEFAULT_ROOT:?}, got {root:?}"
        )),
    }
}

/// Returns a URL without the slash at its end.
fn wado_url_of(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(format!("must begin with http:// or https://, got {:?}", url.scheme()))
        }
        Ok(url) if url.password().is_some() || !url.username().is_empty() => {
            Err("must not contain a user or password: answers contain it".to_owned())
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err("must not contain \"?\" or \"#\": paths are appended to it".to_owned())
        }
        Ok(_) => Ok(text.trim_end_matches('/').to_owned()),
        Err(error) => Err(format!("must be a URL like \"https://pacs.example.org/dicom-web\": {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &serde_json::Value) -> Result<Option<StowOptions>, String> {
        let configuration = json!({"Cloud": {"StowRs": options}});
        let configuration = configuration.as_object().ok_or("no object")?;
        let section = Section::find(configuration, "Cloud").map_err(|error| error.to_string())?;
        super::read(&mut section.ok_or("no section")?, false).map_err(|error| error.to_string())
    }

    #[test]
    fn slashes_at_the_end_are_ignored() {
        let options = json!({"Enable": true, "Root": "/a/b/", "Prefix": "c/d.orthanc-object-storage/", "WadoUrl": "https://e/f/"});
        let options = read(&options).unwrap().unwrap();
        assert_eq!((options.root.as_str(), options.wado_url.as_deref()), ("/a/b", Some("https://e/f")));
        assert_eq!(options.prefix.join("x"), "c/d.orthanc-object-storage/x");
    }

    #[test]
    fn gateway_is_off_by_default() {
        assert_eq!(read(&json!({})), Ok(None));
        assert_eq!(read(&json!({"Enable": true})).unwrap().unwrap().root, "/stow-rs");
    }

    #[test]
    fn mistakes_are_explained() {
        for (options, message) in [
            (json!({"Root": "stow"}), "`Cloud.StowRs.Root` must be a path of letters"),
            (json!({"Root": "/"}), "`Cloud.StowRs.Root` must be a path of letters"),
            (json!({"Root": "/a.*"}), "`Cloud.StowRs.Root` must be a path of letters"),
            (json!({"Prefix": "../a"}), "`Cloud.StowRs.Prefix` is not valid"),
            (
                json!({"Prefix": ".orthanc-object-storage/"}),
                "`Cloud.StowRs.Prefix` must not contain the folder",
            ),
            (
                json!({"Prefix": "a/.orthanc-object-storage/b"}),
                "`Cloud.StowRs.Prefix` must not contain the folder",
            ),
            (json!({"WadoUrl": "ftp://a"}), "`Cloud.StowRs.WadoUrl` must begin with http"),
            (json!({"WadoUrl": "https://u:p@a"}), "`Cloud.StowRs.WadoUrl` must not contain a user"),
            (json!({"WadoUrl": "https://a?b"}), "`Cloud.StowRs.WadoUrl` must not contain \"?\""),
            (json!({"WadoUrl": "a/b"}), "`Cloud.StowRs.WadoUrl` must be a URL"),
            (json!({"ResponseDelay": -1}), "`Cloud.StowRs.ResponseDelay`"),
            (json!({"Enable": true, "Encrypt": true}), "`Cloud.StowRs.Encrypt` requires client-side"),
        ] {
            let error = read(&options).unwrap_err();
            assert!(error.starts_with(message), "{options}: {error}");
        }
    }
}
