//! One event into the state of its session. Each function says whether it added a fact; a fact that is known adds nothing.

use crate::enrich::Enriched;
use crate::event::{self, Body, Event};

use super::facts;
use super::state::{
    Connection, End, EndpointKey, EntityKey, Final, Joined, RecordingKey, Seconds, Session, Stop,
    StreamAttributes, StreamKey, Values, keep_greater, keep_smaller,
};

/// Endpoint states kept of one connection. A connection has a handful.
const ENDPOINTS_MAX: usize = 1000;

/// Merges what the fold reads of `event`.
pub(super) fn event(
    session: &mut Session,
    event: &Event<'_>,
    enriched: &Enriched,
    fact: u64,
    clock: i64,
) -> bool {
    let start = start_of(event);
    let entity = match &event.body {
        Body::SessionCreated | Body::SessionDestroyed(_) => EntityKey::Head,
        Body::Recording(recording) => EntityKey::Recording(RecordingKey {
            id: recording.id.as_ref().into(),
            start: recording.start,
        }),
        Body::Stream(stream) => EntityKey::Stream(stream_key(event, stream, start)),
        Body::Participant(_) | Body::MediaState(_) | Body::NetworkQuality(_) | Body::Other => {
            EntityKey::Connection(event.connection_id.as_deref().unwrap_or_default().into())
        }
    };
    if session.head.cut_facts.has(fact) {
        return false;
    }
    let added = match &entity {
        EntityKey::Head | EntityKey::Closed => head(session, event, enriched, fact),
        EntityKey::Connection(id) => {
            let connection = session.connections.entry(id.clone()).or_default();
            let added = connection.facts.add(fact);
            if added && !into_connection(connection, event, enriched, start) {
                session.head.truncated = true;
            }
            added
        }
        EntityKey::Stream(key) => stream(session, key, event, enriched, fact),
        EntityKey::Recording(key) => recording(session, key, event, enriched, fact),
    };
    if added {
        session.head.truncated |= enriched.truncated;
        session.head.newest = session.head.newest.max(event.time);
        session.changed.insert(entity);
        if let Some((_, latest)) = session.head.starts.range_mut(..=start).next_back() {
            latest.touched = latest.touched.max(clock);
        }
    }
    added
}

/// Merges that telemetry names `user` as the user of `connection`.
pub(super) fn user(
    session: &mut Session,
    connection: &str,
    user: &str,
    enriched: &Enriched,
    time: i64,
) -> bool {
    let fact = facts::user(user);
    if session.head.cut_facts.has(fact) {
        return false;
    }
    let known = session.connections.entry(connection.into()).or_default();
    if !known.facts.add(fact) {
        return false;
    }
    known.newest = known.newest.max(time);
    session.head.newest = session.head.newest.max(time);
    keep_smaller(&mut known.user, enriched.telemetry_user.clone().unwrap_or_else(|| user.into()));
    session.changed.insert(EntityKey::Connection(connection.into()));
    true
}

/// Merges that the source called `name` has told of the session.
pub(super) fn source(session: &mut Session, name: &str, master_node_id: &str) -> bool {
    let added = session.head.facts.add(facts::source(name, master_node_id));
    if added {
        let known =
            session.head.sources.entry(name.into()).or_insert_with(|| master_node_id.into());
        if master_node_id < known.as_ref() {
            *known = master_node_id.into();
        }
    }
    added
}

/// Keeps at most `entities_max` connections, streams and recordings: those with the smallest (start, id). The facts of the
/// others stay counted.
pub(super) fn bound(session: &mut Session, entities_max: usize) {
    while session.entities() > entities_max {
        let connection = session.connections.iter().map(|(id, connection)| {
            let start = connection.joined.as_ref().map_or(i64::MAX, |joined| joined.start);
            (start, EntityKey::Connection(id.clone()))
        });
        let stream = session.streams.keys().map(|key| (key.start, EntityKey::Stream(key.clone())));
        let recording =
            session.recordings.keys().map(|key| (key.start, EntityKey::Recording(key.clone())));
        let Some((_, key)) =
            connection.max().into_iter().chain(stream.max()).chain(recording.max()).max()
        else {
            return;
        };
        if let Some(facts) = session.remove(&key) {
            session.head.cut_facts.extend(&facts);
        }
        session.head.truncated = true;
    }
}

/// When the thing began that `event` tells of.
pub(super) fn start_of(event: &Event<'_>) -> i64 {
    let end = match &event.body {
        Body::SessionDestroyed(end) => Some(end),
        Body::Participant(participant) => participant.left.as_ref(),
        Body::Stream(stream) => stream.destroyed.as_ref(),
        Body::Recording(recording) => return recording.start,
        Body::SessionCreated | Body::MediaState(_) | Body::NetworkQuality(_) | Body::Other => None,
    };
    end.and_then(|end| end.start).unwrap_or(event.time)
}

