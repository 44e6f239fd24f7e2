//! What clients know about the instances that they have sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use crypto_envelope::KeyRing;
use parking_lot::Mutex;
use real_orthanc::Uploaded;

use crate::Cloud;
use crate::hybrid::support::stored_files;
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::StateFolder;

/// The tag of the pixels in a DICOM file.
const PIXEL_DATA: [u8; 4] = [0xE0, 0x7F, 0x10, 0x00];

/// The instances, by number.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Vec<Instance>>);

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) file: Vec<u8>,
    /// Orthanc's answer, once there was one.
    pub(crate) uploaded: Option<Uploaded>,
    pub(crate) state: State,
}

/// What a client knows about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It was sent, and there was no answer.
    Sent,
    /// The store was refused.
    Refused,
    /// The store was acknowledged.
    Stored,
    /// A deletion was requested, and there was no answer.
    Deleting,
    /// The deletion was acknowledged.
    Deleted,
}

impl Known {
    /// Adds an instance that is being sent.
    pub(crate) fn send(&self, file: Vec<u8>) -> usize {
        let mut instances = self.0.lock();
        instances.push(Instance { file, uploaded: None, state: State::Sent });
        instances.len() - 1
    }

    pub(crate) fn set(&self, number: usize, state: State) {
        self.0.lock()[number].state = state;
    }

    pub(crate) fn stored(&self, number: usize, uploaded: Uploaded) {
        let mut instances = self.0.lock();
        instances[number].uploaded = Some(uploaded);
        instances[number].state = State::Stored;
    }

    /// Number of instances that were sent.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Adds an instance that was stored.
    pub(crate) fn add(&self, uploaded: Uploaded, file: Vec<u8>) -> usize {
        let number = self.send(file);
        self.stored(number, uploaded);
        number
    }

    /// The numbers of the stored instances for which `is_meant` returns true.
    pub(crate) fn all_stored(&self, is_meant: impl Fn(&Uploaded) -> bool) -> BTreeSet<usize> {
        let instances = self.0.lock();
        let stored = instances.iter().enumerate().filter(|(_, instance)| instance.state == State::Stored);
        stored
            .filter(|(_, instance)| instance.uploaded.as_ref().is_some_and(&is_meant))
            .map(|(number, _)| number)
            .collect()
    }

    /// The stored instance whose number is a multiple of the number of stored instances after `random`.
    pub(crate) fn any_stored(&self, random: u64) -> Option<(usize, Instance)> {
        let instances = self.0.lock();
        let stored: Vec<usize> =
            (0..instances.len()).filter(|number| instances[*number].state == State::Stored).collect();
        let number = *stored.get(usize::try_from(random).ok()? % stored.len().max(1))?;
        Some((number, instances[number].clone()))
    }

    /// Marks a stored instance as being deleted, if at least `keep` are stored.
    pub(crate) fn delete_one(&self, random: u64, keep: usize) -> Option<(usize, Uploaded)> {
        if self.count(State::Stored) < keep {
            return None;
        }
        let (number, _) = self.any_stored(random)?;
        let mut instances = self.0.lock();
        let instance = &mut instances[number];
        if instance.state != State::Stored {
            return None;
        }
        instance.state = State::Deleting;
        Some((number, instance.uploaded.clone()?))
    }

    pub(crate) fn state(&self, number: usize) -> State {
        self.0.lock()[number].state
    }

    pub(crate) fn count(&self, state: State) -> usize {
        self.0.lock().iter().filter(|instance| instance.state == state).count()
    }

    /// Number of acknowledged stores.
    pub(crate) fn acknowledged(&self) -> usize {
        [State::Stored, State::Deleting, State::Deleted].into_iter().map(|state| self.count(state)).sum()
    }

    pub(crate) fn summary(&self) -> String {
        let mut counts = BTreeMap::new();
        self.0.lock().iter().for_each(|instance| *counts.entry(instance.state).or_insert(0) += 1);
        format!("{counts:?}")
    }

    /// Fails if the clients did not do everything.
    pub(crate) fn expect_all_kinds(&self) -> Result<()> {
        let few = self.count(State::Stored) < 5 || self.count(State::Deleted) < 5;
        ensure!(!few, "hardly anything was done: {}", self.summary());
        Ok(())
    }

    /// Checks that Orthanc has each instance that it must have, and none that it must not have, and that
    /// the bucket, the files and the state directory have nothing else. `ring` decrypts what is encrypted there.
    pub(crate) fn check<C: Cloud>(&self, fixture: &Fixture<C>, ring: Option<&KeyRing>) -> Result<()> {
        let instances = self.0.lock().clone();
        let by_content: HashMap<&[u8], State> =
            instances.iter().map(|instance| (instance.file.as_slice(), instance.state)).collect();
        let state_of = |content: &[u8]| {
            // If ranges cost as much as whole reads, as with A1, Orthanc also stores what comes before the pixels.
            let has_header =
                |file: &[u8]| file.strip_prefix(content).is_some_and(|rest| rest.starts_with(&PIXEL_DATA));
            let by_header = || instances.iter().find(|instance| has_header(&instance.file));
            by_content.get(content).copied().or_else(|| Some(by_header()?.state))
        };
        let is_left = |content: &[u8], place: &str| -> Result<()> {
            let opened = || crypto_envelope::decrypt(ring?, uuid_in(place)?, content).ok();
            match state_of(content).or_else(|| state_of(&opened()?)) {
                Some(State::Sent | State::Stored | State::Deleting) => Ok(()),
                Some(state) => bail!("an instance that was {state:?} is left as {place}"),
                None => bail!("{place} is none of the instances: {} bytes", content.len()),
            }
        };
        let index = fixture.rest().get_json("/instances")?;
        for id in index.as_array().context("no list")? {
            let id = id.as_str().context("no id")?;
            is_left(&fixture.rest().file(id)?, id)?;
        }
        for instance in instances.iter().filter(|instance| instance.state == State::Stored) {
            let id = &instance.uploaded.as_ref().context("no id")?.id;
            let file = fixture.rest().file(id).context("an acknowledged instance")?;
            ensure!(file == instance.file, "the bytes of {id} differ");
        }
        let storage = fixture.orthanc.storage_folder();
        let state = StateFolder::of(&storage);
        let mut files = stored_files(&fixture.orthanc);
        files.retain(|file| !file.ends_with('/'));
        let mut paths: Vec<PathBuf> = files.iter().map(|file| storage.join(file)).collect();
        paths.extend(state.pending().iter().map(|name| state.pending_path(name)));
        paths.extend(state.cached().iter().map(|name| state.cached_path(name)));
        for path in paths {
            match fs::read(&path) {
                // It was uploaded or evicted.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                content => is_left(&content?, &path.display().to_string())?,
            }
        }
        for (key, object) in fixture.objects() {
            is_left(&object.bytes, &key)?;
        }
        Ok(())
    }
}

/// The UUID at the beginning of the last part of a file's or an object's name.
fn uuid_in(name: &str) -> Option<&str> {
    name.rsplit('/').next()?.get(..36)
}
