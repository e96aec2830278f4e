//! One event into the state of its session. A fact that is known adds nothing.

use std::borrow::Cow;

use crate::decode::ID_BYTES_MAX;
use crate::enrich::Enriched;
use crate::event::{self, Body, Event, FieldName, Seen};

use super::browser::{Directory, NOBODY, Reporter};
use super::facts;
use super::state::{
    Alone, Connection, End, EntityKey, Facts, Final, Head, Joined, NAMELESS, Recording,
    RecordingKey, Seconds, SeenSession, Session, Stop, Stream, StreamAttributes, Teller, Values,
    keep_greater, keep_smaller,
};

/// Endpoints kept of one connection: one for each stream that it sends or receives.
const ENDPOINTS_MAX: usize = 1_000;
/// The same of all browsers of a session together, of one of them, and of all at one address: what somebody makes up, be it browsers,
/// leaves room for the others. Those whose connection is known have as much room again.
const REPORTED_MAX: usize = 5_000;
const OF_REPORTER_MAX: usize = 250;
const OF_ADDRESS_MAX: usize = 1_000;

/// Broadcasts kept of one session.
const BROADCASTS_MAX: usize = 100;

/// What is merged, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'e, 'a> {
    pub event: &'e Event<'a>,
    pub enriched: &'e Enriched,
    /// The fact that the event is, if the fold reads more of it than the user.
    pub fact: Option<u64>,
    /// The user that it names.
    pub user: Option<&'e str>,
    /// Place of its source among those of the session.
    pub source: usize,
    /// Whether it carries a `uniqueSessionId`.
    pub unique: bool,
    /// Most entities of one incarnation.
    pub entities_max: usize,
    /// The lane's, milliseconds since 1970.
    pub clock: i64,
}

/// What one event did to a session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Merged {
    /// It added a fact.
    pub added: bool,
    /// When the thing began that it tells of, which decides its incarnation.
    pub start: i64,
    /// It may have moved the borders between incarnations.
    pub divides: bool,
    /// What it belongs to was written while its start was guessed.
    pub was_written: bool,
}

/// Merges what the fold reads of an event.
pub(super) fn event(session: &mut Session, told: Told<'_, '_>) -> Merged {
    let event = told.event;
    let start = start_of(event);
    let mut merged = Merged { start, ..Merged::default() };
    if is_cut(session, &told, start) {
        let facts = told.fact.into_iter().chain(told.user.map(|user| user_fact(event, user)));
        for fact in facts {
            merged.added |= session.head.cut_facts.add(fact);
        }
        session.head.unsaved |= merged.added;
        return merged;
    }
    let before = session.entities;
    let truncated = told.enriched.truncated;
    match &event.body {
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Seen(Seen::Session(_) | Seen::Presence { .. }) => {
            merged.added = head(&mut session.head, &told, start);
            merged.divides = merged.added;
        }
        Body::Recording(recording) | Body::Seen(Seen::Recording(recording)) => {
            let key = RecordingKey { id: recording.id.as_ref().into(), start };
            let known = session.recording(&key);
            merged.added = into_recording(known, recording, &told);
            known.truncated |= truncated;
            known.unsaved |= merged.added;
            merged.was_written = touch(&mut known.alone, told.clock);
        }
        Body::Stream(stream) => {
            let id = connection_id(event);
            let known = session.stream(id, (stream.outbound, &stream_id(stream), start));
            merged.added = into_stream(known, stream, &told);
            known.truncated |= truncated;
            known.unsaved |= merged.added;
            let known = session.connection(id);
            known.unsaved |= merged.added;
            merged.was_written = touch(&mut known.alone, told.clock);
            merged.start = known.start().unwrap_or(start);
        }
        Body::Endpoint(endpoint) => {
            let is_full = is_full(session, event, endpoint);
            let known = session.connection(connection_id(event));
            merged.added = into_endpoint(known, endpoint, is_full, &told);
            merged.was_written = touch(&mut known.alone, told.clock);
            merged.start = known.start().unwrap_or(start);
        }
        Body::Participant(_)
        | Body::Seen(Seen::Connection(_))
        | Body::NetworkQuality(_)
        | Body::Broadcast(_)
        | Body::Other => {
            let known = session.connection(connection_id(event));
            let is_named = into_user(known, &told);
            merged.added = into_connection(known, &told, start) || is_named;
            known.truncated |= truncated;
            known.unsaved |= merged.added;
            merged.was_written = touch(&mut known.alone, told.clock);
            merged.start = known.start().unwrap_or(start);
        }
    }
    if told.unique {
        merged.added |= session.head.told_by.add(told.source);
    }
    if merged.added {
        // That it is looked at is no sign of life.
        let is_presence = matches!(event.body, Body::Seen(Seen::Presence { .. }));
        if told.fact.is_some() && !is_presence {
            session.head.newest = session.head.newest.max(event.time);
        }
        session.head.unsaved = true;
        let grown = session.entities - before;
        if grown > 0 {
            let count = entities_at(session, merged.start, told.unique);
            *count += grown;
            if *count > told.entities_max {
                bound(session, merged.start, told.unique, told.entities_max);
            }
        }
    }
    merged
}

