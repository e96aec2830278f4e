//! What time does to sessions: silence, keeping, forgetting.
//!
//! An ended incarnation is kept for late facts, then a marker of its span stays for some days. One without an end is written
//! once it is silent, and forgotten long after. Nothing is taken away whose documents are still to be written.

use std::collections::BTreeSet;

use super::incarnation::{self, Incarnation};
use super::state::{Closed, EntityKey, Session, SessionKey, Span};
use super::{Limits, Sessions};

/// What has to be looked at when. Entries are never removed before their time: one that was put off comes up too early, and
/// finds nothing to do.
pub(super) type Wakes = BTreeSet<(i64, SessionKey)>;

/// Markers of one name; the oldest go first. A room that is used all day long gathers some thousand in a year.
const SPANS_MAX: usize = 20_000;

/// What is to happen to an incarnation next.
enum Next {
    Wait(i64),
    FallSilent,
    Take,
}

impl Limits {
    fn next(&self, incarnation: &Incarnation<'_>, clock: i64) -> Next {
        let phase = &incarnation.phase;
        let (from, span) = match incarnation.end {
            Some(end) if incarnation.awaits_recording() => {
                (end.time.max(phase.touched), self.keep_recording)
            }
            Some(end) => (end.time.max(phase.touched), self.keep),
            None if phase.silent => (incarnation.quiet_since(), self.forget_after),
            None => (incarnation.quiet_since(), self.silent_after),
        };
        let deadline = from.saturating_add(span);
        if clock < deadline {
            Next::Wait(deadline)
        } else if incarnation.end.is_none() && !phase.silent {
            Next::FallSilent
        } else {
            Next::Take
        }
    }
}

impl Sessions {
    /// Does what time brings: lets fall silent, forgets what was kept long enough. `clock`: the lane's. Whether documents are
    /// due because of it. Nothing may be due before.
    pub fn expire(&mut self, clock: i64) -> bool {
        while let Some((at, _)) = self.wakes.first()
            && *at <= clock
            && let Some((at, key)) = self.wakes.pop_first()
        {
            if let Some(session) = self.open.get_mut(&key) {
                if session.wakes_at != Some(at) {
                    continue;
                }
                session.wakes_at = None;
                let before = session.entities;
                let next = pass(session, &key, &self.limits, clock);
                self.entities = self.entities + session.entities - before;
                let is_due = session.is_due;
                self.list_unsaved(&key);
                if is_due {
                    self.due.push_back(key.clone());
                }
                self.wake(&key, next.max(clock.saturating_add(1)));
            } else if let Some(closed) = self.closed.get_mut(&key) {
                if closed.wakes_at != Some(at) {
                    continue;
                }
                closed.expire(clock);
                closed.wakes_at = closed.next();
                match closed.wakes_at {
                    Some(next) => _ = self.wakes.insert((next, key.clone())),
                    None => _ = self.closed.remove(&key),
                }
                self.unsaved.push(key);
            }
        }
        !self.due.is_empty()
    }

    /// Ends a replay of which more is known elsewhere: lets fall silent what was silent for long enough when the clock showed
    /// `clock`, and leaves open what is open. Everything that has ended is due.
    pub fn finish_at(&mut self, clock: i64) {
        for (key, session) in &mut self.open {
            let is_silent = |incarnation: &Incarnation<'_>| {
                let silent_at = incarnation.heard_at().saturating_add(self.limits.silent_after);
                incarnation.end.is_none() && silent_at <= clock
            };
            let incarnations = incarnation::cut(session, key);
            let silent = incarnations.iter().filter(|known| is_silent(known));
            let silent: Vec<Named> = silent.map(Named::of).collect();
            let is_written = key.unique && silent.is_empty();
            for named in silent {
                named.fall_silent(session, key.unique);
            }
            // What has ended was written when it did, if it has a name of its own.
            if !session.is_due && !is_written {
                session.is_due = true;
                self.due.push_back(key.clone());
            }
        }
    }

    /// Has a session looked at when the lane's clock shows `at`, or earlier.
    pub(super) fn wake(&mut self, key: &SessionKey, at: i64) {
        if let Some(session) = self.open.get_mut(key)
            && session.wakes_at.is_none_or(|known| at < known)
        {
            session.wakes_at = Some(at);
            self.wakes.insert((at, key.clone()));
        }
    }

    /// What remains of a session that is gone.
    pub(super) fn keep_closed(&mut self, key: SessionKey, mut closed: Closed) {
        closed.wakes_at = closed.next();
        if let Some(at) = closed.wakes_at {
            self.wakes.insert((at, key.clone()));
            self.closed.insert(key, closed);
        }
    }
}

