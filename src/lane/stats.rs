//! `platformStats`: how many sessions, connections, streams and recordings were open at regular ticks.
//!
//! Observations: one document of all clusters together, one per cluster and one per media node for every tick of event time at which something was open, and
//! for the first one at which nothing was any more, so that what was open last does not seem to be so for ever. Each is written
//! once the clock has passed the tick by a minute, from what is known then, and never corrected. A late event does
//! not change them.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{Datelike, TimeZone, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::document::{Document, timed_id};
use crate::json::Object;
use crate::sessions::Sessions;
use crate::sessions::facts::Hasher;
use crate::sessions::incarnation;
use crate::sessions::state::{Session, SessionKey};

/// How long after its tick a document is written, in milliseconds.
const SETTLE: i64 = 60_000;
/// Most ticks of a span in which nothing changes: absurd times must not make millions of documents. All ticks that a cycle has
/// passed are counted in it, before time takes away what was open then.
const TICKS_MAX: i64 = 100_000;

/// Sessions, connections, publishers, subscribers, recordings and broadcasts that were open, and how many had joined and left since
/// the tick before.
pub type Counts = [i64; 8];
const NAMES: [&str; 8] = [
    "num_sessions",
    "num_connections",
    "num_publishers",
    "num_subscribers",
    "num_recordings",
    "num_broadcasts",
    "num_joined",
    "num_left",
];

/// The documents of all ticks that have settled since `last`, which moves on.
pub fn due(sessions: &Sessions, last: &mut i64, clock: i64, every: i64) -> Vec<Document> {
    let settled = (clock - SETTLE).div_euclid(every) * every;
    if *last == 0 {
        // Nothing is known of what was open before the first event.
        *last = settled.max(1);
        return Vec::new();
    }
    if settled <= *last {
        return Vec::new();
    }
    let documents = sweep(sessions, *last + 1, settled, every).collect();
    *last = settled;
    documents
}

/// What was open at a tick, by what it belongs to.
pub type Counted = Vec<(Scope, Counts)>;

/// The ticks that have settled since `last`, which moves on: the first and last of them, and what was open at each, for whoever
/// adds up lanes. At most `ticks_max`, the newest. `None`: there was none.
pub fn counted(
    sessions: &Sessions,
    last: &mut i64,
    (clock, every): (i64, i64),
    ticks_max: i64,
) -> Option<(i64, i64, BTreeMap<i64, Counted>)> {
    let settled = (clock - SETTLE).div_euclid(every) * every;
    if settled <= *last || settled <= 0 {
        return None;
    }
    let from = tick_at(*last + 1, every).max(settled - (ticks_max - 1) * every);
    let mut sweep = Sweep::new(from, settled, every);
    for (key, session) in sessions.iter() {
        sweep.add(key, session);
    }
    *last = settled;
    let mut counted: BTreeMap<i64, Counted> = BTreeMap::new();
    for (scope, tick, open) in sweep.open() {
        counted.entry(tick).or_default().push((scope, open));
    }
    Some((from, settled, counted))
}

