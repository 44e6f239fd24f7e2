//! A model of a disk on which only what was synced is certain.
//!
//! A sync of a file makes its content certain, but not its name. A sync of a folder makes the names in it certain,
//! but not those of the folder itself or of those above. Everything else may have reached the disk or not:
//!
//! - The changes of folders (create, link, rename, unlink) since the last sync: every beginning of them, and also
//!   other subsets, since POSIX promises no order. A rename is never torn so that both names are lost: every file
//!   system in use avoids that. It may leave both.
//! - The content of a file since its last sync: the old one, the new one, a beginning of it, or zeros instead of it.
//!
//! File systems with a journal sync more than they are asked for, so code that survives here survives there as well.
//! [`Order::Journal`] is such a file system.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::Record;

/// About how many states of one kind are shown for one moment.
const MOST: usize = 16;

/// What is on the disk after a power failure. Paths are relative to the tree.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The content of each file.
    pub files: BTreeMap<String, Vec<u8>>,
    /// All folders except the tree itself.
    pub folders: BTreeSet<String>,
}

/// What a sync of a folder makes certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The names in this folder, as POSIX promises.
    Posix,
    /// The names in all folders, as on ext4 and XFS.
    Journal,
}

/// The number of a file or folder in the model; the tree itself is 0.
type Id = usize;
type Entries = BTreeMap<String, Id>;

#[derive(Debug)]
pub(crate) struct Disk {
    order: Order,
    nodes: Vec<Node>,
    /// By inode number. A number is used again after the end of its file.
    numbers: HashMap<u64, Id>,
    /// The changes of folders that are not certain, in order.
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Node {
    Folder { current: Entries, synced: Entries },
    File { current: Vec<u8>, synced: Vec<u8> },
}

/// A change of folders: one entry, or two if it is a rename.
#[derive(Debug)]
struct Change {
    added: Option<Entry>,
    removed: Option<Entry>,
}

/// A name, and the file or folder that it has from now on.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    folder: Id,
    name: String,
    target: Option<Id>,
}

/// How much of a change has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    /// Of a rename: the new name. The old one is there as well.
    Added,
    Everything,
}

/// The content of a file that has changed since its last sync.
#[derive(Debug, Clone, Copy)]
enum Content {
    Synced,
    Current,
    Shortened,
    Zeros,
}

impl State {
    /// What is in a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut state = Self::default();
        for entry in walkdir::WalkDir::new(folder).min_depth(1) {
            let entry = entry?;
            let path = entry.path().strip_prefix(folder)?.to_str().context("a strange name")?.to_owned();
            if entry.file_type().is_dir() {
                state.folders.insert(path);
            } else {
                state.files.insert(path, fs::read(entry.path())?);
            }
        }
        Ok(state)
    }

    /// Makes a folder look like this, for the program that runs after the power failure.
    ///
    /// # Errors
    ///
    /// If files cannot be written there.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.folders.iter().try_for_each(|path| fs::create_dir_all(folder.join(path)))?;
        self.files.iter().try_for_each(|(path, content)| fs::write(folder.join(path), content))?;
        Ok(())
    }
}

