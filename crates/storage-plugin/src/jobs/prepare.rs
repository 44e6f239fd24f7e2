//! Looks up what a job consists of.

use std::collections::{HashMap, HashSet};
use std::vec;

use super::error::JobError;
use super::scope::Scope;
use crate::catalog::{Catalog, CatalogError, Level, Resource, ResourceId};
use crate::walk::{Cursor, Walk};

/// The resources of a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) requested: HashSet<Resource>,
    /// Everything above the requested resources.
    pub(crate) ancestors: HashSet<Resource>,
}

impl Family {
    /// Whether one resource belongs to both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let mut requested = self.requested.iter();
        requested.any(|resource| other.requested.contains(resource) || other.ancestors.contains(resource))
            || other.requested.iter().any(|resource| self.ancestors.contains(resource))
    }
}

/// Where a walk through the resources of a job begins.
#[derive(Debug, Clone)]
pub(super) enum Roots {
    Patients(Vec<ResourceId>),
    Resources(Vec<Resource>),
}

impl Roots {
    /// A walk that continues after `cursor`.
    pub(super) fn walk(self, cursor: &Cursor) -> Walk {
        match self {
            Self::Patients(patients) => Walk::through_patients(patients, cursor),
            Self::Resources(resources) => Walk::new(resources, cursor),
        }
    }
}

/// What a job consists of.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) roots: Roots,
    pub(super) family: Family,
    pub(super) instances: u64,
}

/// Looks up what a job consists of.
#[derive(Debug)]
pub(super) enum Preparation {
    Everything,
    Resources(Box<Requested>),
}

impl Preparation {
    pub(super) fn new(scope: &Scope, capacity: Option<u64>) -> Self {
        match scope {
            Scope::Everything => Self::Everything,
            Scope::Resources(by_level) => {
                let resources =
                    by_level.iter().flat_map(|(level, ids)| ids.iter().map(|id| Resource::new(*level, id)));
                Self::Resources(Box::new(Requested::new(resources.collect(), capacity)))
            }
        }
    }

    /// Looks up a portion. Returns everything after the last one.
    ///
    /// # Errors
    ///
    /// Also if the attachments are too many for the target.
    pub(super) fn advance(&mut self, catalog: &Catalog) -> Result<Option<Prepared>, JobError> {
        match self {
            Self::Everything => {
                let roots = Roots::Patients(catalog.patients()?);
                let instances = catalog.instances()?;
                Ok(Some(Prepared { roots, family: Family::default(), instances }))
            }
            Self::Resources(requested) => requested.advance(catalog),
        }
    }
}

/// Looks up requested resources.
#[derive(Debug)]
pub(super) struct Requested {
    requested: HashSet<Resource>,
    left: vec::IntoIter<Resource>,
    /// The parent of each resource above a requested one.
    parents: HashMap<Resource, Option<Resource>>,
    /// The requested resources, without those that are below another one.
    roots: Vec<Resource>,
    counting: Option<Walk>,
    instances: u64,
    /// The size of everything below the roots, in bytes, if the target has a limit.
    bytes: u64,
    capacity: Option<u64>,
}

impl Requested {
    fn new(requested: Vec<Resource>, capacity: Option<u64>) -> Self {
        Self {
            requested: requested.iter().cloned().collect(),
            left: requested.into_iter(),
            parents: HashMap::new(),
            roots: Vec::new(),
            counting: None,
            instances: 0,
            bytes: 0,
            capacity,
        }
    }

    /// Looks up one resource.
    fn advance(&mut self, catalog: &Catalog) -> Result<Option<Prepared>, JobError> {
        if let Some(resource) = self.left.next() {
            if !self.is_below_another(&resource, catalog)? {
                if let Some(capacity) = self.capacity {
                    self.bytes += catalog.size(&resource)?;
                    let bytes = self.bytes;
                    if bytes > capacity {
                        return Err(JobError::TooLarge { bytes, capacity });
                    }
                }
                self.roots.push(resource);
            }
            return Ok(None);
        }
        let start = || Walk::new(self.roots.clone(), &Cursor::default());
        if let Some(next) = self.counting.get_or_insert_with(start).next(catalog)? {
            self.instances += u64::from(next.level == Level::Instance);
            return Ok(None);
        }
        let ancestors = std::mem::take(&mut self.parents).into_keys().collect();
        let family = Family { requested: std::mem::take(&mut self.requested), ancestors };
        let roots = Roots::Resources(std::mem::take(&mut self.roots));
        Ok(Some(Prepared { roots, family, instances: self.instances }))
    }

    fn is_below_another(&mut self, resource: &Resource, catalog: &Catalog) -> Result<bool, CatalogError> {
        let mut is_below = false;
        let mut next = catalog.parent(resource)?;
        while let Some(ancestor) = next {
            is_below |= self.requested.contains(&ancestor);
            next = match self.parents.get(&ancestor) {
                Some(parent) => parent.clone(),
                None => catalog.parent(&ancestor)?,
            };
            self.parents.insert(ancestor, next.clone());
        }
        Ok(is_below)
    }
}
