//! The documents in which Azure lists things, as far as they are read here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A page of a container.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    #[serde(rename = "Blobs")]
    pub(crate) blobs: Blobs,
    #[serde(rename = "NextMarker")]
    pub(crate) next_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Blobs {
    #[serde(rename = "Blob")]
    pub(crate) blobs: Vec<Named>,
}

/// A blob or a container.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    #[serde(rename = "Name")]
    pub(crate) name: String,
}

/// The containers of an account; there are never so many here that a second page follows.
#[derive(Debug, Deserialize)]
pub(crate) struct Containers {
    #[serde(rename = "Containers")]
    pub(crate) containers: ContainerList,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerList {
    #[serde(rename = "Container")]
    pub(crate) containers: Vec<Named>,
}

/// The blocks of a blob.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BlockList {
    #[serde(rename = "CommittedBlocks")]
    pub(crate) committed: Blocks,
    #[serde(rename = "UncommittedBlocks")]
    pub(crate) uncommitted: Blocks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Blocks {
    #[serde(rename = "Block")]
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Block {
    #[serde(rename = "Size")]
    pub(crate) size: usize,
}

/// The tags of a blob.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tags {
    #[serde(rename = "TagSet")]
    set: TagSet,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TagSet {
    #[serde(rename = "Tag")]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
struct Tag {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value", default)]
    value: String,
}

impl Tags {
    pub(crate) fn into_map(self) -> BTreeMap<String, String> {
        self.set.tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
    }
}
