//! The fold: events in, states of sessions out.
//!
//! [`Sessions`] owns everything that is known of the sessions of one lane. [`Sessions::apply`] merges one event into it,
//! [`Sessions::documents_of_one`] writes the summaries that have become due, [`Sessions::expire`] does what the lane's clock
//! brings, [`Sessions::changes`] says what has to be saved. No I/O and no clock of its own.
//!
//! State of a session is a set of facts, see [`state`]; a fact that is known already changes nothing. Only `cdr` events
//! make documents: telemetry waits with its connection. What is told of a session that is kept no more is *late*: it meets a
//! marker and opens nothing.
//!
//! Events before OpenVidu 2.17 name no `uniqueSessionId`. They are kept in one state per `sessionId`, and its incarnations
//! are cut only when documents are made, see [`incarnation`].

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::config::SessionsConfig;
use crate::document::Document;
use crate::enrich::Enriched;
use crate::event::{Body, Event, is_internal};
use crate::live::Live;

pub mod facts;
pub mod sketch;
pub mod endpoint;
pub mod browser;
pub mod incarnation;
mod lifetimes;
mod merge;
mod picture;
pub mod state;
mod stored;

pub use stored::{Change, StateError};

use browser::Reporter;
use lifetimes::Wakes;
use state::{Closed, Session, SessionKey, SessionName};

/// What became of a record, once it was an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It added a fact.
    Folded,
    /// It feeds a summary, but all of it was known.
    Duplicate,
    /// It feeds no summary.
    Passed,
    /// Its session is kept no more.
    Late,
}

/// Where an event came from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Name in the settings.
    pub name: &'a str,
    /// `cluster_id` for events that bring none; empty for none.
    pub cluster_id: &'a str,
    /// `master_node_id`, likewise.
    pub master_node_id: &'a str,
}

/// Life times and bounds, in milliseconds and pieces.
#[derive(Debug, Clone)]
pub struct Limits {
    keep: i64,
    keep_recording: i64,
    remember: i64,
    silent_after: i64,
    forget_after: i64,
    entities_max: usize,
    /// Nested content is left out of the session summary above this many entities.
    pub nested_max: usize,
}

impl Limits {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &SessionsConfig) -> Self {
        Self {
            keep: millis(config.keep),
            keep_recording: millis(config.keep_recording),
            remember: millis(config.remember),
            silent_after: millis(config.silent_after),
            forget_after: millis(config.forget_after),
            entities_max: config.entities_max.get(),
            nested_max: config.nested_max,
        }
    }

    /// A span within which nothing can come to an end of its time that has just been told of.
    fn calm(&self, has_end: bool) -> i64 {
        if has_end { self.keep.min(self.keep_recording) } else { self.silent_after }
    }
}

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

/// How long sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// As [`Limits`] say, by the lane's clock; changes are saved.
    Lifetimes,
    /// All of them to the end of a replay: time takes nothing away, nothing is saved, and what shares its documents with
    /// incarnations still to come (before OpenVidu 2.17) is written at the end.
    Replay,
}

/// All sessions of one lane.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    keeping: Keeping,
    open: HashMap<SessionKey, Session, RandomState>,
    /// Sessions of which nothing but markers is left.
    closed: HashMap<SessionKey, Closed, RandomState>,
    wakes: Wakes,
    /// Sessions whose documents are to be written.
    due: VecDeque<SessionKey>,
    /// Sessions with changes that were not saved yet; some of them more than once.
    unsaved: Vec<SessionKey>,
    /// Connections, streams and recordings of all.
    entities: usize,
    /// Sessions that were begun since they were asked for; `None`: nobody will ask.
    begun: Option<Vec<Name>>,
}