impl Disk {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, nodes: Vec::new(), numbers: HashMap::new(), changes: Vec::new() }
    }

    pub(crate) fn apply(&mut self, record: &Record) -> Result<()> {
        match record.kind.as_str() {
            "start" if self.nodes.is_empty() => {
                self.add(record.inode, Node::Folder { current: Entries::new(), synced: Entries::new() });
            }
            "start" => ensure!(self.numbers.get(&record.inode) == Some(&0), "another tree"),
            "open" | "truncating-open" => {
                if self.find(record.path()?)?.target.is_none() {
                    let file = self.add(record.inode, Node::File { current: Vec::new(), synced: Vec::new() });
                    self.change(Some((record.path()?, Some(file))), None)?;
                }
                let content = self.content(record)?;
                if record.kind == "truncating-open" {
                    content.clear();
                }
            }
            "write" => {
                let content = self.content(record)?;
                let end = record.number + record.payload.len();
                content.resize(content.len().max(end), 0);
                content[record.number..end].copy_from_slice(&record.payload);
            }
            "truncate" => self.content(record)?.resize(record.number, 0),
            "sync" => self.sync(record)?,
            "mkdir" => {
                let folder = Node::Folder { current: Entries::new(), synced: Entries::new() };
                let folder = self.add(record.inode, folder);
                self.change(Some((record.path()?, Some(folder))), None)?;
            }
            "unlink" => self.change(None, Some(record.path()?))?,
            "link" => {
                let (from, to) = record.paths()?;
                let target = self.find(from)?.target.context("a link to an unknown file")?;
                self.change(Some((to, Some(target))), None)?;
            }
            "rename" => {
                let (from, to) = record.paths()?;
                let target = self.find(from)?.target.context("a rename of an unknown file")?;
                self.change(Some((to, Some(target))), Some(from))?;
            }
            kind => bail!("{kind} is not in the model"),
        }
        Ok(())
    }

    fn add(&mut self, number: u64, node: Node) -> Id {
        self.nodes.push(node);
        self.numbers.insert(number, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn node(&mut self, number: u64) -> Result<(Id, &mut Node)> {
        let id = *self.numbers.get(&number).context("an unknown file")?;
        Ok((id, &mut self.nodes[id]))
    }

    fn content(&mut self, record: &Record) -> Result<&mut Vec<u8>> {
        match self.node(record.inode)?.1 {
            Node::File { current, .. } => Ok(current),
            Node::Folder { .. } => bail!("a folder is not a file"),
        }
    }

    /// The entry for a path, as the running programs see it.
    fn find(&self, path: &str) -> Result<Entry> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = match parent {
            "" => 0,
            parent => self.find(parent)?.target.context("an unknown folder")?,
        };
        match &self.nodes[folder] {
            Node::Folder { current, .. } => {
                Ok(Entry { folder, name: name.to_owned(), target: current.get(name).copied() })
            }
            Node::File { .. } => bail!("{parent} is not a folder"),
        }
    }

    /// Gives and takes names.
    fn change(&mut self, added: Option<(&str, Option<Id>)>, removed: Option<&str>) -> Result<()> {
        let added = added.map(|(path, target)| Ok::<_, anyhow::Error>(Entry { target, ..self.find(path)? }));
        let removed = removed.map(|path| Ok::<_, anyhow::Error>(Entry { target: None, ..self.find(path)? }));
        let change = Change { added: added.transpose()?, removed: removed.transpose()? };
        for entry in change.removed.iter().chain(&change.added) {
            if let Node::Folder { current, .. } = &mut self.nodes[entry.folder] {
                entry.set(current);
            }
        }
        self.changes.push(change);
        Ok(())
    }

    fn sync(&mut self, record: &Record) -> Result<()> {
        let (id, node) = self.node(record.inode)?;
        match node {
            Node::File { current, synced } => {
                ensure!(current.len() == record.number, "{} bytes were not recorded", record.number);
                synced.clone_from(current);
            }
            Node::Folder { .. } => self.sync_folder(id),
        }
        Ok(())
    }

    fn sync_folder(&mut self, folder: Id) {
        let all = self.order == Order::Journal;
        let is_here = |entry: &mut Entry| all || entry.folder == folder;
        for index in 0..self.changes.len() {
            let (earlier, rest) = self.changes.split_at_mut(index);
            let change = &mut rest[0];
            let removed = change.removed.take_if(is_here);
            // An old name does not go before the new one is there.
            let added = change.added.take_if(|entry| removed.is_some() || is_here(entry));
            for entry in added.iter().chain(&removed) {
                for change in &mut *earlier {
                    change.added.take_if(|other| other.is_same_name(entry));
                    change.removed.take_if(|other| other.is_same_name(entry));
                }
                if let Node::Folder { synced, .. } = &mut self.nodes[entry.folder] {
                    entry.set(synced);
                }
            }
        }
        self.changes.retain(|change| change.added.is_some() || change.removed.is_some());
    }

    /// What the running programs see.
    pub(crate) fn current(&self) -> State {
        self.state(|_| Kept::Everything, || Content::Current)
    }

    /// Shows the states that a power failure may leave now.
    pub(crate) fn each_state(&self, seed: usize, show: &mut dyn FnMut(&State) -> Result<()>) -> Result<()> {
        let count = self.changes.len();
        let step = count / MOST + 1;
        let upto = |limit| move |index| if index < limit { Kept::Everything } else { Kept::Nothing };
        for limit in (0..count).step_by(step).chain([count]) {
            show(&self.state(upto(limit), || Content::Synced))?;
            show(&self.state(upto(limit), || Content::Current))?;
        }
        let mut random = StdRng::seed_from_u64(seed as u64);
        for _ in 0..MOST {
            let mut content = StdRng::seed_from_u64(random.random());
            // Nearly nothing, nearly everything, and what is in between.
            let odds = [0.1, 0.5, 0.9][random.random_range(0..3)];
            let kept = |_| match (random.random_bool(odds), random.random_bool(odds)) {
                (true, true) => Kept::Everything,
                (true, false) => Kept::Added,
                (false, _) => Kept::Nothing,
            };
            let contents = [Content::Synced, Content::Current, Content::Shortened, Content::Zeros];
            show(&self.state(kept, || contents[content.random_range(0..4)]))?;
        }
        for one in (0..count).step_by(step) {
            let only = |index| if index == one { Kept::Everything } else { Kept::Nothing };
            let without = |index| if index == one { Kept::Nothing } else { Kept::Everything };
            show(&self.state(only, || Content::Current))?;
            show(&self.state(without, || Content::Current))?;
        }
        Ok(())
    }

    fn state(&self, mut kept: impl FnMut(usize) -> Kept, mut content: impl FnMut() -> Content) -> State {
        let mut changed: HashMap<Id, Entries> = HashMap::new();
        for (index, change) in self.changes.iter().enumerate() {
            let kept = kept(index);
            // Only a rename has two names, of which the new one may be certain already.
            let added = change.added.iter().filter(|_| kept != Kept::Nothing);
            let removed = change.removed.iter().filter(|_| kept == Kept::Everything);
            for entry in added.chain(removed) {
                let synced = || self.nodes[entry.folder].synced_entries().clone();
                entry.set(changed.entry(entry.folder).or_insert_with(synced));
            }
        }
        let mut state = State::default();
        let mut left = vec![(0, String::new())];
        while let Some((id, path)) = left.pop() {
            for (name, target) in changed.get(&id).unwrap_or_else(|| self.nodes[id].synced_entries()) {
                let path = if id == 0 { name.clone() } else { format!("{path}/{name}") };
                match &self.nodes[*target] {
                    Node::Folder { .. } => {
                        state.folders.insert(path.clone());
                        left.push((*target, path));
                    }
                    Node::File { current, synced } => {
                        state.files.insert(path, content().of(current, synced));
                    }
                }
            }
        }
        state
    }
}

impl Node {
    fn synced_entries(&self) -> &Entries {
        const NONE: &Entries = &Entries::new();
        match self {
            Self::Folder { synced, .. } => synced,
            Self::File { .. } => NONE,
        }
    }
}

impl Content {
    fn of(self, current: &[u8], synced: &[u8]) -> Vec<u8> {
        match self {
            _ if current == synced => current.to_vec(),
            Self::Synced => synced.to_vec(),
            Self::Current => current.to_vec(),
            Self::Shortened => current[..current.len() / 2].to_vec(),
            Self::Zeros => vec![0; current.len()],
        }
    }
}

impl Entry {
    fn set(&self, entries: &mut Entries) {
        match self.target {
            Some(target) => entries.insert(self.name.clone(), target),
            None => entries.remove(&self.name),
        };
    }

    fn is_same_name(&self, other: &Self) -> bool {
        self.folder == other.folder && self.name == other.name
    }
}