fn connection_id<'e>(event: &'e Event<'_>) -> &'e str {
    event.connection_id.as_deref().unwrap_or(NOBODY)
}

/// What a stream is kept under: its id, or a name of its own where OpenVidu gave none.
fn stream_id<'s>(stream: &'s event::Stream<'_>) -> Cow<'s, str> {
    match (stream.stream_id.is_empty(), &stream.receiving_from) {
        (true, Some(sender)) => Cow::Owned(format!("{NAMELESS}{sender}")),
        _ => Cow::Borrowed(&stream.stream_id),
    }
}

/// Notes that something was told; whether it was written before.
fn touch(alone: &mut Alone, clock: i64) -> bool {
    alone.touched = alone.touched.max(clock);
    alone.written
}

/// How many entities have been counted around `start`.
fn entities_at(session: &mut Session, start: i64, unique: bool) -> &mut usize {
    if unique {
        return &mut session.head.phase.entities;
    }
    match session.start_at(start) {
        Some(at) => &mut session.head.starts.entry(at).or_default().phase.entities,
        None => &mut session.head.alone,
    }
}

/// Notes a broadcast that begins, or one that has stopped. No fact: no summary tells of it.
pub(super) fn broadcast(head: &mut Head, at: i64, stopped: Option<&event::End<'_>>) {
    match stopped {
        None => _ = head.broadcasts.entry(at).or_default(),
        Some(end) => {
            let open = || {
                let mut known = head.broadcasts.range(..=at).rev();
                known.find(|(_, end)| end.is_none()).map(|(start, _)| *start)
            };
            let start = end.start.or_else(open).unwrap_or(at);
            let known = head.broadcasts.entry(start).or_default();
            *known = Some(known.map_or(at, |known| known.min(at)));
        }
    }
    // One session broadcasts once at a time; who makes up hundreds loses the oldest.
    while head.broadcasts.len() > BROADCASTS_MAX {
        head.broadcasts.pop_first();
    }
    head.unsaved = true;
}

/// The place of a source among those that have told of the session.
pub(super) fn source(head: &mut Head, name: &str, master_node_id: &str) -> usize {
    let mut known = head.sources.iter();
    let place = known.position(|(known, master)| **known == *name && **master == *master_node_id);
    place.unwrap_or_else(|| {
        head.sources.push((name.into(), master_node_id.into()));
        head.sources.len() - 1
    })
}

