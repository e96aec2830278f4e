//! Incarnations: one opening of a session, from its start to its end.
//!
//! With a `uniqueSessionId` a state is one incarnation. Without (before OpenVidu 2.17) the state of a `sessionId` holds all
//! of them: each known start opens an interval up to the next start or to its own end, whichever comes first, and a
//! connection or recording belongs to the interval that holds its start. What lies outside every interval is *guessed*: it
//! is written, but no session is made of it until a start is known.

use super::state::{
    Connection, End, EntityKey, Recording, RecordingKey, Session, SessionKey, Stream, StreamKey,
};

/// One opening of a session and what happened in it. Lists are in the order of (start, id).
#[derive(Debug, Default)]
pub struct Incarnation<'a> {
    /// Milliseconds since 1970; `None`: guessed.
    pub start: Option<i64>,
    /// When and why it ended.
    pub end: Option<&'a End>,
    /// Connections that `cdr` events have told of.
    pub connections: Vec<Person<'a>>,
    /// Recordings, whatever became of them.
    pub recordings: Vec<(&'a RecordingKey, &'a Recording)>,
    /// Newest time among the facts of all these.
    pub newest: i64,
}

/// A connection with its streams.
#[derive(Debug)]
pub struct Person<'a> {
    /// Connection id.
    pub id: &'a str,
    /// What is known of it; nothing where only streams have told of it.
    pub connection: Option<&'a Connection>,
    /// Milliseconds since 1970: of the connection, else of its first stream.
    pub start: i64,
    /// Its streams, ended or not.
    pub streams: Vec<(&'a StreamKey, &'a Stream)>,
}

/// Cuts a state into incarnations, in the order of their starts; guessed ones come last.
#[must_use]
pub fn cut<'a>(session: &'a Session, key: &SessionKey) -> Vec<Incarnation<'a>> {
    let mut incarnations: Vec<Incarnation<'a>> = if key.unique {
        vec![whole(session, key)]
    } else {
        let starts = session.head.starts.iter();
        starts.map(|(start, known)| incarnation(*start, known.end.as_ref())).collect()
    };
    let mut guessed = Incarnation::default();
    for person in people(session) {
        let newest = person.newest();
        let incarnation = find(&mut incarnations, person.start, key).unwrap_or(&mut guessed);
        incarnation.newest = incarnation.newest.max(newest);
        incarnation.connections.push(person);
    }
    let mut recordings: Vec<_> = session.recordings.iter().collect();
    recordings.sort_by_key(|(key, _)| (key.start, &key.id));
    for (recording_key, recording) in recordings {
        let incarnation = find(&mut incarnations, recording_key.start, key).unwrap_or(&mut guessed);
        incarnation.newest = incarnation.newest.max(recording.newest);
        incarnation.recordings.push((recording_key, recording));
    }
    if !guessed.connections.is_empty() || !guessed.recordings.is_empty() {
        incarnations.push(guessed);
    }
    incarnations
}

/// Start of the state's first incarnation, guessed if need be.
#[must_use]
pub fn first_start(session: &Session, key: &SessionKey) -> i64 {
    let known = session.head.starts.keys().next().copied().or_else(|| start_in_id(key));
    known.unwrap_or_else(|| {
        let people = people(session).into_iter().map(|person| person.start);
        let recordings = session.recordings.keys().map(|key| key.start);
        people.chain(recordings).min().unwrap_or(session.head.newest)
    })
}

/// The number at the end of a `uniqueSessionId`.
#[must_use]
pub fn start_in_id(key: &SessionKey) -> Option<i64> {
    let (_, start) = key.id.rsplit_once('_').filter(|_| key.unique)?;
    start.parse().ok().filter(|start| *start >= crate::decode::TIME_MIN)
}

/// Of every ended incarnation: its end, the lane clock at its last fact, whether a recording of its is still being processed.
pub(super) fn ended<'a>(
    session: &'a Session,
    key: &'a SessionKey,
) -> impl Iterator<Item = (i64, i64, bool)> + 'a {
    let any = session.head.starts.values().any(|start| start.end.is_some());
    let incarnations = if any { cut(session, key) } else { Vec::new() };
    incarnations.into_iter().filter_map(move |incarnation| {
        let end = incarnation.end?;
        Some((end.time, touched(session, key, incarnation.start), awaits_recording(&incarnation)))
    })
}

