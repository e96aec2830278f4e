//! Summaries: the documents that a session leaves behind, as OpenVidu Pro names their fields, and what callscope adds.
//!
//! A document is a function of the facts of its session and of nothing else. Written are one `sessionSummary`, one
//! `userSummary` for every user, one `connectionSummary`, one `publisherSummary` or `subscriberSummary` for every stream
//! that ended, one `recordingSummary` for every recording that stopped. Nested and standalone copies are equal.
//!
//! All documents of a session carry one version: 2^40 for every known end plus the number of facts, so that a fold which
//! knows the real end outranks any that does not. What is no longer shown is overwritten by a `superseded` document; nothing
//! is deleted. The id of a `userSummary` holds the user's first connection instead of the user, so ids follow from the
//! connections alone; in the slots of the user's other connections stands a `superseded`.
//!
//! Where this differs from OpenVidu: a stream ended twice keeps its first end whatever came last; recordings show their
//! final size once it is known, also after the session's end; a session that fell silent is written with
//! `closedBy: "silence"`; a connection known only by its streams is written like one that never left.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::decode::TIME_MIN;
use crate::document::{Document, SUPERSEDED};
use crate::json::Object;
use crate::sessions::Limits;
use crate::sessions::facts::Hasher;
use crate::sessions::incarnation::{self, Incarnation, Person};
use crate::sessions::state::{Recording, RecordingKey, Session, SessionKey, Stream};

pub mod problems;
mod quality;

/// End reasons that nobody wanted.
const ABNORMAL: &[&str] = &[
    "networkDisconnect",
    "mediaServerDisconnect",
    "mediaServerReconnect",
    "nodeCrashed",
    "openviduServerStopped",
];

/// Whether `reason` is an end that nobody wanted.
#[must_use]
pub fn is_abnormal(reason: Option<&str>) -> bool {
    reason.is_some_and(|reason| ABNORMAL.contains(&reason))
}

/// Appends the documents of one session, as far as they are due: incarnations that have ended or fallen silent.
pub fn documents(
    key: &SessionKey,
    session: &Session,
    limits: &Limits,
    documents: &mut Vec<Document>,
) {
    if !session.is_real() {
        return;
    }
    let version = version(key, session);
    for incarnation in incarnation::cut(session, key) {
        if incarnation.end.is_none() && !incarnation.phase.written {
            continue;
        }
        let mut writer = Writer::new(key, session, &incarnation, version, documents);
        writer.write(limits);
    }
}

/// 2^40 for every known end, plus the number of facts.
fn version(key: &SessionKey, session: &Session) -> u64 {
    let ends = session.ends() + session.closed.ends;
    let ends = if key.unique { ends.min(1) } else { ends };
    (ends << 40) + session.facts() + session.closed.facts
}

/// `uniqueSessionId`, as sent or as OpenVidu 2.17 would have made it. `None` while the start is guessed.
#[must_use]
pub fn unique_session_id(
    key: &SessionKey,
    session: &Session,
    incarnation: &Incarnation<'_>,
) -> Option<String> {
    if key.unique {
        return Some(key.id.as_ref().into());
    }
    incarnation.start.map(|start| format!("{}_{start}", session.head.session_id))
}

impl Person<'_> {
    /// See [`Connection::user_or`](crate::sessions::state::Connection::user_or).
    #[must_use]
    pub fn user(&self) -> (&str, &'static str) {
        self.connection.user_or(self.id)
    }

    /// Whether no end of it is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.end.is_none()
    }

    /// Whether anybody has told how good its media was.
    fn is_measured(&self) -> bool {
        let known = self.connection;
        !known.endpoints.is_empty() || known.quality.is_some() || !self.reported.is_empty()
    }

    fn tenant(&self) -> Option<&str> {
        self.connection.joined.as_ref()?.tenant.as_deref()
    }
}

/// Writes the documents of one incarnation.
struct Writer<'a> {
    key: &'a SessionKey,
    session: &'a Session,
    incarnation: &'a Incarnation<'a>,
    unique_session_id: Option<String>,
    master_node_id: &'a str,
    media_node_id: Option<&'a str>,
    tenant: Option<&'a str>,
    /// End of the session, or the newest fact where no end is known.
    destroyed_at: i64,
    version: u64,
    documents: &'a mut Vec<Document>,
}

/// A connection as written, with what its user's document needs of it.
struct Written<'a> {
    person: &'a Person<'a>,
    json: String,
    streamed: i64,
}