/// The documents of `tick`, at which several lanes had something open.
pub fn summed<'c>(tick: i64, lanes: impl Iterator<Item = &'c Counted>) -> Vec<Document> {
    let mut sums: BTreeMap<&Scope, Counts> = BTreeMap::new();
    for (scope, counts) in lanes.flatten() {
        for (sum, count) in sums.entry(scope).or_default().iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums.into_iter().map(|(scope, open)| document(scope, tick, &open)).collect()
}

/// The documents of all ticks within `from..=to` at which something was open.
pub fn sweep(
    sessions: &Sessions,
    from: i64,
    to: i64,
    every: i64,
) -> impl Iterator<Item = Document> + use<> {
    let mut sweep = Sweep::new(from, to, every);
    for (key, session) in sessions.iter() {
        sweep.add(key, session);
    }
    sweep.documents()
}

/// A count over a span of time, into which sessions are put one after another.
#[derive(Debug)]
pub struct Sweep {
    from: i64,
    to: i64,
    every: i64,
    changes: BTreeMap<Scope, BTreeMap<i64, Counts>>,
}

impl Sweep {
    /// A count at every tick within `from..=to`; none where `every` is 0.
    #[must_use]
    pub fn new(from: i64, to: i64, every: i64) -> Self {
        Self { from, to, every, changes: BTreeMap::new() }
    }

    /// Counts a session.
    pub fn add(&mut self, key: &SessionKey, session: &Session) {
        let (from, to, every) = (self.from, self.to, self.every);
        if self.every == 0 || !session.is_real() {
            return;
        }
        for incarnation in incarnation::cut(session, key) {
            let end = incarnation.end.map(|end| end.time);
            let end = end.or(incarnation.phase.silent.then_some(incarnation.newest));
            let media_node = incarnation.media_node_id();
            let mut count = |what: usize, start: i64, own: Option<i64>| {
                // The first tick at or after `start`, and the first at which it was over. What was open at the tick before may be over
                // at the first.
                let on = tick_at(start.max(from.saturating_sub(every)), every);
                let off = own.or(end).map_or(to.saturating_add(every), |end| tick_at(end, every));
                if on >= off || on > to {
                    return;
                }
                let cluster_id = || key.cluster_id.clone();
                let node = media_node.map(|node| Scope::MediaNode(cluster_id(), node.into()));
                for scope in [Scope::Platform, Scope::Cluster(cluster_id())].into_iter().chain(node)
                {
                    let scope = self.changes.entry(scope).or_default();
                    for (tick, change) in [(on, 1), (off, -1)] {
                        if let Some(count) = scope.entry(tick).or_default().get_mut(what) {
                            *count += change;
                        }
                    }
                }
            };
            if let Some(start) = incarnation.start {
                count(0, start, None);
            }
            for person in &incarnation.connections {
                let own = person.connection.end.as_ref().map(|own| own.time);
                count(1, person.start, own);
                // Of one tick each: the first that comes after it.
                count(6, person.start, Some(person.start.saturating_add(self.every)));
                if let Some(left) = own {
                    count(7, left, Some(left.saturating_add(self.every)));
                }
                for stream in &person.streams {
                    let what = if stream.outbound { 2 } else { 3 };
                    count(what, stream.start, stream.end.as_ref().map(|own| own.time).or(own));
                }
            }
            for (key, recording) in &incarnation.recordings {
                let stop = recording.stop.as_ref().map(|stop| stop.time);
                count(4, key.start, stop.or(recording.known_end().map(|last| last.time)));
            }
            // Broadcasts came long after `uniqueSessionId`: there is one incarnation.
            for (start, end) in session.head.broadcasts.iter().filter(|_| key.unique) {
                count(5, *start, *end);
            }
        }
    }

    /// The documents, one after another.
    pub fn documents(self) -> impl Iterator<Item = Document> {
        self.open().map(|(scope, tick, open)| document(&scope, tick, &open))
    }

    /// What was open, at every tick at which something was, and at the first at which nothing was any more.
    fn open(self) -> impl Iterator<Item = (Scope, i64, Counts)> {
        let (from, to, every) = (self.from, self.to, self.every);
        self.changes.into_iter().flat_map(move |(scope, changes)| {
            let mut open = Counts::default();
            let mut changes = changes.into_iter().peekable();
            let mut spans = Vec::new();
            while let Some((tick, change)) = changes.next() {
                for (count, change) in open.iter_mut().zip(change) {
                    *count += change;
                }
                let until = changes.peek().map_or(to.saturating_add(every), |(tick, _)| *tick);
                let is_over = open.iter().all(|count| *count == 0);
                let until = if is_over { tick.saturating_add(1) } else { until };
                // Whole steps beyond what lies before.
                let ahead =
                    (from - tick).max(0).saturating_add(every - 1).div_euclid(every) * every;
                spans.push((tick.saturating_add(ahead), until.min(to.saturating_add(1)), open));
            }
            spans.into_iter().flat_map(move |(tick, until, open)| {
                let scope = scope.clone();
                let ticks = (0..TICKS_MAX).map(move |index| tick + index * every);
                ticks
                    .take_while(move |tick| *tick < until)
                    .map(move |tick| (scope.clone(), tick, open))
            })
        })
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// All clusters.
    Platform,
    /// A cluster.
    Cluster(Box<str>),
    /// A media node of a cluster.
    MediaNode(Box<str>, Box<str>),
}

impl Scope {
    fn name(&self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Cluster(_) => "cluster",
            Self::MediaNode(..) => "media_node",
        }
    }

    fn cluster_id(&self) -> Option<&str> {
        match self {
            Self::Platform => None,
            Self::Cluster(id) | Self::MediaNode(id, _) => Some(id),
        }
    }

    fn media_node_id(&self) -> Option<&str> {
        match self {
            Self::Platform | Self::Cluster(_) => None,
            Self::MediaNode(_, id) => Some(id),
        }
    }
}

/// The first tick at or after `time`.
fn tick_at(time: i64, every: i64) -> i64 {
    time.saturating_add(every - 1).div_euclid(every) * every
}

fn document(scope: &Scope, tick: i64, open: &Counts) -> Document {
    let mut json = Object::with_capacity(384);
    json.text("elastic_type", "platformStats");
    json.text("scope", scope.name());
    for (name, count) in NAMES.iter().zip(open) {
        json.integer(name, *count);
    }
    let [_, _, publishers, subscribers, ..] = open;
    json.integer("num_streams", publishers + subscribers);
    let time = Utc.timestamp_millis_opt(tick).single().unwrap_or_default();
    json.integer("dayOfWeek", i64::from(time.weekday().number_from_monday()));
    json.integer("hourOfDay", i64::from(time.hour()));
    json.integer("timestamp", tick);
    json.text_if("cluster_id", scope.cluster_id().filter(|id| !id.is_empty()));
    json.text_if("media_node_id", scope.media_node_id());
    let mut id = Hasher::new("platformStats");
    id.optional(scope.cluster_id());
    id.optional(scope.media_node_id());
    Document {
        id: timed_id(tick, &id),
        index_time: tick,
        elastic_type: "platformStats".into(),
        version: None,
        json: Bytes::from(json.finish()),
    }
}
