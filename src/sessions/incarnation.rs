//! Incarnations: one opening of a session, from its start to its end.
//!
//! With a `uniqueSessionId` a state is one incarnation. Without (before OpenVidu 2.17) the state of a `sessionId` holds all
//! of them: each known start opens an interval up to the next start or to its own end, whichever comes first, and a
//! connection or recording belongs to the interval that holds its start. What lies outside every interval is *guessed*: it
//! is written, but no session is made of it until a start is known; visits further apart than a day are taken for different
//! ones. The starts of incarnations that are kept no more still end the interval before them.

use super::browser::{Directory, NOBODY, Reporter};
use super::endpoint::Endpoint;
use super::state::{
    Alone, Connection, End, Phase, Recording, RecordingKey, SeenSession, Session, SessionKey,
    Stream, Tellers,
};

/// One opening of a session and what happened in it. Lists are in the order of (start, id).
#[derive(Debug)]
pub struct Incarnation<'a> {
    /// Milliseconds since 1970; `None`: guessed.
    pub start: Option<i64>,
    /// When and why it ended.
    pub end: Option<&'a End>,
    /// What time has done to it.
    pub phase: Phase,
    /// Connections that `cdr` events have told of.
    pub connections: Vec<Person<'a>>,
    /// Recordings, whatever became of them.
    pub recordings: Vec<(&'a RecordingKey, &'a Recording)>,
    /// Newest time among the facts of all these.
    pub newest: i64,
    /// Sources that have told of any of these.
    pub told_by: Tellers,
    /// What the REST API says of it.
    pub seen: Option<&'a SeenSession>,
    /// When the REST API began to show it, or to show it no more.
    pub presence: Option<(i64, bool)>,
}

/// A connection with its streams.
#[derive(Debug)]
pub struct Person<'a> {
    /// Connection id.
    pub id: &'a str,
    /// What is known of it; little where only streams have told of it.
    pub connection: &'a Connection,
    /// Milliseconds since 1970: of the connection, else of its first stream.
    pub start: i64,
    /// Its streams, ended or not.
    pub streams: Vec<&'a Stream>,
    /// Endpoints that its own browser told of, each with its stream as far as that is known.
    pub reported: Vec<(Option<&'a Stream>, &'a Endpoint)>,
}

/// Cuts a state into incarnations, in the order of their starts; guessed ones come last.
#[must_use]
pub fn cut<'a>(session: &'a Session, key: &SessionKey) -> Vec<Incarnation<'a>> {
    let head = &session.head;
    let mut incarnations: Vec<Incarnation<'a>> = if key.unique {
        let end = head.starts.values().filter_map(|start| start.end.as_ref()).min();
        let start = start_of_state(session, key);
        vec![Incarnation {
            newest: head.newest,
            seen: head.starts.values().filter_map(|start| start.seen.as_ref()).min(),
            presence: head.starts.values().filter_map(|start| start.presence).max(),
            ..begin(Some(start), end, head.phase.clone(), head.told_by)
        }]
    } else {
        let starts = head.starts.iter();
        let begin = |(start, known): (&i64, &'a super::state::Start)| Incarnation {
            seen: known.seen.as_ref(),
            presence: known.presence,
            ..begin(Some(*start), known.end.as_ref(), known.phase.clone(), known.told_by)
        };
        starts.map(begin).collect()
    };
    let mut guessed = Vec::new();
    for person in people(session) {
        match find(&mut incarnations, person.start, session, key) {
            Some(own) => own.add_person(person),
            None => guessed.push(Guessed::Person(person)),
        }
    }
    let mut recordings: Vec<_> = session.recordings.iter().collect();
    recordings.sort_by_key(|(key, _)| (key.start, &key.id));
    for (recording_key, recording) in recordings {
        match find(&mut incarnations, recording_key.start, session, key) {
            Some(own) => own.add_recording(recording_key, recording),
            None => guessed.push(Guessed::Recording(recording_key, recording)),
        }
    }
    incarnations.extend(guessed_incarnations(guessed));
    if let Some(nobody) = session.connections.get(NOBODY) {
        for incarnation in &mut incarnations {
            incarnation.add_reports(nobody, key.unique);
        }
    }
    incarnations
}

