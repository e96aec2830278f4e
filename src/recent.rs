//! What was looked at of late, within a bound.

use foldhash::HashMap;

/// Values under hashes. They are kept in two generations of at most `MAX` each, and the older one is dropped when the newer is full:
/// of what is looked at again and again nothing is forgotten before `MAX` others have come.
#[derive(Debug)]
pub(crate) struct Recent<T, const MAX: usize> {
    newer: HashMap<u64, T>,
    older: HashMap<u64, T>,
}

impl<T, const MAX: usize> Default for Recent<T, MAX> {
    fn default() -> Self {
        Self { newer: HashMap::default(), older: HashMap::default() }
    }
}

impl<T, const MAX: usize> Recent<T, MAX> {
    /// What is kept under `id`, which is new again by this.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        if let Some(value) = self.older.remove(&id) {
            self.insert(id, value);
        }
        self.newer.get_mut(&id)
    }

    /// Keeps `value` under `id`, in place of what was there.
    pub(crate) fn insert(&mut self, id: u64, value: T) {
        self.older.remove(&id);
        if self.newer.len() >= MAX && !self.newer.contains_key(&id) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(id, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The last `MAX` that were looked at are there with their last value, and never more than twice as many.
        #[test]
        fn what_was_looked_at_of_late_is_known(steps in prop::collection::vec((0_u64..12, any::<bool>()), 0..200)) {
            let mut recent = Recent::<usize, 4>::default();
            let mut values = HashMap::new();
            let mut order: Vec<u64> = Vec::new();
            for (value, (id, is_told)) in steps.into_iter().enumerate() {
                let known = recent.get_mut(id).copied();
                if order.iter().rev().take(4).any(|other| *other == id) {
                    prop_assert!(known.is_some());
                }
                if known.is_some() {
                    prop_assert_eq!(known.as_ref(), values.get(&id));
                }
                if is_told || known.is_none() {
                    recent.insert(id, value);
                    values.insert(id, value);
                }
                order.retain(|other| *other != id);
                order.push(id);
                prop_assert!(recent.newer.len() <= 4 && recent.older.len() <= 4);
            }
        }
    }
}