/// What time has brought to one session by `clock`. When it has to be looked at next. Markers stay as long as anything is
/// left: they still divide it.
fn pass(session: &mut Session, key: &SessionKey, limits: &Limits, clock: i64) -> i64 {
    let mut next = i64::MAX;
    let (mut silent, mut taken) = (Vec::new(), Vec::new());
    let incarnations = incarnation::cut(session, key);
    let only_telemetry = incarnations.is_empty() && session.entities > 0;
    for incarnation in incarnations {
        match limits.next(&incarnation, clock) {
            Next::Wait(deadline) => next = next.min(deadline),
            Next::FallSilent => {
                next = next.min(incarnation.quiet_since().saturating_add(limits.forget_after));
                silent.push(Named::of(&incarnation));
            }
            Next::Take => taken.push(Named::of(&incarnation)),
        }
    }
    for named in silent {
        named.fall_silent(session, key.unique);
        session.is_due = true;
    }
    let until = clock.saturating_add(limits.remember);
    for named in taken {
        named.take_from(session, key, until);
    }
    if only_telemetry {
        let deadline = session.head.newest.saturating_add(limits.forget_after);
        next = next.min(deadline);
        if clock >= deadline {
            remove_untold(session, i64::MIN, i64::MAX);
        }
    }
    if session.is_gone() {
        // What was known of the session as such goes with it.
        let head = &session.head;
        let rest = head.facts.count() + head.cut_facts.count() + head.told_by.count();
        session.closed.facts += rest;
        session.head.unsaved = true;
        session.closed.unsaved = true;
    }
    while session.closed.spans.len() > SPANS_MAX {
        session.closed.spans.remove(0);
    }
    next
}

/// An incarnation, by the names of what is in it.
struct Named {
    start: Option<i64>,
    span: (i64, i64),
    entities: Vec<EntityKey>,
}

impl Named {
    fn of(incarnation: &Incarnation<'_>) -> Self {
        let people = incarnation.connections.iter();
        let starts = people.clone().map(|person| person.start);
        let starts = starts.chain(incarnation.recordings.iter().map(|(key, _)| key.start));
        let from = incarnation.start.or_else(|| starts.min()).unwrap_or(incarnation.newest);
        let to = incarnation.end.map_or(incarnation.newest, |end| end.time);
        let recordings = incarnation.recordings.iter();
        let entities = people
            .map(|person| EntityKey::Connection(person.id.into()))
            .chain(recordings.map(|(key, _)| EntityKey::Recording((*key).clone())))
            .collect();
        Self { start: incarnation.start, span: (from, to.max(from)), entities }
    }

    fn fall_silent(self, session: &mut Session, unique: bool) {
        let own = self.start.filter(|_| !unique);
        let start = own.and_then(|at| session.head.starts.get_mut(&at));
        if let Some(phase) = match start {
            Some(start) => Some(&mut start.phase),
            None => unique.then_some(&mut session.head.phase),
        } {
            (phase.silent, phase.written) = (true, true);
        }
        session.head.unsaved = true;
        for entity in self.entities {
            let (alone, unsaved) = match &entity {
                EntityKey::Connection(id) => match session.connections.get_mut(id) {
                    Some(known) => (&mut known.alone, &mut known.unsaved),
                    None => continue,
                },
                EntityKey::Recording(key) => match session.recordings.get_mut(key) {
                    Some(known) => (&mut known.alone, &mut known.unsaved),
                    None => continue,
                },
                EntityKey::Head
                | EntityKey::Stream(..)
                | EntityKey::Endpoint(..)
                | EntityKey::Closed => continue,
            };
            alone.written = true;
            *unsaved = true;
        }
    }

    /// Ends and facts stay counted, so that versions do not fall.
    fn take_from(self, session: &mut Session, key: &SessionKey, until: i64) {
        let before = session.facts();
        let (start, end) = self.span;
        if key.unique {
            session.closed.ends += session.ends().min(1);
            session.head.starts.clear();
        } else if let Some(start) = self.start.and_then(|at| session.head.starts.remove(&at)) {
            session.closed.ends += u64::from(start.end.is_some());
        }
        for entity in self.entities {
            session.remove(entity);
        }
        let (from, to) = if key.unique { (i64::MIN, i64::MAX) } else { (start, end) };
        remove_untold(session, from, to);
        session.closed.facts += before - session.facts();
        session.closed.spans.push(Span { start, end, until });
        session.closed.unsaved = true;
        session.head.unsaved = true;
    }
}

/// Forgets connections that only telemetry has told of, last within `from..=to`: they are part of no incarnation.
fn remove_untold(session: &mut Session, from: i64, to: i64) {
    let untold = session.connections.iter();
    let untold: Vec<_> = untold
        .filter(|(_, known)| known.start().is_none() && (from..=to).contains(&known.newest))
        .map(|(id, _)| id.clone())
        .collect();
    for id in untold {
        session.remove(EntityKey::Connection(id));
    }
}