/// A session by which nothing can be told but that it is the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// [`SessionName::hash64`].
    pub hash: u64,
    /// When it began, milliseconds since 1970; `None`: its name is never used twice.
    pub since: Option<i64>,
    /// The application's name for it.
    pub session_id: Box<str>,
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits, keeping: Keeping) -> Self {
        Self {
            limits,
            keeping,
            open: HashMap::default(),
            closed: HashMap::default(),
            wakes: Wakes::new(),
            due: VecDeque::new(),
            unsaved: Vec::new(),
            entities: 0,
            begun: None,
        }
    }

    /// Merges what `event` tells of the session called `name`. `clock`: the lane's, milliseconds since 1970.
    pub fn apply(
        &mut self,
        event: &Event<'_>,
        name: SessionName<'_>,
        enriched: &Enriched,
        source: Source<'_>,
        clock: i64,
    ) -> Outcome {
        if let Body::Broadcast(stopped) = &event.body {
            if let Some(session) = self.open.get_mut(&name) {
                session.picture.take();
                merge::broadcast(&mut session.head, event.time, stopped.as_ref());
                if self.keeping == Keeping::Lifetimes {
                    self.list_unsaved(&SessionKey::from(&name));
                }
            }
            return Outcome::Passed;
        }
        let feeds = feeds(event);
        let fact = feeds.then(|| facts::of(event)).flatten();
        let is_named = feeds && event.connection_id.is_some() && enriched.telemetry_user.is_some();
        let user = event.user.as_deref().filter(|_| is_named);
        if fact.is_none() && user.is_none() {
            return Outcome::Passed;
        }
        let (unique, entities_max) = (name.unique, self.limits.entities_max);
        if !self.is_opened(event, name) {
            return Outcome::Late;
        }
        let Some(session) = self.open.get_mut(&name) else { return Outcome::Late };
        session.picture.take();
        let master = event.origin.master_node_id.as_deref().unwrap_or(source.master_node_id);
        let source = merge::source(&mut session.head, source.name, master);
        let before = session.entities;
        let merged = merge::event(
            session,
            merge::Told { event, enriched, fact, user, source, unique, entities_max, clock },
        );
        self.entities = self.entities + session.entities - before;
        if !merged.added {
            // Telemetry is read for its user alone; told again, it is nothing new but no repetition either.
            return if fact.is_some() { Outcome::Duplicate } else { Outcome::Passed };
        }
        let has_end = session.head.starts.values().any(|start| start.end.is_some());
        let own = session.phase_at(merged.start, unique).map(|phase| {
            phase.touched = phase.touched.max(clock);
            phase.silent = false;
            phase.written
        });
        let is_written = own.unwrap_or(merged.was_written)
            || session.end_at(merged.start, unique).is_some()
            || (merged.divides && session.has_written());
        if is_written && !session.is_due && (unique || self.keeping == Keeping::Lifetimes) {
            session.is_due = true;
            self.due.push_back(SessionKey::from(&name));
        }
        if self.keeping == Keeping::Replay {
            // Nothing is saved, so nothing has to be taken away from what was.
            session.removed.clear();
        } else {
            let at = clock.saturating_add(self.limits.calm(has_end));
            let is_listed = std::mem::replace(&mut session.is_unsaved, true);
            let wakes = session.wakes_at.is_none_or(|known| at < known);
            if wakes || !is_listed {
                let key = SessionKey::from(&name);
                if wakes {
                    session.wakes_at = Some(at);
                    self.wakes.insert((at, key.clone()));
                }
                if !is_listed {
                    self.unsaved.push(key);
                }
            }
        }
        Outcome::Folded
    }

    /// Whether the session that an event tells of is open, or was opened for it. It is not if that incarnation of it is kept no
    /// more.
    fn is_opened(&mut self, event: &Event<'_>, name: SessionName<'_>) -> bool {
        let is_over = |closed: &Closed| match name.unique {
            true => !closed.spans.is_empty(),
            false => closed.covers(merge::start_of(event)),
        };
        match self.open.get(&name) {
            // What is told of a connection that is kept belongs to it, whenever it is told.
            Some(session) => {
                let id = event.connection_id.as_deref();
                let is_known = id.is_some_and(|id| session.connections.contains_key(id));
                is_known || !is_over(&session.closed)
            }
            None if self.closed.get(&name).is_some_and(is_over) => false,
            None => {
                let closed = self.closed.remove(&name).unwrap_or_default();
                let mut session = Session { closed, ..Session::default() };
                session.head.session_id = session_id(event, name).into();
                if let Some(begun) = &mut self.begun {
                    let since = (!name.unique).then(|| merge::start_of(event));
                    let session_id = session.head.session_id.clone();
                    begun.push(Name { hash: name.hash64(), since, session_id });
                }
                self.open.insert(SessionKey::from(&name), session);
                true
            }
        }
    }

    /// Treats everything as silent that has no end yet: nothing more will come.
    pub fn finish(&mut self) {
        for (key, session) in &mut self.open {
            session.fall_silent();
            let is_written = key.unique && session.ends() > 0;
            // What has ended was written when it did.
            if !session.is_due && !is_written {
                session.is_due = true;
                self.due.push_back(key.clone());
            }
        }
    }

    /// Drops all sessions.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.entities = 0;
    }

    /// Appends the documents of one session that is due; `false` if none was.
    pub fn documents_of_one(&mut self, documents: &mut Vec<Document>) -> bool {
        let Some(key) = self.due.pop_front() else { return false };
        if let Some(session) = self.open.get_mut(&key) {
            session.is_due = false;
            crate::summary::documents(&key, session, &self.limits, documents);
        }
        true
    }

    /// The session called `name`.
    #[must_use]
    pub fn get(&self, name: SessionName<'_>) -> Option<&Session> {
        self.open.get(&name)
    }

    /// The open sessions at this moment.
    #[must_use]
    pub fn live(&self, clock: i64) -> Live {
        picture::live(self, clock)
    }

    /// Notes from now on what begins, for [`names`](Self::names).
    pub fn note_names(&mut self) {
        self.begun = Some(Vec::new());
    }

    /// The sessions that were here since this was asked last, to see whether any is elsewhere too. `clock`: the lane's.
    pub fn names(&mut self, clock: i64) -> Vec<Name> {
        let mut names = self.begun.as_mut().map(std::mem::take).unwrap_or_default();
        names.extend(picture::names(self, clock));
        names
    }

    /// All that is kept, for counts over time.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionKey, &Session)> {
        self.open.iter()
    }

    /// Connections, streams and recordings kept.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.entities
    }

    fn list_unsaved(&mut self, key: &SessionKey) {
        if let Some(session) = self.open.get_mut(key)
            && !std::mem::replace(&mut session.is_unsaved, true)
        {
            self.unsaved.push(key.clone());
        }
    }
}