/// When the thing began that `event` tells of.
pub(super) fn start_of(event: &Event<'_>) -> i64 {
    let end = match &event.body {
        Body::SessionDestroyed(end) => Some(end),
        Body::Participant(participant) => participant.left.as_ref(),
        Body::Stream(stream) => stream.destroyed.as_ref(),
        Body::Recording(recording) | Body::Seen(Seen::Recording(recording)) => {
            return recording.start;
        }
        Body::Seen(Seen::Presence { start, .. }) => return *start,
        Body::Broadcast(stopped) => stopped.as_ref(),
        Body::SessionCreated
        | Body::Endpoint(_)
        | Body::Seen(Seen::Session(_) | Seen::Connection(_))
        | Body::NetworkQuality(_)
        | Body::Other => None,
    };
    end.and_then(|end| end.start).unwrap_or(event.time)
}

fn user_fact(event: &Event<'_>, user: &str) -> u64 {
    facts::user(event.connection_id.as_deref().unwrap_or_default(), user)
}

/// Whether the event tells of an entity that there is no room for. Those with the smallest starts are kept.
fn is_cut(session: &mut Session, told: &Told<'_, '_>, start: i64) -> bool {
    let id = connection_id(told.event);
    let known = session.connections.get(id);
    let at = known.and_then(|known| known.start()).unwrap_or(start);
    let is_known = match &told.event.body {
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Seen(Seen::Session(_) | Seen::Presence { .. }) => true,
        Body::Stream(stream) => known.is_some_and(|known| {
            known.stream((stream.outbound, &stream_id(stream), start)).is_some()
        }),
        Body::Recording(recording) | Body::Seen(Seen::Recording(recording)) => session
            .recordings
            .contains_key(&RecordingKey { id: recording.id.as_ref().into(), start }),
        Body::Participant(_)
        | Body::Endpoint(_)
        | Body::Seen(Seen::Connection(_))
        | Body::NetworkQuality(_)
        | Body::Broadcast(_)
        | Body::Other => known.is_some(),
    };
    // What only telemetry has told of goes first.
    let is_untold = told.fact.is_none()
        || matches!(told.event.body, Body::Endpoint(_) | Body::NetworkQuality(_));
    let from = session.phase_at(at, told.unique).and_then(|phase| phase.cut_from);
    !is_known && from.is_some_and(|from| is_untold || from <= start)
}

/// Keeps at most `entities_max` connections, streams and recordings of the incarnation around `start`: those with the smallest
/// (start, id). The facts of the others stay counted, and what begins after them is not begun any more.
fn bound(session: &mut Session, start: i64, unique: bool, entities_max: usize) {
    loop {
        let mut count = 0;
        let mut last: Option<(i64, EntityKey)> = None;
        let mut see = |start: i64, key: &dyn Fn() -> EntityKey| {
            count += 1;
            if last.as_ref().is_none_or(|(latest, _)| *latest <= start) {
                let key = key();
                if last.as_ref().is_none_or(|last| *last < (start, key.clone())) {
                    last = Some((start, key));
                }
            }
        };
        let is_own = |time: i64| unique || session.start_at(time) == session.start_at(start);
        for (id, connection) in &session.connections {
            let own = connection.start();
            if own.is_some_and(|own| !is_own(own)) {
                continue;
            }
            // One that only telemetry has told of goes first.
            see(own.unwrap_or(i64::MAX), &|| EntityKey::Connection(id.clone()));
            for stream in &connection.streams {
                see(stream.start, &|| {
                    EntityKey::Stream(id.clone(), stream.outbound, stream.id.clone(), stream.start)
                });
            }
        }
        for key in session.recordings.keys().filter(|key| is_own(key.start)) {
            see(key.start, &|| EntityKey::Recording(key.clone()));
        }
        *entities_at(session, start, unique) = count;
        let Some((from, key)) = last.filter(|_| count > entities_max) else { return };
        if let Some(phase) = session.phase_at(start, unique) {
            phase.truncated = true;
            phase.cut_from = Some(phase.cut_from.map_or(from, |known| known.min(from)));
        }
        if let Some(facts) = session.remove(key) {
            session.head.cut_facts.extend(&facts);
        }
    }
}

