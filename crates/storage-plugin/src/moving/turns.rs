//! Moves of the same resources in opposite directions take turns.

use std::sync::Arc;

use hybrid::Side;
use parking_lot::Mutex;

use crate::jobs::Family;

/// The jobs that are moving attachments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Vec<Arc<Running>>>>);

#[derive(Debug)]
struct Running {
    target: Side,
    family: Arc<Family>,
}

/// Makes jobs in the opposite direction wait while it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    running: Arc<Running>,
}

impl Turns {
    /// `None` while a job moves some of these resources in the opposite direction.
    pub(crate) fn enter(&self, target: Side, family: &Arc<Family>) -> Option<Turn> {
        let mut all = self.0.lock();
        let mut opposite = all.iter().filter(|running| running.target != target);
        if opposite.any(|running| running.family.overlaps(family)) {
            return None;
        }
        let running = Arc::new(Running { target, family: Arc::clone(family) });
        all.push(Arc::clone(&running));
        Some(Turn { turns: self.clone(), running })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.lock().retain(|running| !Arc::ptr_eq(running, &self.running));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Level, Resource};

    fn family(requested: &[(Level, &str)], ancestors: &[(Level, &str)]) -> Arc<Family> {
        let set =
            |list: &[(Level, &str)]| list.iter().map(|(level, id)| Resource::new(*level, *id)).collect();
        Arc::new(Family { requested: set(requested), ancestors: set(ancestors) })
    }

    #[test]
    fn opposite_moves_of_the_same_resources_take_turns() {
        let study = family(&[(Level::Study, "a")], &[(Level::Patient, "p")]);
        let instance = family(&[(Level::Instance, "i")], &[(Level::Series, "s"), (Level::Study, "a")]);
        let patient = family(&[(Level::Patient, "p")], &[]);
        let sibling = family(&[(Level::Study, "b")], &[(Level::Patient, "p")]);
        let turns = Turns::default();
        let turn = turns.enter(Side::FileSystem, &study).unwrap();
        for same in [&study, &instance, &patient] {
            assert!(turns.enter(Side::ObjectStorage, same).is_none());
            assert!(turns.enter(Side::FileSystem, same).is_some());
        }
        assert!(turns.enter(Side::ObjectStorage, &sibling).is_some());
        drop(turn);
        assert!(turns.enter(Side::ObjectStorage, &study).is_some());
        assert!(turns.0.lock().is_empty());
    }
}