/// The session that an event names, if it names one.
#[must_use]
pub fn name_of<'e>(event: &'e Event<'_>, source: Source<'e>) -> Option<SessionName<'e>> {
    let named = event.session.as_ref()?;
    Some(SessionName {
        cluster_id: event.origin.cluster_id.as_deref().unwrap_or(source.cluster_id),
        id: named.name(),
        unique: named.unique_id.is_some(),
    })
}

/// `sessionId` of the session that an event names, the same for all events of the session.
#[must_use]
pub fn session_id_of<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    let anywhere = Source { name: "", cluster_id: "", master_node_id: "" };
    Some(session_id(event, name_of(event, anywhere)?))
}

/// `sessionId`: what stands before the start in a `uniqueSessionId`, so that all events of a session agree.
fn session_id<'e>(event: &'e Event<'_>, name: SessionName<'e>) -> &'e str {
    let in_id = name.id.rsplit_once('_').filter(|_| incarnation::start_in_id(name.id).is_some());
    match in_id {
        Some((id, _)) if name.unique => id,
        _ => event.session.as_ref().map_or(name.id, |session| &session.id),
    }
}

/// Internal participants are nobody, and what they send or receive is theirs.
fn feeds(event: &Event<'_>) -> bool {
    match &event.body {
        Body::Endpoint(endpoint) if event.connection_id.is_none() => {
            Reporter::has_named(&endpoint.name)
        }
        Body::Endpoint(_) | Body::NetworkQuality(_) | Body::Other => {
            event.connection_id.as_deref().is_some_and(|id| !is_internal(id))
        }
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Participant(_)
        | Body::Seen(_)
        | Body::Stream(_)
        | Body::Recording(_)
        | Body::Broadcast(_) => true,
    }
}