/// How long after the last fact a visit without a known start may be followed by one of the same session, in milliseconds.
const GUESSED_GAP: i64 = 86_400_000;

enum Guessed<'a> {
    Person(Person<'a>),
    Recording(&'a RecordingKey, &'a Recording),
}

impl Guessed<'_> {
    fn start(&self) -> i64 {
        match self {
            Self::Person(person) => person.start,
            Self::Recording(key, _) => key.start,
        }
    }

    fn alone(&self) -> Alone {
        match self {
            Self::Person(person) => person.connection.alone,
            Self::Recording(_, recording) => recording.alone,
        }
    }
}

/// What belongs to no known incarnation, by visits.
fn guessed_incarnations(mut guessed: Vec<Guessed<'_>>) -> Vec<Incarnation<'_>> {
    guessed.sort_by_key(Guessed::start);
    let mut visits: Vec<Incarnation<'_>> = Vec::new();
    for item in guessed {
        let begins =
            visits.last().is_none_or(|last| item.start().saturating_sub(GUESSED_GAP) > last.newest);
        if begins {
            let phase = Phase { silent: true, written: false, ..Phase::default() };
            visits.push(begin(None, None, phase, Tellers::default()));
        }
        let Some(visit) = visits.last_mut() else { continue };
        let alone = item.alone();
        visit.phase.touched = visit.phase.touched.max(alone.touched);
        visit.phase.silent &= alone.written;
        visit.phase.written |= alone.written;
        match item {
            Guessed::Person(person) => visit.add_person(person),
            Guessed::Recording(key, recording) => visit.add_recording(key, recording),
        }
    }
    visits
}

/// The number at the end of a `uniqueSessionId`, as far as a session can have begun then.
#[must_use]
pub fn start_in_id(id: &str) -> Option<i64> {
    let (_, start) = id.rsplit_once('_')?;
    start.parse().ok().filter(|start| crate::decode::is_time(*start))
}

fn begin<'a>(
    start: Option<i64>,
    end: Option<&'a End>,
    phase: Phase,
    told_by: Tellers,
) -> Incarnation<'a> {
    let newest = end.map(|end| end.time).max(start).unwrap_or(i64::MIN);
    let (connections, recordings) = (Vec::new(), Vec::new());
    let (seen, presence) = (None, None);
    Incarnation { start, end, phase, connections, recordings, newest, told_by, seen, presence }
}

/// Start of a state with a `uniqueSessionId`: as the id says, else the earliest that is known.
fn start_of_state(session: &Session, key: &SessionKey) -> i64 {
    let known = start_in_id(&key.id).or_else(|| session.head.starts.keys().next().copied());
    known.unwrap_or_else(|| {
        let connections = session.connections.values().filter_map(|known| known.start());
        let recordings = session.recordings.keys().map(|key| key.start);
        connections.chain(recordings).min().unwrap_or(session.head.newest)
    })
}

/// The incarnation whose interval holds `start`.
fn find<'i, 'a>(
    incarnations: &'i mut [Incarnation<'a>],
    start: i64,
    session: &Session,
    key: &SessionKey,
) -> Option<&'i mut Incarnation<'a>> {
    if key.unique {
        return incarnations.first_mut();
    }
    let own = session.start_at(start)?;
    let at = incarnations.binary_search_by_key(&Some(own), |incarnation| incarnation.start).ok()?;
    incarnations.get_mut(at)
}

/// Every connection that `cdr` events have told of, with its streams, by (start, id).
fn people(session: &Session) -> Vec<Person<'_>> {
    let mut people: Vec<Person<'_>> = Vec::with_capacity(session.connections.len());
    for (id, connection) in &session.connections {
        let Some(start) = connection.start() else { continue };
        let mut streams: Vec<&Stream> = connection.streams.iter().collect();
        streams.sort_by_key(|stream| (stream.start, &stream.id));
        people.push(Person { id, connection, start, streams, reported: Vec::new() });
    }
    people.sort_by_key(|person| (person.start, person.id));
    people
}

