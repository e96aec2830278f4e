//! The fold: events in, states of sessions out.
//!
//! [`Sessions`] owns everything that is known of the sessions of one lane. [`Sessions::apply`] merges one event into it,
//! [`Sessions::expire`] closes and forgets by the lane's clock, [`Sessions::documents`] writes the summaries that have
//! become due, [`Sessions::changes`] says what has to be saved. No I/O and no clock of its own.
//!
//! State of a session is a set of facts, see [`state`]; a fact that is known already changes nothing. Only `cdr` events
//! make documents: telemetry waits with its connection. What is told of a session that is kept no more is *late*: it meets a
//! marker and opens nothing.
//!
//! Events before OpenVidu 2.17 name no `uniqueSessionId`. They are kept in one state per `sessionId`, and its incarnations
//! are cut only when documents are made, see [`incarnation`].

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use serde::{Deserialize, Serialize};

use crate::config::SessionsConfig;
use crate::document::Document;
use crate::enrich::Enriched;
use crate::event::{Body, Event, SessionRef, is_internal};
use crate::live::Live;

pub mod facts;
pub mod incarnation;
mod merge;
mod picture;
pub mod state;
mod stored;
mod timers;

pub use stored::{Change, RestoreError};

use state::{EntityKey, Session, SessionKey};
use timers::Timers;

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

    /// How long an ended incarnation is kept: from its end or its last fact, whichever is later.
    fn kept_until(&self, end: i64, touched: i64, awaits_recording: bool) -> i64 {
        let keep = if awaits_recording { self.keep_recording } else { self.keep };
        end.max(touched).saturating_add(keep)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

/// What remains of the incarnations of a session that are kept no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Closed {
    /// Start and end of each, and the lane clock after which it is forgotten altogether.
    spans: Vec<(i64, i64, i64)>,
    /// Ends and facts that were known of all of them: versions must not fall.
    forgotten: (u64, u64),
}

/// All sessions of one lane.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    open: HashMap<SessionKey, Session>,
    closed: HashMap<SessionKey, Closed>,
    timers: Timers,
    /// Sessions whose documents are to be written.
    due: BTreeSet<SessionKey>,
    /// Sessions with unsaved changes.
    changed: BTreeSet<SessionKey>,
    /// `import` keeps everything until its end.
    forgets: bool,
}