fn end_of(told: &Told<'_, '_>) -> End {
    End { time: told.event.time, reason: told.enriched.reason.clone() }
}

fn head(head: &mut Head, told: &Told<'_, '_>, at: i64) -> bool {
    let Some(fact) = told.fact else { return false };
    let is_new = head.facts.add(fact);
    let start = head.starts.entry(at).or_default();
    let is_told = !told.unique && start.told_by.add(told.source);
    let phase = if told.unique { &mut head.phase } else { &mut start.phase };
    phase.truncated |= told.enriched.truncated;
    match &told.event.body {
        _ if !is_new => {}
        Body::SessionDestroyed(_) => keep_smaller(&mut start.end, end_of(told)),
        Body::Seen(Seen::Session(seen)) => keep_smaller(&mut start.seen, seen_session(seen, told)),
        Body::Seen(Seen::Presence { is_shown, .. }) => {
            keep_greater(&mut start.presence, (told.event.time, *is_shown));
        }
        _ => {}
    }
    is_new || is_told
}

/// What may be stored of what the API says.
fn seen_session(seen: &event::SeenSession<'_>, told: &Told<'_, '_>) -> SeenSession {
    let kept = |name, text: &Option<Cow<'_, str>>| {
        let text = text.as_deref().filter(|_| !told.enriched.drops(name))?;
        Some(crate::json::prefix(text, ID_BYTES_MAX).into())
    };
    SeenSession {
        custom_session_id: kept(FieldName::CustomSessionId, &seen.custom_session_id),
        media_mode: kept(FieldName::MediaMode, &seen.media_mode),
        recording_mode: kept(FieldName::RecordingMode, &seen.recording_mode),
        media_node_id: kept(FieldName::MediaNodeId, &seen.media_node_id),
    }
}

/// Adds the fact, and the source where incarnations are told apart by their entities alone.
fn add(
    facts: &mut Facts,
    told_by: &mut super::state::Tellers,
    told: &Told<'_, '_>,
    fact: u64,
) -> (bool, bool) {
    (facts.add(fact), !told.unique && told_by.add(told.source))
}

/// Who the connection belongs to, where telemetry tells it.
fn into_user(connection: &mut Connection, told: &Told<'_, '_>) -> bool {
    let Some(user) = told.user else { return false };
    let fact = user_fact(told.event, user);
    let (is_new, is_told) = add(&mut connection.facts, &mut connection.told_by, told, fact);
    if is_new {
        let user = told.enriched.telemetry_user.as_deref().unwrap_or(user);
        if connection.user.as_deref().is_none_or(|known| user < known) {
            connection.user = Some(user.into());
        }
    }
    is_new || is_told
}

/// Whether there is no room for an endpoint that was not told of before.
fn is_full(session: &Session, event: &Event<'_>, endpoint: &event::Endpoint<'_>) -> bool {
    let Some(connection) = session.connections.get(connection_id(event)) else { return false };
    if connection.endpoint(&endpoint.name).is_some() {
        return false;
    }
    let count = connection.endpoints.len();
    if event.connection_id.is_some() {
        return count >= ENDPOINTS_MAX;
    }
    let is_crowded = || {
        count >= REPORTED_MAX || connection.reported_from_where(&endpoint.name) >= OF_ADDRESS_MAX
    };
    let is_somebodys = || {
        let reporter = Reporter::read(&endpoint.name);
        reporter.and_then(|told| Directory::of(session).owner(&told, Some(event.time))).is_some()
    };
    connection.endpoints_below(Reporter::client_of(&endpoint.name)) >= OF_REPORTER_MAX
        || is_crowded() && (count >= 2 * REPORTED_MAX || !is_somebodys())
}

