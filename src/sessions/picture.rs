//! The open sessions as the page and the gauges see them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Name;
use super::Sessions;
use super::browser::Visitor;
use super::incarnation::{self, Incarnation, Person};
use super::state::{Recording, RecordingKey, Session, SessionKey};
use crate::json::prefix;
use crate::live::{
    AWAITED_MAX, AwaitedRecording, Live, LiveSession, OpenSession, PEOPLE_MAX, SESSIONS_MAX, Totals,
};
use crate::summary::{self, problems};

pub(super) fn live(sessions: &Sessions, clock: i64) -> Live {
    let mut live = Live { at: clock, ..Live::default() };
    for (key, session) in &sessions.open {
        let Some(current) = current(sessions, key, session, clock) else { continue };
        let sources = session.head.sources.iter().enumerate();
        let told = sources.filter(|(place, _)| current.told_by.has(*place));
        let source = told.map(|(_, (name, _))| name.as_ref()).min().unwrap_or_default();
        live.count(source, &key.cluster_id, count(&current));
        live.open.push(OpenSession {
            id: OpenSession::hash(&key.cluster_id, &session.head.session_id),
            start: current.start.unwrap_or(0),
        });
        let shown = || Arc::new(picture((key, source), session, &current));
        let shown = session.picture.get_or_init(shown);
        live.troubled += u64::from(shown.is_troubled());
        live.sessions.push(Arc::clone(shown));
    }
    live.awaited = awaited(sessions, clock);
    live.sessions.sort_by_cached_key(|shown| (shown.place(), shown.unique_session_id.clone()));
    live.sessions.truncate(SESSIONS_MAX);
    live
}

/// Recordings that have stopped long enough ago for their end to have been missed: by themselves, or with their session, where that
/// they stopped was missed as well. Of many the newest: older ones have been asked for, and some never come to an end.
fn awaited(sessions: &Sessions, clock: i64) -> Vec<AwaitedRecording> {
    let mut awaited = Vec::new();
    for (key, session) in &sessions.open {
        let is_awaited = |(recording, known): &(&RecordingKey, &Recording)| {
            let stopped = known.stop.as_ref().map(|stop| stop.time);
            let ended = || session.end_at(recording.start, key.unique).map(|end| end.time);
            let at = stopped.or_else(ended);
            let is_due = at.is_some_and(|at| clock.saturating_sub(at) >= AWAITED_AFTER);
            is_due && known.known_end().is_none()
        };
        let known = session.recordings.iter().filter(is_awaited);
        awaited.extend(known.map(|(recording, _)| (recording, key, session)));
    }
    awaited.sort_unstable_by_key(|(recording, key, _)| (Reverse(recording.start), *key));
    awaited.truncate(AWAITED_MAX);
    let named =
        |(recording, key, session): (&RecordingKey, &SessionKey, &Session)| AwaitedRecording {
            session_id: session.head.session_id.clone(),
            unique_session_id: key.unique.then(|| key.id.clone()),
            id: recording.id.clone(),
            start: recording.start,
        };
    awaited.into_iter().map(named).collect()
}

/// How long after its stop a recording is usually ready, milliseconds.
const AWAITED_AFTER: i64 = 120_000;

/// The incarnation that is open.
fn current<'s>(
    sessions: &Sessions,
    key: &'s SessionKey,
    session: &'s Session,
    clock: i64,
) -> Option<Incarnation<'s>> {
    if key.unique && session.ends() > 0 || !session.is_real() {
        return None;
    }
    let current = incarnation::cut(session, key).pop()?;
    let silent_at = current.quiet_since().saturating_add(sessions.limits.silent_after);
    (current.end.is_none() && clock < silent_at).then_some(current)
}

/// The sessions that are here, to see whether any is elsewhere too: of those with a name of their own all that are kept, of
/// the others those that are open.
pub(super) fn names(sessions: &Sessions, clock: i64) -> impl Iterator<Item = Name> {
    sessions.open.iter().filter_map(move |(key, session)| {
        let since = match key.unique {
            true => None,
            false => Some(began(&current(sessions, key, session, clock)?)),
        };
        let session_id = session.head.session_id.clone();
        Some(Name { hash: key.name().hash64(), since, session_id })
    })
}

/// The start, or the oldest thing that is known where it was missed.
fn began(current: &Incarnation<'_>) -> i64 {
    let people = current.connections.iter().map(|person| person.start);
    let known = people.chain(current.recordings.iter().map(|(key, _)| key.start)).min();
    current.start.or(known).unwrap_or(current.newest)
}

fn picture(
    (key, source): (&SessionKey, &str),
    session: &Session,
    current: &Incarnation<'_>,
) -> LiveSession {
    let present = || current.connections.iter().filter(|person| person.is_open());
    let users: BTreeSet<&str> = present().map(|person| person.user().0).collect();
    let problems = problems::all(current);
    LiveSession {
        session_id: session.head.session_id.as_ref().into(),
        unique_session_id: summary::unique_session_id(key, session, current).unwrap_or_default(),
        cluster_id: key.cluster_id.as_ref().into(),
        source: source.to_owned(),
        created_at: current.start,
        last_event_at: current.newest,
        gone_since: current.gone_since(),
        users: users.len() as u64,
        open: count(current),
        problem_details: if problems.is_empty() {
            String::new()
        } else {
            problems::json(&problems)
        },
        problems: problems::codes(&problems).into_iter().map(Into::into).collect(),
        people: present().take(PEOPLE_MAX).map(found_by).collect(),
        present: present()
            .take(PEOPLE_MAX)
            .map(|person| (person.id.to_owned(), person.user().0.to_owned()))
            .collect(),
        visitors: present().map(|person| Visitor::of(person.id, person.connection)).collect(),
    }
}

/// The user, and what the client said about itself.
fn found_by(person: &Person<'_>) -> String {
    let user = person.user().0;
    person
        .client_data()
        .map_or_else(|| user.to_owned(), |data| format!("{user} {}", prefix(&data, 300)))
}

fn count(current: &Incarnation<'_>) -> Totals {
    let mut totals = Totals { sessions: 1, ..Totals::default() };
    for person in &current.connections {
        totals.connections += u64::from(person.is_open());
        for stream in &person.streams {
            let open = u64::from(stream.end.is_none());
            if stream.outbound {
                totals.publishers += open;
            } else {
                totals.subscribers += open;
            }
        }
    }
    let under_way = |(_, recording): &&(_, &Recording)| {
        recording.stop.is_none() && recording.known_end().is_none()
    };
    totals.recordings = current.recordings.iter().filter(under_way).count() as u64;
    totals
}