impl<'a> Writer<'a> {
    fn new(
        key: &'a SessionKey,
        session: &'a Session,
        incarnation: &'a Incarnation<'a>,
        version: u64,
        documents: &'a mut Vec<Document>,
    ) -> Self {
        let sources = session.head.sources.iter().enumerate();
        let told = sources.filter(|(place, _)| incarnation.told_by.has(*place));
        Self {
            key,
            session,
            incarnation,
            unique_session_id: unique_session_id(key, session, incarnation),
            master_node_id: told.map(|(_, source)| source).min().map_or("", |(_, master)| master),
            media_node_id: incarnation.media_node_id(),
            tenant: incarnation.connections.iter().filter_map(Person::tenant).min(),
            destroyed_at: incarnation.end.map_or(incarnation.newest, |end| end.time),
            version,
            documents,
        }
    }

    fn write(&mut self, limits: &Limits) {
        let incarnation = self.incarnation;
        if incarnation.is_empty() && incarnation.end.is_none() {
            // A start that turned out to have nothing, since a later one has taken it: what was ever written for it must not
            // be shown. With a `uniqueSessionId` nothing can be taken.
            if !self.key.unique
                && let (Some(id), Some(start)) = (self.session_document_id(), incarnation.start)
            {
                self.supersede(id, start, "sessionSummary");
            }
            return;
        }
        let mut users: BTreeMap<&str, Vec<Written<'_>>> = BTreeMap::new();
        for person in &incarnation.connections {
            let written = self.connection(person);
            users.entry(person.user().0).or_default().push(written);
        }
        let streamed: i64 = users.values().flatten().map(|written| written.streamed).sum();
        let users: Vec<String> =
            users.into_iter().map(|(user, connections)| self.user(user, &connections)).collect();
        let recordings = incarnation.recordings.iter();
        let stopped = recordings.filter_map(|(key, recording)| {
            Some((recording.stopped_at(key.start)?, *key, *recording))
        });
        let mut stopped: Vec<_> = stopped.collect();
        stopped.sort_by_key(|(at, key, _)| (*at, *key));
        let recordings = stopped.into_iter();
        let recordings: Vec<String> =
            recordings.map(|(at, key, recording)| self.recording(at, key, recording)).collect();
        self.session(limits, &users, &recordings, streamed);
    }

    /// What ids are made of besides the thing itself: ids must not change when a guessed start becomes known.
    fn hasher(&self, kind: &str) -> Hasher {
        let mut hasher = Hasher::new(kind);
        hasher.text(&self.key.cluster_id);
        hasher.text(&self.key.id);
        hasher
    }

    fn session_document_id(&self) -> Option<Hasher> {
        let mut hasher = self.hasher("sessionSummary");
        hasher.text(self.unique_session_id.as_deref()?);
        Some(hasher)
    }

    /// The month of a document: of its session's start, or its own where the session's may yet change.
    fn index_time(&self, own_start: i64) -> i64 {
        if self.key.unique {
            incarnation::start_in_id(&self.key.id).unwrap_or(TIME_MIN)
        } else {
            own_start
        }
    }

    fn push(&mut self, id: &Hasher, own_start: i64, elastic_type: &'static str, json: &str) {
        self.documents.push(Document {
            id: {
                let mut text = String::with_capacity(32);
                crate::document::push_hex(&mut text, id.digest128(), 32);
                text.into()
            },
            index_time: self.index_time(own_start),
            elastic_type: elastic_type.into(),
            version: Some(self.version),
            json: Bytes::copy_from_slice(json.as_bytes()),
        });
    }

    #[expect(clippy::needless_pass_by_value, reason = "a hash is made for one document")]
    fn supersede(&mut self, id: Hasher, own_start: i64, what: &str) {
        let mut json = Object::with_capacity(128);
        json.text("elastic_type", SUPERSEDED);
        json.text("superseded", what);
        json.text("sessionId", &self.session.head.session_id);
        json.integer("timestamp", self.destroyed_at);
        self.push(&id, own_start, SUPERSEDED, &json.finish());
    }

    /// Begins a document with the members that all have.
    fn begin(&self, elastic_type: &str, capacity: usize) -> Object {
        let mut json = Object::with_capacity(capacity);
        json.text("elastic_type", elastic_type);
        json.text("sessionId", &self.session.head.session_id);
        json.text_if("uniqueSessionId", self.unique_session_id.as_deref());
        json
    }

