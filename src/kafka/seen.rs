//! In which lane each session was seen: one that is in two of them is not keyed by session, and its documents are wrong.
//!
//! What was seen is remembered beyond the time for which a session is kept, so that it is noticed however quickly its parts
//! are read.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::recent::Recent;
use crate::sessions::Name;

/// So many names are remembered after a session was seen.
const NAMES_MAX: usize = 100_000;
/// For how long a session that was seen in two lanes is told of.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// Where a session was seen last.
#[derive(Debug, Clone)]
struct Place {
    lane: i32,
    /// From when to when it was there, by the lane's clock, milliseconds since 1970.
    from: i64,
    to: i64,
    /// Empty: another instance has seen it.
    session_id: Box<str>,
    is_split: bool,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    places: Recent<Place, NAMES_MAX>,
    /// A session that was seen in two lanes, for people, and when it was noticed.
    split: Option<(String, Instant)>,
    /// How many were.
    count: Counter,
}

impl Seen {
    /// Nothing yet; `count` counts sessions that are in two lanes.
    pub(super) fn new(count: Counter) -> Self {
        Self { places: Recent::default(), split: None, count }
    }

    /// Notes that a session is in a lane whose clock shows `at`. A name that is used again may have been in one lane and be in
    /// another by now: it counts where it was in both at the same time.
    pub(super) fn note(&mut self, name: &Name, lane: i32, at: i64) {
        let (from, to) = name.since.map_or((i64::MIN, i64::MAX), |since| (since, at.max(since)));
        let own = || Place { lane, from, to, session_id: name.session_id.clone(), is_split: false };
        let Some(known) = self.places.get_mut(name.hash) else {
            self.places.insert(name.hash, own());
            return;
        };
        let is_together = known.from <= to && from <= known.to;
        if !is_together {
            *known = own();
        } else if known.lane == lane {
            (known.from, known.to) = (known.from.min(from), known.to.max(to));
        } else {
            let is_new = !std::mem::replace(&mut known.is_split, true);
            let ids = [&known.session_id, &name.session_id];
            let told = ids.into_iter().find(|id| !id.is_empty());
            let told =
                told.map_or_else(|| format!("with hash {:016x}", name.hash), |id| id.to_string());
            let other = known.lane;
            self.tell(&told, (other.min(lane), other.max(lane)), is_new);
        }
    }

    fn tell(&mut self, name: &str, (first, second): (i32, i32), is_new: bool) {
        if is_new {
            self.count.inc();
        }
        match &mut self.split {
            // One is told of for as long as any is found.
            Some((_, at)) if at.elapsed() < TOLD_FOR => *at = Instant::now(),
            split => {
                let told = format!(
                    "session {name} is in partitions {first} and {second}: records are not keyed by sessionId, and its documents are \
                     wrong; see kafka.rekey_from"
                );
                *split = Some((told, Instant::now()));
            }
        }
    }

    /// A session that was seen in two lanes of late, and which.
    pub(super) fn split(&self) -> Option<&str> {
        let (told, at) = self.split.as_ref()?;
        (at.elapsed() < TOLD_FOR).then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str, since: Option<i64>) -> Name {
        let hash = id.bytes().fold(7, |hash: u64, byte| hash * 31 + u64::from(byte));
        Name { hash, since, session_id: id.into() }
    }

    fn seen(notes: &[(&str, Option<i64>, i32, i64)]) -> Seen {
        let mut seen = Seen::new(Counter::default());
        for (id, since, lane, at) in notes {
            seen.note(&name(id, *since), *lane, *at);
        }
        seen
    }

    #[test]
    fn a_session_that_was_in_two_lanes_is_told_of_whatever_else_was_seen_meanwhile() {
        let mut seen = seen(&[("daily", None, 3, 10), ("daily", None, 3, 20)]);
        for number in 0..NAMES_MAX {
            seen.note(&name(&number.to_string(), None), 1, 10);
        }
        assert_eq!(seen.split(), None);
        // Another instance does not tell its name.
        let other = Name { session_id: Box::default(), ..name("daily", None) };
        seen.note(&other, 0, 5_000_000);
        let told = seen.split().unwrap().to_owned();
        assert!(told.starts_with("session daily is in partitions 0 and 3: "), "{told}");
        seen.note(&other, 0, 6_000_000);
        seen.note(&name("weekly", None), 0, 1);
        assert_eq!((seen.split(), seen.count.get()), (Some(told.as_str()), 1));
        seen.note(&name("weekly", None), 2, 1);
        assert_eq!((seen.split(), seen.count.get()), (Some(told.as_str()), 2));
    }

    #[test]
    fn a_name_that_is_used_again_may_be_elsewhere_by_then() {
        for (notes, expected) in [
            // At the same time.
            (&[("room", Some(10), 1, 100), ("room", Some(50), 2, 200)][..], true),
            (&[("room", Some(50), 2, 200), ("room", Some(10), 1, 100)], true),
            // The one is over.
            (&[("room", Some(10), 1, 100), ("room", Some(150), 2, 200)], false),
            (&[("room", Some(10), 1, 100), ("room", Some(150), 1, 200)], false),
            // Or is not.
            (
                &[
                    ("room", Some(10), 1, 100),
                    ("room", Some(150), 2, 200),
                    ("room", Some(10), 1, 170),
                ],
                true,
            ),
        ] {
            assert_eq!(seen(notes).split().is_some(), expected, "{notes:?}");
        }
    }
}