fn into_endpoint(
    connection: &mut Connection,
    endpoint: &event::Endpoint<'_>,
    is_full: bool,
    told: &Told<'_, '_>,
) -> bool {
    let is_named = into_user(connection, told);
    connection.unsaved |= is_named;
    let Some(fact) = told.fact else { return is_named };
    let is_known = connection.endpoint(&endpoint.name).is_some();
    if is_full {
        let (is_new, is_told) = add(&mut connection.facts, &mut connection.told_by, told, fact);
        connection.truncated |= is_new;
        connection.unsaved |= is_new || is_told;
        return is_new || is_told || is_named;
    }
    let is_told = !told.unique && connection.told_by.add(told.source);
    connection.unsaved |= is_told || !is_known;
    let known = connection.endpoint_mut(&endpoint.name);
    let is_new = known.facts.add(fact);
    if is_new {
        known.merge(told.event.time, &endpoint.told);
        known.unsaved = true;
    }
    is_new || is_told || is_named
}

fn into_connection(connection: &mut Connection, told: &Told<'_, '_>, start: i64) -> bool {
    let Some(fact) = told.fact else { return false };
    let (is_new, is_told) = add(&mut connection.facts, &mut connection.told_by, told, fact);
    if is_new {
        connection.newest = connection.newest.max(told.event.time);
        fill_connection(connection, told, start);
    }
    is_new || is_told
}

fn fill_connection(connection: &mut Connection, told: &Told<'_, '_>, start: i64) {
    let (event, enriched) = (told.event, told.enriched);
    match &event.body {
        Body::Participant(participant) | Body::Seen(Seen::Connection(participant)) => {
            let by = match (&event.body, &participant.left) {
                (Body::Seen(_), _) => Teller::Api,
                (_, None) => Teller::Join,
                (_, Some(_)) => Teller::Leave,
            };
            let own = (by, start, event.time);
            // Most leaves repeat the join; nothing is made of them then.
            let known = &mut connection.joined;
            if known.as_ref().is_none_or(|known| own <= (known.by, known.start, known.time)) {
                let joined = Joined {
                    by,
                    start,
                    time: event.time,
                    place: enriched.place.as_str().into(),
                    address: enriched.address.as_str().into(),
                    data: enriched.data.as_str().into(),
                    user: enriched.user.clone(),
                    tenant: enriched.tenant.clone(),
                };
                keep_smaller(known, joined);
            }
            if participant.left.is_some() {
                keep_smaller(&mut connection.end, end_of(told));
            }
        }
        Body::NetworkQuality(level) => keep_smaller(&mut connection.quality, *level),
        Body::SessionCreated
        | Body::SessionDestroyed(_)
        | Body::Seen(_)
        | Body::Endpoint(_)
        | Body::Stream(_)
        | Body::Recording(_)
        | Body::Broadcast(_)
        | Body::Other => {}
    }
}

fn into_stream(known: &mut Stream, stream: &event::Stream<'_>, told: &Told<'_, '_>) -> bool {
    let Some(fact) = told.fact else { return false };
    let (is_new, is_told) = add(&mut known.facts, &mut known.told_by, told, fact);
    if is_new {
        let (time, by_end) = (told.event.time, stream.destroyed.is_some());
        known.newest = known.newest.max(time);
        let slot = &mut known.attributes;
        if slot.as_ref().is_none_or(|slot| (by_end, time) <= (slot.by_end, slot.time)) {
            let members = told.enriched.attributes.as_str().into();
            keep_smaller(slot, StreamAttributes { by_end, time, members });
        }
        if by_end {
            keep_smaller(&mut known.end, end_of(told));
        }
    }
    is_new || is_told
}

