//! Which session has to be looked at when.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::state::SessionKey;

/// A deadline per session. Moving one further away, which every event does, costs one look-up: it stays scheduled where
/// it is and is scheduled anew when it comes up too early.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: HashMap<SessionKey, Deadline>,
    scheduled: BTreeSet<(i64, SessionKey)>,
}

#[derive(Debug)]
struct Deadline {
    wanted: i64,
    /// Where `scheduled` has it; never after `wanted`.
    scheduled: i64,
}

impl Timers {
    /// Sets or moves the deadline of a session; `i64::MAX` removes it.
    pub(super) fn set(&mut self, key: &SessionKey, wanted: i64) {
        match self.deadlines.get_mut(key) {
            Some(deadline) if deadline.scheduled <= wanted && wanted != i64::MAX => {
                deadline.wanted = wanted
            }
            known => {
                if let Some(deadline) = known {
                    self.scheduled.remove(&(deadline.scheduled, key.clone()));
                    self.deadlines.remove(key);
                }
                if wanted != i64::MAX {
                    self.scheduled.insert((wanted, key.clone()));
                    self.deadlines.insert(key.clone(), Deadline { wanted, scheduled: wanted });
                }
            }
        }
    }

    /// Takes a session whose deadline has passed; it has none then.
    pub(super) fn pop(&mut self, clock: i64) -> Option<SessionKey> {
        loop {
            let (scheduled, _) = self.scheduled.first()?;
            if *scheduled > clock {
                return None;
            }
            let (_, key) = self.scheduled.pop_first()?;
            let wanted = self.deadlines.get(&key).map_or(clock, |deadline| deadline.wanted);
            if wanted <= clock {
                self.deadlines.remove(&key);
                return Some(key);
            }
            self.scheduled.insert((wanted, key.clone()));
            self.deadlines.insert(key, Deadline { wanted, scheduled: wanted });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(id: u8) -> SessionKey {
        SessionKey { cluster_id: "".into(), id: id.to_string().into(), unique: true }
    }

    proptest! {
        #[test]
        fn what_is_due_comes_up_and_nothing_else(steps in prop::collection::vec((0u8..5, 0i64..50, prop::bool::ANY), 0..200)) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u8, i64> = BTreeMap::new();
            let mut clock = 0;
            for (id, span, advance) in steps {
                if advance {
                    clock += span / 5;
                    let mut popped: Vec<_> = std::iter::from_fn(|| timers.pop(clock)).collect();
                    popped.sort();
                    let due: Vec<_> = model.iter().filter(|(_, at)| **at <= clock).map(|(id, _)| *id).collect();
                    prop_assert_eq!(popped, due.iter().map(|id| key(*id)).collect::<Vec<_>>());
                    model.retain(|_, at| *at > clock);
                } else if span == 49 {
                    timers.set(&key(id), i64::MAX);
                    model.remove(&id);
                } else {
                    timers.set(&key(id), clock + span);
                    model.insert(id, clock + span);
                }
            }
        }
    }
}
