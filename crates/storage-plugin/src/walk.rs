//! Walks through resources and everything below them, without holding more than the way to the present one
//! and the siblings on that way.

use std::collections::VecDeque;
use std::vec;

use crate::catalog::{Catalog, CatalogError, Level, Resource, ResourceId};

/// A position in a walk: the resources on the way to the last one that was finished, which is the last
/// element. Empty at the beginning.
///
/// Siblings are visited in the order of their ids, so a position stays valid when resources are added or
/// deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) Vec<Resource>);

/// Where a walk begins.
#[derive(Debug)]
enum Roots {
    Resources(vec::IntoIter<Resource>),
    /// All patients, of which there may be millions.
    Patients(vec::IntoIter<ResourceId>),
}

impl Roots {
    fn next(&mut self) -> Option<Resource> {
        match self {
            Self::Resources(roots) => roots.next(),
            Self::Patients(patients) => {
                patients.next().map(|id| Resource::new(Level::Patient, id.to_string()))
            }
        }
    }
}

/// Visits each resource after everything below it.
#[derive(Debug)]
pub(crate) struct Walk {
    roots: Roots,
    /// The resources in progress, from the top, and their children that were not visited yet.
    stack: Vec<(Resource, vec::IntoIter<Resource>)>,
    /// The part of the cursor that was not reached yet.
    rest: VecDeque<Resource>,
    cursor: Cursor,
}

impl Walk {
    /// A walk through `roots` and everything below that continues after `cursor`.
    pub(crate) fn new(roots: Vec<Resource>, cursor: &Cursor) -> Self {
        let mut walk = Self::at(cursor);
        walk.roots = Roots::Resources(walk.remaining(roots));
        walk
    }

    /// A walk through `patients` and everything below that continues after `cursor`.
    pub(crate) fn through_patients(mut patients: Vec<ResourceId>, cursor: &Cursor) -> Self {
        let mut walk = Self::at(cursor);
        patients.sort_unstable();
        if let Some(passed) = walk.rest.pop_front() {
            let finished = walk.rest.is_empty();
            let passed = ResourceId::parse(&passed.id);
            patients.retain(|id| Some(*id) > passed || (Some(*id) == passed && !finished));
            if patients.first().copied() != passed {
                // The patient in progress no longer exists.
                walk.rest.clear();
            }
        }
        walk.roots = Roots::Patients(patients.into_iter());
        walk
    }

    fn at(cursor: &Cursor) -> Self {
        Self {
            roots: Roots::Resources(Vec::new().into_iter()),
            stack: Vec::new(),
            rest: cursor.0.iter().cloned().collect(),
            cursor: cursor.clone(),
        }
    }

    /// The position after the last visited resource.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Visits the next resource; `None` at the end. The walk cannot continue after an error.
    pub(crate) fn next(&mut self, catalog: &Catalog) -> Result<Option<Resource>, CatalogError> {
        loop {
            let next = match self.stack.last_mut() {
                None => self.roots.next(),
                Some((_, children)) => children.next(),
            };
            if let Some(resource) = next {
                let children = catalog.children(&resource)?.unwrap_or_default();
                let children = self.remaining(children);
                self.stack.push((resource, children));
            } else {
                let Some((resource, _)) = self.stack.pop() else { return Ok(None) };
                let parents = self.stack.iter().map(|(parent, _)| parent);
                self.cursor = Cursor(parents.chain([&resource]).cloned().collect());
                return Ok(Some(resource));
            }
        }
    }

    /// The siblings that the cursor has not passed, in the order in which they are visited.
    fn remaining(&mut self, mut siblings: Vec<Resource>) -> vec::IntoIter<Resource> {
        siblings.sort_unstable();
        siblings.dedup();
        if let Some(passed) = self.rest.pop_front() {
            let finished = self.rest.is_empty();
            siblings.retain(|sibling| *sibling > passed || (*sibling == passed && !finished));
            if siblings.first() != Some(&passed) {
                // The resource in progress no longer exists.
                self.rest.clear();
            }
        }
        siblings.into_iter()
    }
}