    /// Ends a document with the members that all have.
    fn end(
        &self,
        mut json: Object,
        start: i64,
        end: i64,
        abnormal: bool,
        timestamp: i64,
    ) -> String {
        json.flag("abnormal", abnormal);
        json.range("lifetime", start.min(end), end);
        json.integer("timestamp", timestamp);
        if !self.key.cluster_id.is_empty() {
            json.text("cluster_id", &self.key.cluster_id);
        }
        if !self.master_node_id.is_empty() {
            json.text("master_node_id", self.master_node_id);
        }
        json.text_if("media_node_id", self.media_node_id);
        if self.incarnation.start.is_none() {
            json.flag("startGuessed", true);
        }
        json.finish()
    }

    fn connection(&mut self, person: &'a Person<'a>) -> Written<'a> {
        let (publishers, published) = self.streams(person, true);
        let (subscribers, subscribed) = self.streams(person, false);
        let (joined, end) = (person.connection.joined.as_ref(), person.connection.end.as_ref());
        // Without a leave, OpenVidu writes a connection of one millisecond before the join.
        let (created_at, destroyed_at) = end
            .map_or((person.start.saturating_sub(1), person.start), |end| (person.start, end.time));
        let reason = end.and_then(|end| end.reason.as_deref());
        let (user, user_source) = person.user();
        let mut json =
            self.begin("connectionSummary", 1024 + 600 * (publishers.len() + subscribers.len()));
        if !self.key.unique {
            json.text("session", &self.session.head.session_id);
        }
        json.text("user", user);
        json.text("userIdSource", user_source);
        json.text("connectionId", person.id);
        json.integer("createdAt", created_at);
        json.integer("destroyedAt", destroyed_at);
        json.integer("duration", seconds(created_at, destroyed_at));
        json.members(
            joined.map_or("\"clientData\":\"\",\"serverData\":\"\"", |joined| &joined.data),
        );
        json.text("reason", reason.unwrap_or("NULL"));
        json.container("publishers", publishers.iter().map(String::as_str));
        json.container("subscribers", subscribers.iter().map(String::as_str));
        if let Some(joined) = joined {
            json.members(&joined.place);
            json.members(&joined.address);
        }
        json.text_if("tenant", person.tenant());
        json.integer("streamedSeconds", published + subscribed);
        let json = self.end(json, created_at, destroyed_at, is_abnormal(reason), self.destroyed_at);
        let mut id = self.hasher("connectionSummary");
        id.text(person.id);
        self.push(&id, person.start, "connectionSummary", &json);
        Written { person, json, streamed: published + subscribed }
    }

    /// Writes the ended streams of one direction. Gives those that are nested, and the seconds of all.
    fn streams(&mut self, person: &Person<'_>, outbound: bool) -> (Vec<String>, i64) {
        let mut nested: Vec<(Option<&str>, String)> = Vec::new();
        let mut streamed = 0;
        for stream in person.streams.iter().filter(|stream| stream.outbound == outbound) {
            let Some(end) = &stream.end else { continue };
            streamed += seconds(stream.start, end.time);
            let elastic_type = if outbound { "publisherSummary" } else { "subscriberSummary" };
            let json = self.stream(elastic_type, person, stream, end);
            let mut id = self.hasher(elastic_type);
            id.text(person.id);
            id.text(&stream.id);
            id.integer(stream.start);
            self.push(&id, stream.start, elastic_type, &json);
            // Of one stream id the connection nests the latest; the others stand alone. Up to 2.8 streams have no id.
            let id = stream.named();
            match nested.iter_mut().find(|(known, _)| *known == id && id.is_some()) {
                Some((_, known)) => *known = json,
                None => nested.push((id, json)),
            }
        }
        (nested.into_iter().map(|(_, json)| json).collect(), streamed)
    }

    fn stream(
        &self,
        elastic_type: &str,
        person: &Person<'_>,
        stream: &Stream,
        end: &crate::sessions::state::End,
    ) -> String {
        let reason = end.reason.as_deref();
        let mut json = self.begin(elastic_type, 640);
        if !self.key.unique {
            json.text("session", &self.session.head.session_id);
            json.text("connection", person.id);
        }
        json.text("user", person.user().0);
        json.text("connectionId", person.id);
        json.text_if("streamId", stream.named());
        json.integer("startTime", stream.start);
        json.integer("duration", seconds(stream.start, end.time));
        json.text_if("reason", reason);
        json.members(stream.attributes.as_ref().map_or("", |attributes| &attributes.members));
        // By these it is found with the person whose it is.
        json.members(person.connection.joined.as_ref().map_or("", |joined| &*joined.place));
        json.text_if("tenant", person.tenant());
        if let Some(quality) = quality::of_stream(person, stream, end.time) {
            json.json("quality", &quality);
        }
        self.end(json, stream.start, end.time, is_abnormal(reason), end.time)
    }

    /// Writes a user, connections in the order of (start, id).
    fn user(&mut self, user: &str, connections: &[Written<'_>]) -> String {
        let Some(first) = connections.first().map(|written| written.person) else {
            return String::new();
        };
        let joined = first.connection.joined.as_ref();
        let mut json = self.begin(
            "userSummary",
            1024 + connections.iter().map(|written| written.json.len()).sum::<usize>(),
        );
        if !self.key.unique {
            json.text("session", &self.session.head.session_id);
        }
        json.text("id", user);
        // As documents of all other kinds call them.
        json.text("user", user);
        json.texts("connectionId", connections.iter().map(|known| known.person.id));
        json.text("userIdSource", first.user().1);
        if let Some(joined) = joined {
            json.members(&joined.place);
            json.members(&joined.address);
        }
        json.integer("createdAt", first.start);
        json.container("connections", connections.iter().map(|written| written.json.as_str()));
        json.text_if("tenant", first.tenant());
        json.integer("streamedSeconds", connections.iter().map(|written| written.streamed).sum());
        let ends = connections.iter().filter_map(|known| known.person.connection.end.as_ref());
        let abnormal = ends.clone().any(|end| is_abnormal(end.reason.as_deref()));
        let last = ends.map(|end| end.time).max().unwrap_or(first.start);
        let json = self.end(json, first.start, last, abnormal, self.destroyed_at);
        for (index, written) in connections.iter().enumerate() {
            let mut id = self.hasher("userSummary");
            id.text(written.person.id);
            if index == 0 {
                self.push(&id, first.start, "userSummary", &json);
            } else {
                self.supersede(id, written.person.start, "userSummary");
            }
        }
        json
    }

    fn recording(&mut self, stopped_at: i64, key: &RecordingKey, recording: &Recording) -> String {
        let stop = recording.stop.as_ref();
        let reason = stop.and_then(|stop| stop.reason.as_deref());
        let values = recording.values();
        let mut json = self.begin("recordingSummary", 640);
        json.text("id", &key.id);
        json.integer("startTime", key.start);
        json.number("duration", values.map_or(0.0, |values| values.duration.get()));
        json.integer("size", values.map_or(0, |values| values.size));
        json.text_if("reason", reason);
        if !recording.old_stop {
            json.text("status", "stopped");
        }
        json.members(stop.map_or("", |stop| &stop.members));
        json.members(values.map_or("", |values| &values.members));
        json.text("finalStatus", recording.final_status());
        json.text_if("tenant", self.tenant);
        let json = self.end(json, key.start, stopped_at, is_abnormal(reason), stopped_at);
        let mut id = self.hasher("recordingSummary");
        id.text(&key.id);
        id.integer(key.start);
        self.push(&id, key.start, "recordingSummary", &json);
        json
    }

    fn session(&mut self, limits: &Limits, users: &[String], recordings: &[String], streamed: i64) {
        let (Some(id), Some(start)) = (self.session_document_id(), self.incarnation.start) else {
            return;
        };
        let incarnation = self.incarnation;
        let streams: usize =
            incarnation.connections.iter().map(|person| person.streams.len()).sum();
        let omits = incarnation.connections.len() + streams + incarnation.recordings.len()
            > limits.nested_max;
        let nested: usize = users.iter().chain(recordings).map(String::len).sum();
        let reason = incarnation.end.and_then(|end| end.reason.as_deref());
        let mut json = self.begin("sessionSummary", if omits { 1024 } else { 1024 + nested });
        let seen = incarnation.seen;
        let custom = seen.and_then(|seen| seen.custom_session_id.as_deref());
        let derived = || custom_session_id(&self.session.head.session_id, self.key.unique);
        json.text("customSessionId", custom.unwrap_or_else(derived));
        json.integer("createdAt", start);
        json.integer("destroyedAt", self.destroyed_at);
        json.integer("duration", seconds(start, self.destroyed_at));
        // The events do not tell these two; where the REST API does not either, upstream's values in practice.
        let media_mode = seen.and_then(|seen| seen.media_mode.as_deref());
        json.text("mediaMode", media_mode.unwrap_or("ROUTED"));
        let recording_mode = seen.and_then(|seen| seen.recording_mode.as_deref());
        json.text("recordingMode", recording_mode.unwrap_or("MANUAL"));
        json.text("reason", reason.unwrap_or(""));
        if omits {
            for (name, count) in [("users", users.len()), ("recordings", recordings.len())] {
                json.json(name, &format!("{{\"numberOfElements\":{count},\"content\":[]}}"));
            }
            json.flag("contentOmitted", true);
        } else {
            json.container("users", users.iter().map(String::as_str));
            json.container("recordings", recordings.iter().map(String::as_str));
        }
        if incarnation.end.is_none() {
            json.text("closedBy", "silence");
            if let Some(since) = incarnation.gone_since() {
                json.integer("goneSince", since);
            }
        }
        if incarnation.is_truncated() {
            json.flag("truncated", true);
        }
        json.integer("streamedSeconds", streamed);
        let problems = problems::all(incarnation);
        let mut people = incarnation.connections.iter();
        let told = people.any(Person::is_measured);
        let health = match (problems.is_empty(), told) {
            (false, _) => "problems",
            (true, true) => "healthy",
            (true, false) => "unknown",
        };
        json.text("health", health);
        json.texts("problems", problems::codes(&problems));
        if !problems.is_empty() {
            json.json("problemDetails", &problems::json(&problems));
        }
        if let Some(quality) = quality::of_session(incarnation, self.destroyed_at) {
            json.json("quality", &quality);
        }
        json.text_if("tenant", self.tenant);
        everybody(incarnation, &mut json);
        let json = self.end(json, start, self.destroyed_at, is_abnormal(reason), self.destroyed_at);
        self.push(&id, start, "sessionSummary", &json);
    }
}