/// Removes the ended incarnations for which `is_over(end, touched, awaits_recording)` and gives start and end of each.
/// Their ends and facts stay counted in the head.
pub(super) fn take_ended(
    session: &mut Session,
    key: &SessionKey,
    is_over: impl Fn(i64, i64, bool) -> bool,
) -> Vec<(i64, i64)> {
    let mut spans = Vec::new();
    let mut entities = Vec::new();
    let mut starts = Vec::new();
    for incarnation in cut(session, key) {
        let (Some(start), Some(end)) = (incarnation.start, incarnation.end) else { continue };
        if !is_over(
            end.time,
            touched(session, key, incarnation.start),
            awaits_recording(&incarnation),
        ) {
            continue;
        }
        spans.push((start, end.time.max(start)));
        starts.push(start);
        for person in &incarnation.connections {
            entities.push(EntityKey::Connection(person.id.into()));
            entities
                .extend(person.streams.iter().map(|(key, _)| EntityKey::Stream((*key).clone())));
        }
        entities.extend(
            incarnation.recordings.iter().map(|(key, _)| EntityKey::Recording((*key).clone())),
        );
    }
    if key.unique && !starts.is_empty() {
        take_all(session);
        return spans;
    }
    for start in starts {
        if session.head.starts.remove(&start).is_some_and(|start| start.end.is_some()) {
            session.head.forgotten.0 += 1;
        }
    }
    for entity in entities {
        take(session, &entity);
    }
    spans
}

/// Removes everything; its ends and facts stay counted in the head.
pub(super) fn take_all(session: &mut Session) {
    session.head.forgotten.0 += session.ends();
    session.head.starts.clear();
    for entity in entity_keys(session) {
        take(session, &entity);
    }
}

/// Everything in a session, as it is saved.
pub(super) fn entity_keys(session: &Session) -> Vec<EntityKey> {
    let connections = session.connections.keys().cloned().map(EntityKey::Connection);
    let streams = session.streams.keys().cloned().map(EntityKey::Stream);
    let recordings = session.recordings.keys().cloned().map(EntityKey::Recording);
    [EntityKey::Head].into_iter().chain(connections).chain(streams).chain(recordings).collect()
}

fn take(session: &mut Session, entity: &EntityKey) {
    let facts = session.remove(entity);
    session.head.forgotten.1 += facts.map_or(0, |facts| facts.len());
    session.changed.insert(EntityKey::Head);
}

fn incarnation(start: i64, end: Option<&End>) -> Incarnation<'_> {
    Incarnation {
        start: Some(start),
        end,
        newest: end.map_or(start, |end| end.time),
        ..Incarnation::default()
    }
}

/// The one incarnation of a state with a `uniqueSessionId`.
fn whole<'a>(session: &'a Session, key: &SessionKey) -> Incarnation<'a> {
    let end = session.head.starts.values().filter_map(|start| start.end.as_ref()).min();
    let mut incarnation = incarnation(first_start(session, key), end);
    incarnation.newest = session.head.newest;
    incarnation
}

/// The incarnation whose interval holds `start`.
fn find<'i, 'a>(
    incarnations: &'i mut [Incarnation<'a>],
    start: i64,
    key: &SessionKey,
) -> Option<&'i mut Incarnation<'a>> {
    if key.unique {
        return incarnations.first_mut();
    }
    let after = incarnations
        .partition_point(|incarnation| incarnation.start.is_some_and(|known| known <= start));
    let incarnation = incarnations.get_mut(after.checked_sub(1)?)?;
    incarnation.end.is_none_or(|end| start <= end.time).then_some(incarnation)
}

/// Every connection that `cdr` events have told of, with its streams, by (start, id).
fn people(session: &Session) -> Vec<Person<'_>> {
    let mut people: Vec<Person<'_>> = Vec::with_capacity(session.connections.len());
    let mut streams = session.streams.iter().peekable();
    let mut connections = session.connections.iter().peekable();
    // Both maps are in the order of connection ids: one pass over both.
    loop {
        let next_connection = connections.peek().map(|&(id, _)| id.as_ref());
        let next_stream = streams.peek().map(|&(key, _)| key.connection.as_ref());
        let id: &str = match (next_connection, next_stream) {
            (Some(connection), Some(stream)) => connection.min(stream),
            (Some(id), None) | (None, Some(id)) => id,
            (None, None) => break,
        };
        let connection = connections
            .next_if(|(known, _)| known.as_ref() == id)
            .map(|(_, connection)| connection);
        let mut own = Vec::new();
        while let Some(stream) = streams.next_if(|(key, _)| key.connection.as_ref() == id) {
            own.push(stream);
        }
        let joined =
            connection.and_then(|connection| connection.joined.as_ref()).map(|joined| joined.start);
        let Some(start) = joined.or_else(|| own.iter().map(|(key, _)| key.start).min()) else {
            continue;
        };
        own.sort_by_key(|(key, _)| (key.start, &key.stream));
        people.push(Person { id, connection, start, streams: own });
    }
    people.sort_by_key(|person| (person.start, person.id));
    people
}

impl Person<'_> {
    fn newest(&self) -> i64 {
        let streams = self.streams.iter().map(|(_, stream)| stream.newest);
        streams.fold(self.connection.map_or(i64::MIN, |connection| connection.newest), i64::max)
    }
}

fn touched(session: &Session, key: &SessionKey, start: Option<i64>) -> i64 {
    if key.unique {
        return session.head.touched;
    }
    start.and_then(|start| session.head.starts.get(&start)).map_or(0, |start| start.touched)
}

fn awaits_recording(incarnation: &Incarnation<'_>) -> bool {
    incarnation
        .recordings
        .iter()
        .any(|(_, recording)| recording.stop.is_some() && recording.last.is_none())
}
