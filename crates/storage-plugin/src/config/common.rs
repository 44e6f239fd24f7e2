//! The options that do not depend on the cloud.

use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};
use storage_layout::{RootPath, Structure};

use super::Section;
use super::encryption::{EncryptionOptions, KeyServices, StorageEncryption};
use super::hybrid::HybridOptions;
use super::state::StateOptions;
use super::stow::StowOptions;
use super::{stow, verification};
use crate::verifying::Schedule;

/// The options of a plugin's section that all clouds share.
#[derive(Debug)]
pub(crate) struct CommonOptions {
    /// `RootPath`.
    pub(crate) root: RootPath,
    /// `StorageStructure`.
    pub(crate) structure: Structure,
    /// `EnableLegacyUnknownFiles`.
    pub(crate) legacy_unknown_files: bool,
    /// `VerifyChecksums`.
    pub(crate) verify_checksums: bool,
    /// `CheckWrite`.
    pub(crate) check_write: bool,
    /// `EnablePage`.
    pub(crate) has_page: bool,
    /// `HybridMode`; `None` if only the bucket is used.
    pub(crate) hybrid: Option<HybridOptions>,
    /// `StateDirectory` and `DeletionDelay`.
    pub(crate) state: StateOptions,
    /// `Verification`; `None` if only users start verifications.
    pub(crate) verification: Option<Schedule>,
    /// `StowRs`; `None` if the gateway is off.
    pub(crate) stow: Option<StowOptions>,
    /// Whether there may be blobs of the earlier plugin for Azure Key Vault.
    pub(crate) key_vault_blobs: bool,
    /// `StorageEncryption`; `None` to store attachments unencrypted.
    pub(crate) encryption: Option<EncryptionOptions>,
    /// How attachments were encrypted before encryption was switched off, if they are to be read.
    pub(crate) decryption: Option<EncryptionOptions>,
}

impl CommonOptions {
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
        services: &mut KeyServices<'_>,
    ) -> Result<Self, InitializeError> {
        let root_path = section.string("RootPath")?.unwrap_or_default();
        let root = RootPath::new(&root_path)
            .map_err(|error| section.error("RootPath", format!("is not valid: {error}")))?;
        if root_path.contains('\\') || root_path.split('/').any(|folder| folder.trim() != folder) {
            // Objects that were stored under such a name stay readable.
            tracing::warn!(
                "RootPath is {root_path:?}, which has blanks or backslashes; check that they are meant"
            );
        }
        let structure = match section.choice("StorageStructure", &["flat", "legacy"])? {
            Some("legacy") => Structure::Legacy,
            _ => Structure::Flat,
        };
        let legacy_unknown_files = section.flag("EnableLegacyUnknownFiles", false)?;
        let verify_checksums = section.flag("VerifyChecksums", true)?;
        let check_write = section.flag("CheckWrite", true)?;
        let has_page = section.flag("EnablePage", true)?;
        let hybrid = HybridOptions::read(section, configuration)?;
        let state = StateOptions::read(section, configuration)?;
        let verification = verification::read(section)?;
        let key_vault_blobs =
            services.has_earlier && (section.has("AzureKeyVault") || section.has("EnableStorage"));
        let (encryption, decryption) = match EncryptionOptions::read(section, configuration, services)? {
            StorageEncryption::Off => (None, None),
            StorageEncryption::OnlyRead(options) => (None, Some(options)),
            StorageEncryption::On(options) => (Some(options), None),
        };
        let stow = stow::read(section, encryption.is_some())?;
        Ok(Self {
            root,
            structure,
            legacy_unknown_files,
            verify_checksums,
            check_write,
            has_page,
            hybrid,
            state,
            verification,
            stow,
            key_vault_blobs,
            encryption,
            decryption,
        })
    }
}
