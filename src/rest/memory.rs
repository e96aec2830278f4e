//! What the API has shown so far: so that each thing is journalled once, and that what is shown no more is noticed, also after
//! a restart.
//!
//! Which sessions were shown is kept in a file. What they told is kept in memory alone: after a restart it is journalled once
//! more, and the fold knows it already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Records remembered, of each 8 bytes. Beyond, all are forgotten, and told once more.
const RECORDS_MAX: usize = 4 << 20;
/// Sessions remembered.
const SESSIONS_MAX: usize = 100_000;
/// Complete answers in a row that do not show a session before it counts as gone: its end may be under way.
const MISSED: u32 = 2;

/// `sessionId`, and when it began, milliseconds since 1970.
pub(super) type Id = (String, i64);

/// What has become of a session that was shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Fate {
    /// Complete answers in a row that have not shown it.
    missed: u32,
    /// When it was told last that it is gone, or shown again (`true`), milliseconds since 1970.
    #[serde(default)]
    change: Option<(i64, bool)>,
    /// When it was told last to be there, milliseconds since 1970.
    #[serde(default)]
    told: i64,
}

impl Fate {
    /// Of one that was not shown before: its beginning is told by what else is told of it.
    fn of(id: &Id) -> Self {
        Self { told: id.1, ..Self::default() }
    }

    fn is_gone(self) -> bool {
        matches!(self.change, Some((_, false)))
    }
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    path: PathBuf,
    /// How often it is told that a session is still there, milliseconds.
    renew_after: i64,
    fates: BTreeMap<Id, Fate>,
    told: HashMap<Id, HashSet<u64>>,
    count: usize,
    is_changed: bool,
    /// Whether changes of before may not have been told: they are told once more, with their times, so that they are the same.
    is_unsure: bool,
}

/// A session that is shown no more since a time, or again (`true`). Whether it has ended as it should, events tell.
pub(super) type Change = (Id, (i64, bool));

impl Memory {
    /// What was left in `path`. What cannot be read counts as nothing: sessions that vanished meanwhile are not noticed then.
    pub(super) fn load(path: &Path, renew_after: i64) -> Self {
        let known = std::fs::read(path).ok();
        let fates = known.and_then(|json| serde_json::from_slice::<Vec<(Id, Fate)>>(&json).ok());
        let fates = fates.unwrap_or_default().into_iter().collect();
        Self { path: path.to_owned(), renew_after, fates, is_unsure: true, ..Self::default() }
    }

    /// Those of `records` that were not told before.
    pub(super) fn untold(&mut self, id: &Id, records: Vec<String>) -> Vec<String> {
        if self.count > RECORDS_MAX {
            self.told.clear();
            self.count = 0;
        }
        let told = self.told.entry(id.clone()).or_default();
        let before = told.len();
        let untold = records.into_iter().filter(|record| told.insert(xxh3_64(record.as_bytes())));
        let untold = untold.collect();
        self.count += told.len() - before;
        untold
    }

    /// The time at which it is to be told that a session, which is shown at this moment, is there: events alone would let it fall
    /// silent. A time is the same for whoever asks again after a crash.
    pub(super) fn due(&mut self, id: &Id, at: i64) -> Option<i64> {
        let tick = at - at.rem_euclid(self.renew_after.max(1));
        let known = self.fates.get(id).copied();
        let fate = known.unwrap_or_else(|| Fate::of(id));
        if fate.told >= tick {
            return None;
        }
        if known.is_some() || self.fates.len() < SESSIONS_MAX {
            self.fates.insert(id.clone(), Fate { told: tick, ..fate });
            self.is_changed = true;
        }
        Some(tick)
    }

    /// Forgets that records of a session were told: they were not.
    pub(super) fn forget(&mut self, id: &Id) {
        if let Some(fate) = self.fates.get_mut(id) {
            fate.told = 0;
        }
        self.count -= self.told.remove(id).map_or(0, |told| told.len());
    }

    /// Expects those of `open` to be shown, as those that were shown before. Names are looked at alone: up to 2.16 events and API may
    /// differ in when a session began.
    pub(super) fn expect<'n>(
        &mut self,
        open: impl Iterator<Item = (&'n str, i64)>,
        shown: &HashSet<Id>,
    ) {
        let named: HashSet<&str> = shown.iter().map(|(name, _)| &**name).collect();
        for (name, start) in open.filter(|(name, _)| !named.contains(name)) {
            if self.fates.len() < SESSIONS_MAX {
                self.fates.entry((name.to_owned(), start)).or_insert_with_key(Fate::of);
            }
        }
    }

    /// Remembers that changes could not be told.
    pub(super) fn doubt(&mut self) {
        self.is_unsure = true;
    }

    /// Remembers what an answer has shown.
    pub(super) fn see(&mut self, shown: &HashSet<Id>) {
        for id in shown {
            if self.fates.len() < SESSIONS_MAX && !self.fates.contains_key(id) {
                self.fates.insert(id.clone(), Fate::of(id));
                self.is_changed = true;
            }
        }
    }

