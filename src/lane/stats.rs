//! `platformStats`: how many sessions, connections, streams and recordings were open at regular ticks.
//!
//! Observations: one document per cluster and one per media node for every tick of event time at which something was open,
//! written once the clock has passed the tick by a minute, from what is known then, and never corrected. A late event does
//! not change them.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{Datelike, TimeZone, Timelike, Utc};

use crate::document::Document;
use crate::json::Object;
use crate::sessions::Sessions;
use crate::sessions::facts::Hasher;
use crate::sessions::incarnation;
use crate::sessions::state::{Session, SessionKey};

/// How long after its tick a document is written, in milliseconds.
const SETTLE: i64 = 60_000;
/// Most ticks of one call: a clock that leaps over a gap of years must not make a million documents.
const TICKS_MAX: i64 = 100_000;

/// Sessions, connections, publishers, subscribers, recordings.
type Counts = [i64; 5];
const NAMES: [&str; 5] =
    ["num_sessions", "num_connections", "num_publishers", "num_subscribers", "num_recordings"];

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
    let documents = sweep(sessions, *last + 1, settled, every);
    *last = settled;
    documents
}

/// The documents of all ticks within `from..=to` at which something was open.
#[must_use]
pub fn sweep(sessions: &Sessions, from: i64, to: i64, every: i64) -> Vec<Document> {
    let mut changes: BTreeMap<Scope<'_>, BTreeMap<i64, Counts>> = BTreeMap::new();
    for (key, session) in sessions.iter() {
        add(&mut changes, key, session, from, to, every);
    }
    let mut documents = Vec::new();
    for (scope, changes) in changes {
        let mut open = Counts::default();
        let mut changes = changes.into_iter().peekable();
        while let Some((tick, change)) = changes.next() {
            for (count, change) in open.iter_mut().zip(change) {
                *count += change;
            }
            let until = changes.peek().map_or(to + every, |(tick, _)| *tick);
            let mut tick = tick;
            let mut ticks = 0;
            while tick < until
                && tick <= to
                && open.iter().any(|count| *count > 0)
                && ticks < TICKS_MAX
            {
                documents.push(document(&scope, tick, &open));
                tick += every;
                ticks += 1;
            }
        }
    }
    documents
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope<'a> {
    cluster_id: &'a str,
    /// `None`: the whole cluster.
    media_node_id: Option<&'a str>,
}

fn add<'a>(
    changes: &mut BTreeMap<Scope<'a>, BTreeMap<i64, Counts>>,
    key: &'a SessionKey,
    session: &'a Session,
    from: i64,
    to: i64,
    every: i64,
) {
    if !session.is_real() {
        return;
    }
    let media_node = session.head.media_node.as_ref().map(|(_, id)| id.as_ref());
    let mut count = |what: usize, start: i64, end: Option<i64>| {
        // The first tick at or after `start`, and the first at which it was over.
        let on = (start.max(from) + every - 1).div_euclid(every) * every;
        let end = end.or(session.head.silent.then_some(session.head.newest));
        let off = end.map_or(to + every, |end| (end + every - 1).div_euclid(every) * every);
        if on >= off || on > to {
            return;
        }
        let nodes = media_node.map(Some);
        for media_node_id in [None].into_iter().chain(nodes) {
            let scope =
                changes.entry(Scope { cluster_id: &key.cluster_id, media_node_id }).or_default();
            for (tick, change) in [(on, 1), (off, -1)] {
                if let Some(count) = scope.entry(tick).or_default().get_mut(what) {
                    *count += change;
                }
            }
        }
    };
    for incarnation in incarnation::cut(session, key) {
        let end = incarnation.end.map(|end| end.time);
        if let Some(start) = incarnation.start {
            count(0, start, end);
        }
        for person in &incarnation.connections {
            let own = person
                .connection
                .and_then(|connection| connection.end.as_ref())
                .map(|own| own.time)
                .or(end);
            count(1, person.start, own);
            for (key, stream) in &person.streams {
                let what = if key.outbound { 2 } else { 3 };
                count(what, key.start, stream.end.as_ref().map(|own| own.time).or(own));
            }
        }
        for (key, recording) in &incarnation.recordings {
            let stop = recording.stop.as_ref().map(|stop| stop.time);
            count(4, key.start, stop.or(recording.last.as_ref().map(|last| last.time)).or(end));
        }
    }
}

fn document(scope: &Scope<'_>, tick: i64, open: &Counts) -> Document {
    let mut json = Object::with_capacity(384);
    json.text("elastic_type", "platformStats");
    json.text("scope", if scope.media_node_id.is_some() { "media_node" } else { "cluster" });
    for (name, count) in NAMES.iter().zip(open) {
        json.integer(name, *count);
    }
    let [_, _, publishers, subscribers, _] = open;
    json.integer("num_streams", publishers + subscribers);
    let time = Utc.timestamp_millis_opt(tick).single().unwrap_or_default();
    json.integer("dayOfWeek", i64::from(time.weekday().number_from_monday()));
    json.integer("hourOfDay", i64::from(time.hour()));
    json.integer("timestamp", tick);
    json.text_if("cluster_id", Some(scope.cluster_id).filter(|id| !id.is_empty()));
    json.text_if("media_node_id", scope.media_node_id);
    let mut id = Hasher::new("platformStats");
    id.text(scope.cluster_id);
    id.optional(scope.media_node_id);
    Document {
        id: format!("{tick:012x}{:024x}", id.digest128() >> 32).into(),
        index_time: tick,
        elastic_type: "platformStats".into(),
        version: None,
        json: Bytes::from(json.finish()),
    }
}
