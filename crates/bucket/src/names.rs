//! The names that the object of an attachment may have.

use std::collections::BTreeSet;

use storage_layout::{Attachment, Layout, Structure};

use crate::object_storage::{Naming, ObjectStorage};

impl ObjectStorage {
    /// The names that an attachment's object may have in any configuration with this root.
    pub(crate) fn every_name(&self, attachment: &Attachment) -> Vec<String> {
        let structures = [Structure::Flat, Structure::Legacy].into_iter();
        let layouts = structures.flat_map(|structure| {
            [false, true].map(|encrypted| Layout { structure, encrypted, ..self.layout.clone() })
        });
        let names = layouts.flat_map(|layout| {
            let names = [Some(layout.object_name(attachment)), layout.legacy_unknown_name(attachment)];
            let names: Vec<_> = names.into_iter().flatten().collect();
            names
                .iter()
                .filter_map(|name| self.backslash_name(&layout, name))
                .chain(names.clone())
                .collect::<Vec<_>>()
        });
        let key_vault = self.key_vault_blobs.then(|| attachment.key_vault_names());
        // In the legacy structure, encrypted objects have the same names.
        names.chain(key_vault.into_iter().flatten()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The names that an attachment's object may have, the regular one first.
    pub(crate) fn names(&self, attachment: &Attachment) -> Vec<(String, Naming)> {
        let layout = &self.layout;
        let mut names = self.names_in(layout, self.naming(), attachment);
        if layout.encrypted && self.read_unencrypted && layout.structure == Structure::Flat {
            let clear = Layout { encrypted: false, ..layout.clone() };
            names.extend(self.names_in(&clear, Naming::Clear, attachment));
        }
        if self.reads_encrypted && !layout.encrypted && layout.structure == Structure::Flat {
            let encrypted = Layout { encrypted: true, ..layout.clone() };
            names.extend(self.names_in(&encrypted, Naming::Envelope, attachment));
        }
        let old = |(name, naming): &(String, _)| Some((self.backslash_name(layout, name)?, *naming));
        names.extend(names.iter().filter_map(old).collect::<Vec<_>>());
        if self.key_vault_blobs {
            names.extend(attachment.key_vault_names().map(|name| (name, Naming::KeyVault)));
        }
        names
    }

    fn backslash_name(&self, layout: &Layout, name: &str) -> Option<String> {
        let has_them = self.bucket.options.backslash_names == Some(true);
        has_them.then(|| layout.backslash_name(name)).flatten()
    }

    fn names_in(&self, layout: &Layout, naming: Naming, attachment: &Attachment) -> Vec<(String, Naming)> {
        let unknown = if self.legacy_unknown_files { layout.legacy_unknown_name(attachment) } else { None };
        std::iter::once(layout.object_name(attachment)).chain(unknown).map(|name| (name, naming)).collect()
    }
}