    /// Takes in which sessions a complete answer has shown, and gives what is to be told, which is to be saved before. `is_open`:
    /// whether a session is open as far as events tell.
    pub(super) fn shown(
        &mut self,
        shown: &HashSet<Id>,
        is_open: impl Fn(&Id) -> bool,
        at: i64,
    ) -> Vec<Change> {
        self.see(shown);
        let before = self.fates.clone();
        let mut changes = Vec::new();
        let is_unsure = std::mem::take(&mut self.is_unsure);
        for (id, fate) in &mut self.fates {
            let is_shown = shown.contains(id);
            fate.missed = if is_shown { 0 } else { fate.missed.saturating_add(1) };
            let is_new = match is_shown {
                true => fate.is_gone(),
                false => fate.missed >= MISSED && !fate.is_gone() && is_open(id),
            };
            if is_new {
                fate.change = Some((at, is_shown));
            }
            let change = fate.change.filter(|_| is_new || is_unsure);
            changes.extend(change.map(|change| (id.clone(), change)));
        }
        // One that has ended is of no interest any more.
        self.fates.retain(|id, fate| fate.missed < MISSED || fate.is_gone() && is_open(id));
        let fates = &self.fates;
        self.told.retain(|id, _| fates.get(id).is_some_and(|fate| fate.missed == 0));
        self.count = self.told.values().map(HashSet::len).sum();
        self.is_changed |= self.fates != before;
        changes
    }

    /// Keeps which sessions were shown.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let fates: Vec<(&Id, &Fate)> = self.fates.iter().collect();
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&fates)?)?;
        std::fs::rename(&new, &self.path)?;
        self.is_changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> HashSet<Id> {
        names.iter().map(|name| ((*name).to_owned(), 7)).collect()
    }

    fn gone(name: &str, at: i64) -> Change {
        ((name.to_owned(), 7), (at, false))
    }

    #[test]
    fn who_is_missed_twice_and_has_not_ended_is_gone_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rest.json");
        let load = || Memory::load(&path, 1_000);
        let mut memory = load();
        let is_open = |id: &Id| id.0 != "ended";
        assert_eq!(memory.shown(&ids(&["a", "b", "ended"]), is_open, 1), []);
        assert_eq!(memory.shown(&ids(&["b"]), is_open, 2), []);
        memory.save().unwrap();
        let mut memory = load();
        assert_eq!(memory.shown(&ids(&["b"]), is_open, 3), [gone("a", 3)]);
        assert_eq!(memory.shown(&ids(&["b"]), is_open, 4), [], "told once");
        memory.save().unwrap();
        // It may have been told or not: what is told once more is the same.
        let mut memory = load();
        assert_eq!(memory.shown(&ids(&["b"]), is_open, 5), [gone("a", 3)]);
        memory.doubt();
        assert_eq!(memory.shown(&ids(&["b"]), is_open, 6), [gone("a", 3)]);
        let back = (("a".to_owned(), 7), (7, true));
        assert_eq!(memory.shown(&ids(&["a", "b"]), is_open, 7), [back]);
        memory.shown(&ids(&[]), is_open, 8);
        assert_eq!(memory.shown(&ids(&[]), is_open, 9), [gone("a", 9), gone("b", 9)]);
        memory.shown(&ids(&[]), |_| false, 10);
        assert!(memory.fates.is_empty(), "they have ended after all");
    }

    #[test]
    fn who_was_seen_once_before_it_was_known_what_is_open_is_missed() {
        let mut memory = Memory::default();
        memory.see(&ids(&["a"]));
        let mut shown = |at| memory.shown(&ids(&[]), |_| true, at);
        assert_eq!((shown(1), shown(2)), (vec![], vec![gone("a", 2)]));
    }

    #[test]
    fn who_is_open_and_never_shown_is_gone_too() {
        let mut memory = Memory::default();
        let open = || [("a", 7), ("b", 8)].into_iter();
        let mut shown = |at| {
            memory.expect(open(), &ids(&["b"]));
            memory.shown(&ids(&["b"]), |_| true, at)
        };
        // The other is shown, if with another start.
        assert_eq!((shown(1), shown(2), shown(3)), (vec![], vec![gone("a", 2)], vec![]));
    }

    #[test]
    fn who_is_there_for_long_is_told_to_be_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rest.json");
        let mut memory = Memory::load(&path, 1_000);
        let id = ("a".to_owned(), 1_007);
        let shown = HashSet::from([id.clone()]);
        let mut due = |at: i64| {
            let due = memory.due(&id, at);
            assert_eq!(memory.shown(&shown, |_| true, at), []);
            due
        };
        assert_eq!((due(1_999), due(2_000), due(2_001)), (None, Some(2_000), None));
        assert_eq!((due(4_500), due(4_999)), (Some(4_000), None));
        memory.save().unwrap();
        let mut memory = Memory::load(&path, 1_000);
        assert_eq!((memory.due(&id, 4_999), memory.due(&id, 5_000)), (None, Some(5_000)));
        memory.forget(&id);
        assert_eq!(memory.due(&id, 5_001), Some(5_000), "it could not be told");
    }

    #[test]
    fn each_record_is_told_once_while_its_session_is_shown() {
        let mut memory = Memory::default();
        let id = ("a".to_owned(), 7);
        let records = || vec!["x".to_owned(), "y".to_owned(), "x".to_owned()];
        assert_eq!(memory.untold(&id, records()), ["x", "y"]);
        assert!(memory.untold(&id, records()).is_empty());
        memory.forget(&id);
        assert_eq!(memory.untold(&id, records()), ["x", "y"]);
        memory.shown(&ids(&["a"]), |_| true, 1);
        assert!(memory.untold(&id, records()).is_empty());
        memory.shown(&ids(&[]), |_| true, 2);
        assert_eq!(memory.untold(&id, records()), ["x", "y"]);
    }
}