fn into_recording(
    known: &mut Recording,
    recording: &event::Recording<'_>,
    told: &Told<'_, '_>,
) -> bool {
    use crate::event::RecordingStatus::{Failed, Ready, Started, Stopped};
    let Some(fact) = told.fact else { return false };
    let (is_new, is_told) = add(&mut known.facts, &mut known.told_by, told, fact);
    if !is_new {
        return is_told;
    }
    let (time, enriched) = (told.event.time, told.enriched);
    known.newest = known.newest.max(time);
    let values = || Values {
        size: recording.size,
        duration: Seconds::new(recording.duration),
        members: enriched.values.as_str().into(),
    };
    match recording.status {
        Started => {}
        Stopped => {
            known.old_stop |= recording.old_name;
            keep_greater(&mut known.stop_values, values());
            keep_smaller(
                &mut known.stop,
                Stop {
                    time,
                    old_name: recording.old_name,
                    reason: enriched.reason.clone(),
                    members: enriched.attributes.as_str().into(),
                },
            );
        }
        Ready | Failed => {
            let last = Final { time, ready: recording.status == Ready, values: values() };
            let is_seen = matches!(told.event.body, Body::Seen(_));
            keep_greater(if is_seen { &mut known.seen } else { &mut known.last }, last);
        }
    }
    if let Some(media_node) =
        told.event.field(event::FieldName::MediaNodeId).and_then(event::Field::text)
    {
        keep_smaller(&mut known.media_node, (time, media_node.as_ref().into()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::sessions::browser::{Client, Sender, hash_address};
    use crate::sessions::state::Stream;

    /// Whether there is room for what a browser reports under this name.
    fn has_room(session: &Session, name: &str) -> bool {
        let report = format!(
            r#"{{"elastic_type":"webrtcStats","side":"browser","sessionId":"s","uniqueSessionId":"s_1700000000000","endpoint":"{name}","mediaType":"video","packetsReceived":1,"timestamp":1700000000000}}"#
        );
        let Ok(decode::Decoded::Event(event)) = decode::decode(&report) else { panic!("{report}") };
        let Body::Endpoint(endpoint) = &event.body else { panic!("{event:?}") };
        !is_full(session, &event, endpoint)
    }

    #[test]
    fn what_is_made_up_leaves_room_for_who_is_there() {
        let mut session = Session::default();
        let ana = session.connection("con_A");
        let address = r#""ip":"198.51.100.1","platform":"Chrome 129""#.into();
        ana.joined = Some(Joined { address, ..joined() });
        ana.streams.push(Stream { outbound: true, id: "str_A".into(), ..Stream::default() });
        let named = |connection: &str, address: &str, number: usize| {
            let client = Client {
                connection: Some(connection),
                address: Some(hash_address(address)),
                ..Client::default()
            };
            let sender = Sender::Unknown(number as u64);
            Reporter { start: 7, sends: true, client, sender, sender_visit: None }.name()
        };
        let fill = |session: &mut Session, address: &str, count: usize| {
            let nobody = session.connection(NOBODY);
            for number in 0..count {
                let name = named(&format!("con_{}", number / 100), address, number);
                nobody.endpoint_mut(&name);
            }
        };
        fill(&mut session, "2001:db8:1::1", OF_ADDRESS_MAX);
        assert!(!has_room(&session, &named("con_X", "2001:db8:1::2", 1)), "of one network");
        assert!(has_room(&session, &named("con_X", "2001:db8:2::2", 1)), "of another");
        for network in 2..=REPORTED_MAX / OF_ADDRESS_MAX {
            fill(&mut session, &format!("2001:db8:{network}::1"), OF_ADDRESS_MAX);
        }
        assert!(!has_room(&session, &named("con_X", "2001:db8:9::2", 1)), "nobody is called so");
        assert!(!has_room(&session, &named("con_A", "2001:db8:9::2", 1)), "not from there");
        assert!(has_room(&session, &named("con_A", "198.51.100.1", 1)));
    }

    fn joined() -> Joined {
        Joined {
            by: Teller::Join,
            start: 1_700_000_000_000,
            time: 1_700_000_000_000,
            place: "".into(),
            address: "".into(),
            data: "".into(),
            user: None,
            tenant: None,
        }
    }
}