fn end_of(event: &Event<'_>, enriched: &Enriched) -> End {
    End { time: event.time, reason: enriched.reason.clone() }
}

fn head(session: &mut Session, event: &Event<'_>, enriched: &Enriched, fact: u64) -> bool {
    if !session.head.facts.add(fact) {
        return false;
    }
    let start = session.head.starts.entry(start_of(event)).or_default();
    if matches!(event.body, Body::SessionDestroyed(_)) {
        keep_smaller(&mut start.end, end_of(event, enriched));
    }
    true
}

/// `false` if the connection has too many endpoints to keep this one.
fn into_connection(
    connection: &mut Connection,
    event: &Event<'_>,
    enriched: &Enriched,
    start: i64,
) -> bool {
    connection.newest = connection.newest.max(event.time);
    match &event.body {
        Body::Participant(participant) => {
            keep_smaller(
                &mut connection.joined,
                Joined {
                    by_leave: participant.left.is_some(),
                    start,
                    time: event.time,
                    place: enriched.place.clone(),
                    address: enriched.address.clone(),
                    data: enriched.data.clone(),
                    user: enriched.user.clone(),
                    tenant: enriched.tenant.clone(),
                },
            );
            if participant.left.is_some() {
                keep_smaller(&mut connection.end, end_of(event, enriched));
            }
        }
        Body::MediaState(state) => {
            let key = EndpointKey {
                endpoint: state.endpoint.as_ref().into(),
                aspect: state.aspect,
                part: state.part.as_ref().into(),
            };
            if connection.endpoints.len() >= ENDPOINTS_MAX
                && !connection.endpoints.contains_key(&key)
            {
                return false;
            }
            connection.endpoints.entry(key).or_default().merge(event.time, &state.state);
        }
        Body::NetworkQuality(level) => keep_smaller(&mut connection.quality, *level),
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Stream(_)
        | Body::Recording(_)
        | Body::Other => {}
    }
    true
}

fn stream_key(event: &Event<'_>, stream: &event::Stream<'_>, start: i64) -> StreamKey {
    let id = match (stream.stream_id.is_empty(), &stream.receiving_from) {
        (true, Some(sender)) => format!("from:{sender}").into(),
        _ => stream.stream_id.as_ref().into(),
    };
    StreamKey {
        connection: event.connection_id.as_deref().unwrap_or_default().into(),
        outbound: stream.outbound,
        stream: id,
        start,
    }
}

fn stream(
    session: &mut Session,
    key: &StreamKey,
    event: &Event<'_>,
    enriched: &Enriched,
    fact: u64,
) -> bool {
    let Body::Stream(told) = &event.body else { return false };
    let stream = session.streams.entry(key.clone()).or_default();
    if !stream.facts.add(fact) {
        return false;
    }
    stream.newest = stream.newest.max(event.time);
    keep_smaller(
        &mut stream.attributes,
        StreamAttributes {
            by_end: told.destroyed.is_some(),
            time: event.time,
            members: enriched.attributes.clone(),
        },
    );
    if told.destroyed.is_some() {
        keep_smaller(&mut stream.end, end_of(event, enriched));
    }
    true
}

fn recording(
    session: &mut Session,
    key: &RecordingKey,
    event: &Event<'_>,
    enriched: &Enriched,
    fact: u64,
) -> bool {
    use crate::event::RecordingStatus::{Failed, Ready, Started, Stopped};
    let Body::Recording(told) = &event.body else { return false };
    let recording = session.recordings.entry(key.clone()).or_default();
    if !recording.facts.add(fact) {
        return false;
    }
    recording.newest = recording.newest.max(event.time);
    let values = Values {
        size: told.size,
        duration: Seconds::new(told.duration),
        members: enriched.values.clone(),
    };
    match told.status {
        Started => {}
        Stopped => {
            recording.old_stop |= told.old_name;
            keep_greater(&mut recording.stop_values, values);
            keep_smaller(
                &mut recording.stop,
                Stop {
                    time: event.time,
                    old_name: told.old_name,
                    reason: enriched.reason.clone(),
                    members: enriched.attributes.clone(),
                },
            );
        }
        Ready | Failed => {
            let last = Final { time: event.time, ready: told.status == Ready, values };
            keep_greater(&mut recording.last, last);
        }
    }
    if let Some(media_node) = event.field("media_node_id").and_then(event::Field::text) {
        keep_smaller(&mut session.head.media_node, (event.time, media_node.as_ref().into()));
    }
    true
}