impl Sessions {
    /// None yet. `forgets`: whether [`expire`](Self::expire) may forget.
    #[must_use]
    pub fn new(limits: Limits, forgets: bool) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            closed: HashMap::new(),
            timers: Timers::default(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
            forgets,
        }
    }

    /// Merges what `event` tells. `clock`: the lane's, milliseconds since 1970.
    pub fn apply(
        &mut self,
        event: &Event<'_>,
        enriched: &Enriched,
        source: Source<'_>,
        clock: i64,
    ) -> Outcome {
        let Some(named) = &event.session else { return Outcome::Passed };
        let fact = facts::of(event).filter(|_| feeds(event));
        let user = event.user.as_deref().filter(|_| feeds(event) && event.connection_id.is_some());
        if fact.is_none() && user.is_none() {
            return Outcome::Passed;
        }
        let key = key_of(event, named, source);
        if self.is_closed(&key, merge::start_of(event)) {
            return Outcome::Late;
        }
        let session = self.open.entry(key.clone()).or_insert_with(|| {
            let mut session = Session::default();
            session.head.session_id = named.id.as_ref().into();
            session.head.forgotten =
                self.closed.get(&key).map_or((0, 0), |closed| closed.forgotten);
            session
        });
        let mut added = false;
        if let Some(fact) = fact {
            added |= merge::event(session, event, enriched, fact, clock);
        }
        if let (Some(user), Some(connection)) = (user, event.connection_id.as_deref()) {
            added |= merge::user(session, connection, user, enriched, event.time);
        }
        let master = event.origin.master_node_id.as_deref().unwrap_or(source.master_node_id);
        added |= merge::source(session, source.name, master);
        if !added {
            // Telemetry is read for its user alone; told again, it is nothing new but no repetition either.
            return if fact.is_some() { Outcome::Duplicate } else { Outcome::Passed };
        }
        merge::bound(session, self.limits.entities_max);
        session.head.touched = session.head.touched.max(clock);
        session.changed.insert(EntityKey::Head);
        if session.head.silent || session.ends() > 0 {
            self.due.insert(key.clone());
        }
        let deadline = deadline(session, &key, &self.limits);
        self.timers.set(&key, deadline);
        self.changed.insert(key);
        Outcome::Folded
    }

    /// Whether what began at `start` belongs to an incarnation that is kept no more.
    fn is_closed(&self, key: &SessionKey, start: i64) -> bool {
        let Some(closed) = self.closed.get(key) else { return false };
        key.unique || closed.spans.iter().any(|(from, to, _)| (*from..=*to).contains(&start))
    }

    /// Does what time brings: writes what fell silent, forgets what was kept long enough. `clock`: the lane's.
    pub fn expire(&mut self, clock: i64) {
        while self.forgets
            && let Some(key) = self.timers.pop(clock)
        {
            self.expire_markers(&key, clock);
            let gone = self.expire_session(&key, clock);
            if !gone.is_empty() {
                let until = clock.saturating_add(self.limits.remember);
                let closed = self.closed.entry(key.clone()).or_default();
                closed.spans.extend(gone.into_iter().map(|(from, to)| (from, to, until)));
                if let Some(session) = self.open.get_mut(&key) {
                    closed.forgotten = session.head.forgotten;
                    session.changed.insert(EntityKey::Closed);
                }
            }
            let session = self.open.get(&key).filter(|session| !session.is_gone());
            let session = session.map_or(i64::MAX, |session| deadline(session, &key, &self.limits));
            let marker = self
                .closed
                .get(&key)
                .and_then(|closed| closed.spans.iter().map(|span| span.2).min());
            self.timers.set(&key, session.min(marker.unwrap_or(i64::MAX)));
        }
    }

    /// What of the session `key` is kept no more: start and end of each incarnation.
    fn expire_session(&mut self, key: &SessionKey, clock: i64) -> Vec<(i64, i64)> {
        let limits = &self.limits;
        let Some(session) = self.open.get_mut(key).filter(|session| !session.is_gone()) else {
            return Vec::new();
        };
        self.changed.insert(key.clone());
        session.changed.insert(EntityKey::Head);
        let quiet_since = session.head.newest.max(session.head.touched);
        if !session.head.silent && clock >= quiet_since.saturating_add(limits.silent_after) {
            session.head.silent = true;
            self.due.insert(key.clone());
        }
        if session.head.silent && clock >= quiet_since.saturating_add(limits.forget_after) {
            let span = (incarnation::first_start(session, key), session.head.newest);
            incarnation::take_all(session);
            return vec![span];
        }
        incarnation::take_ended(session, key, |end, touched, awaits_recording| {
            clock >= limits.kept_until(end, touched, awaits_recording)
        })
    }

    /// Forgets markers that have been remembered long enough.
    fn expire_markers(&mut self, key: &SessionKey, clock: i64) {
        let Some(closed) = self.closed.get_mut(key) else { return };
        let before = closed.spans.len();
        closed.spans.retain(|(_, _, until)| clock < *until);
        if closed.spans.len() == before {
            return;
        }
        if closed.spans.is_empty() {
            self.closed.remove(key);
        }
        // A session that is gone carries the change to the next save, which drops it.
        self.open.entry(key.clone()).or_default().changed.insert(EntityKey::Closed);
        self.changed.insert(key.clone());
    }

    /// Treats everything as silent that has no end yet: nothing more will come.
    pub fn finish(&mut self) {
        for (key, session) in &mut self.open {
            // What has ended was written when it did.
            if incarnation::cut(session, key).iter().any(|incarnation| incarnation.end.is_none()) {
                session.head.silent = true;
                self.due.insert(key.clone());
            }
        }
    }

    /// The documents that have become due since the last call, whole sessions at a time.
    pub fn documents(&mut self) -> Vec<Document> {
        let mut documents = Vec::new();
        while self.documents_of_one(&mut documents) {}
        documents
    }

    /// Appends the documents of one session that is due; `false` if none was.
    pub fn documents_of_one(&mut self, documents: &mut Vec<Document>) -> bool {
        let Some(key) = self.due.pop_first() else { return false };
        if let Some(session) = self.open.get(&key) {
            crate::summary::documents(&key, session, &self.limits, documents);
        }
        true
    }

    /// Marks everything as unsaved, for a store that has nothing yet.
    pub fn touch_all(&mut self) {
        for (key, session) in &mut self.open {
            session.changed.extend(incarnation::entity_keys(session));
            self.changed.insert(key.clone());
        }
    }

    /// The session an event belongs to, for what is joined to raw documents.
    #[must_use]
    pub fn session_of(&self, event: &Event<'_>, source: Source<'_>) -> Option<&Session> {
        self.open.get(&key_of(event, event.session.as_ref()?, source))
    }

    /// The open sessions at this moment.
    #[must_use]
    pub fn live(&self, clock: i64) -> Live {
        picture::live(self, clock)
    }

    /// All that is kept, for counts over time.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionKey, &Session)> {
        self.open.iter()
    }

    /// Connections, streams and recordings kept.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.open.values().map(Session::entities).sum()
    }
}

/// The state that an event belongs to.
fn key_of(event: &Event<'_>, named: &SessionRef<'_>, source: Source<'_>) -> SessionKey {
    SessionKey {
        cluster_id: event.origin.cluster_id.as_deref().unwrap_or(source.cluster_id).into(),
        id: named.unique_id.as_deref().unwrap_or(&named.id).into(),
        unique: named.unique_id.is_some(),
    }
}

/// Internal participants are nobody, and what they send or receive is theirs.
fn feeds(event: &Event<'_>) -> bool {
    match &event.body {
        Body::MediaState(_) | Body::NetworkQuality(_) | Body::Other => {
            event.connection_id.as_deref().is_some_and(|id| !is_internal(id))
        }
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Participant(_)
        | Body::Stream(_)
        | Body::Recording(_) => true,
    }
}

/// When the session has to be looked at next.
fn deadline(session: &Session, key: &SessionKey, limits: &Limits) -> i64 {
    let quiet_since = session.head.newest.max(session.head.touched);
    let quiet_after = if session.head.silent { limits.forget_after } else { limits.silent_after };
    let ended = incarnation::ended(session, key)
        .map(|(end, touched, awaits_recording)| limits.kept_until(end, touched, awaits_recording));
    ended.fold(quiet_since.saturating_add(quiet_after), i64::min)
}
