//! What is compared: storages, and builds of the plugin.

use xtask::options::cloud::{Choice, Storage};

/// A storage of an Orthanc, and the build of the plugin that provides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) storage: Storage,
    /// Whether it is the build of `--against`, instead of that of this source tree.
    pub(super) is_before: bool,
}

impl Variant {
    /// A storage with the build of this source tree.
    pub(super) const fn now(storage: Storage) -> Self {
        Self { storage, is_before: false }
    }

    /// The same storage with the other build.
    pub(super) const fn before(storage: Storage) -> Self {
        Self { storage, is_before: true }
    }

    /// Those of a run, in the order of the tables. Builds of a storage take turns directly after each other.
    pub(super) fn all(storages: &[Storage], has_other_build: bool) -> Vec<Self> {
        let builds = |storage: &Storage| {
            let now = Self::now(*storage);
            let is_compared = has_other_build && !now.is_built_in();
            [Some(now), is_compared.then_some(Self::before(*storage))]
        };
        storages.iter().flat_map(builds).flatten().collect()
    }

    pub(super) fn is_built_in(self) -> bool {
        self.storage == Storage::BuiltIn
    }

    pub(super) fn is_encrypted(self) -> bool {
        matches!(self.storage, Storage::A1 | Storage::A2)
    }

    /// The storage without encryption, with the same build.
    pub(super) fn in_clear(self) -> Self {
        Self { storage: Storage::Clear, ..self }
    }

    /// In tables.
    pub(super) fn title(self) -> String {
        let storage = match self.storage {
            Storage::WriteBack => "WriteBack",
            other => other.name(),
        };
        match (self.storage, self.is_before) {
            (Storage::Clear, true) => "before".to_owned(),
            (_, true) => format!("{storage} before"),
            (_, false) => storage.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_build_follows_each_storage_of_the_plugin() {
        let titles = |has_other_build| {
            let variants = Variant::all(Storage::ALL, has_other_build);
            variants.into_iter().map(Variant::title).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(titles(false), "built-in, clear, A1, A2, WriteBack");
        let both = "built-in, clear, before, A1, A1 before, A2, A2 before, WriteBack, WriteBack before";
        assert_eq!(titles(true), both);
    }
}