/// The members `user`, `connectionId`, `client` and `location` of a session: who was in it, and with which browsers, systems and
/// devices, and from where.
fn everybody(incarnation: &Incarnation<'_>, to: &mut Object) {
    #[derive(serde::Deserialize)]
    struct Place<'a> {
        #[serde(borrow, default)]
        client: BTreeMap<&'a str, Cow<'a, str>>,
        #[serde(borrow, default)]
        location: Cow<'a, str>,
    }
    let people = incarnation.connections.iter();
    let users: BTreeSet<&str> = people.clone().map(|person| person.user().0).collect();
    if !users.is_empty() {
        to.texts("user", users);
        to.texts("connectionId", people.clone().map(|person| person.id));
    }
    let mut locations: BTreeSet<Cow<'_, str>> = BTreeSet::new();
    let mut known: BTreeMap<&str, BTreeSet<Cow<'_, str>>> = BTreeMap::new();
    let joined = people.filter_map(|one| one.connection.joined.as_ref());
    let places: Vec<String> = joined.map(|joined| format!("{{{}}}", joined.place)).collect();
    for place in &places {
        let Ok(Place { client, location }) = serde_json::from_str(place) else { continue };
        if !location.is_empty() {
            locations.insert(location);
        }
        // Versions are too many to tell anything of a session.
        for (name, value) in client.into_iter().filter(|(name, _)| *name != "version") {
            known.entry(name).or_default().insert(value);
        }
    }
    let mut json = Object::with_capacity(128);
    for (name, values) in &known {
        json.texts(name, values.iter().map(|value| &**value));
    }
    if !known.is_empty() {
        to.json("client", &json.finish());
    }
    if !locations.is_empty() {
        to.texts("location", locations.iter().map(|location| &**location));
    }
}

/// Whole seconds, as OpenVidu cuts them.
fn seconds(start: i64, end: i64) -> i64 {
    (end.saturating_sub(start) / 1000).max(0)
}

/// The session id, unless OpenVidu made it itself: `ses_` and ten letters or digits, before 2.12 sixteen of them.
fn custom_session_id(session_id: &str, unique: bool) -> &str {
    let generated = session_id.strip_prefix("ses_").is_some_and(|rest| {
        rest.len() == 10
            && rest.starts_with(|first: char| first.is_ascii_uppercase())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let old = !unique
        && session_id.len() == 16
        && session_id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if generated || old { "" } else { session_id }
}