impl<'a> Incarnation<'a> {
    fn add_person(&mut self, person: Person<'a>) {
        self.newest = self.newest.max(person.newest());
        self.told_by = self.told_by.union(person.told_by());
        self.connections.push(person);
    }

    fn add_recording(&mut self, key: &'a RecordingKey, recording: &'a Recording) {
        self.newest = self.newest.max(recording.newest);
        self.told_by = self.told_by.union(recording.told_by);
        self.recordings.push((key, recording));
    }

    /// Finds out whose the reports of browsers are, which are kept with `nobody`. Those of which it cannot be told count for nothing.
    fn add_reports(&mut self, nobody: &'a Connection, unique: bool) {
        self.phase.truncated |= nobody.truncated;
        let people = self.connections.iter().map(|person| (person.id, person.connection));
        let directory = Directory::new(people);
        for endpoint in &nobody.endpoints {
            let Some(reporter) = Reporter::read(&endpoint.name) else { continue };
            if !unique && self.start != Some(reporter.start) {
                continue;
            }
            let Some(owner) = directory.owner(&reporter, None) else { continue };
            let mut people = self.connections.iter_mut();
            if let Some(person) = people.find(|person| person.id == owner.connection_id) {
                person.reported.push((owner.stream, endpoint));
            }
        }
    }

    /// Whether nothing is known but start and end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.recordings.is_empty()
    }

    /// Whether a recording of it has stopped and is still being processed.
    #[must_use]
    pub fn awaits_recording(&self) -> bool {
        let mut recordings = self.recordings.iter();
        recordings.any(|(_, recording)| recording.stop.is_some() && recording.known_end().is_none())
    }

    /// When it was heard of last: by its newest fact, or because the REST API showed it.
    #[must_use]
    pub fn heard_at(&self) -> i64 {
        let shown = self.presence.filter(|(_, is_shown)| *is_shown).map(|(at, _)| at);
        self.newest.max(shown.unwrap_or(i64::MIN))
    }

    /// Since when nothing was heard of it, also by the clock at the last fact.
    #[must_use]
    pub fn quiet_since(&self) -> i64 {
        self.heard_at().max(self.phase.touched)
    }

    /// Whether anything of it had to be cut.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        let people = self.connections.iter().any(|person| {
            person.connection.truncated
                || person.streams.iter().any(|stream| stream.truncated)
                || person.connection.endpoints.iter().any(|endpoint| endpoint.truncated)
        });
        people
            || self.phase.truncated
            || self.recordings.iter().any(|(_, recording)| recording.truncated)
    }

    /// The media node that recordings have told of first, else the one that the REST API shows.
    #[must_use]
    pub fn media_node_id(&self) -> Option<&str> {
        let told = self.recordings.iter().filter_map(|(_, known)| known.media_node.as_ref());
        let told = told.min().map(|(_, id)| id.as_ref());
        told.or_else(|| self.seen?.media_node_id.as_deref())
    }

    /// Since when the REST API has not shown it any more.
    #[must_use]
    pub fn gone_since(&self) -> Option<i64> {
        self.presence.filter(|(_, is_shown)| !is_shown).map(|(at, _)| at)
    }
}

impl Person<'_> {
    fn newest(&self) -> i64 {
        let streams = self.streams.iter().map(|stream| stream.newest);
        let endpoints = self.connection.endpoints.iter().map(|endpoint| endpoint.newest);
        streams.chain(endpoints).fold(self.connection.newest, i64::max)
    }

    fn told_by(&self) -> Tellers {
        let streams = self.streams.iter().map(|stream| stream.told_by);
        streams.fold(self.connection.told_by, Tellers::union)
    }
}
