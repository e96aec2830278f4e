//! What is known of one session: facts, merged.
//!
//! State only grows, and every merge picks the smallest or greatest of what it was given by an order over content alone
//! (or adds to a set). So any order, any repetition and any cut into batches give the same state. The orders are those of
//! the crate's rules for conflicts; where OpenVidu itself lets the order of arrival decide, these rules do not:
//!
//! | what | which wins |
//! |---|---|
//! | end of a session, a connection, a stream | smallest time, then reason |
//! | attributes of a connection or stream | start event before end event, then smallest (start, time, content) |
//! | stop of a recording | smallest time, `recordingStatusChanged` before `recordingStopped` |
//! | end of a recording | greatest time, `ready` before `failed`, then greatest (size, duration, content) |
//! | two users of one connection | smallest text |
//! | master node | that of the smallest name among the sources that have told of the incarnation |
//! | media node | smallest (time, text) |
//!
//! Beside the facts stands what time has done to them: a [`Phase`] for each incarnation. It decides *whether* documents are
//! written, never what they say.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::browser::Reporter;
use super::endpoint::Endpoint;
use super::facts::Hasher;
use crate::event::RecordingStatus;
use crate::live::LiveSession;

/// The facts that made an entity: 64-bit hashes of their content, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts(Vec<u64>);

impl Facts {
    /// Adds one; `false` if it is known already.
    pub fn add(&mut self, fact: u64) -> bool {
        match self.0.binary_search(&fact) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, fact);
                true
            }
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// All of `other` as well.
    pub fn extend(&mut self, other: &Self) {
        for fact in &other.0 {
            self.add(*fact);
        }
    }
}

/// The end of a session, a connection or a stream. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Absent if the platform gave none.
    pub reason: Option<Box<str>>,
}

/// What is known of the session itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Facts about the session.
    pub facts: Facts,
    /// Facts of entities that are kept no more because there were too many.
    pub cut_facts: Facts,
    /// `sessionId`.
    pub session_id: Box<str>,
    /// Every known start. Only a session without `uniqueSessionId` has several.
    pub starts: BTreeMap<i64, Start>,
    /// Every source that has told of the session, by name and master node, in the order in which they came.
    pub sources: Vec<(Box<str>, Box<str>)>,
    /// Sources of a session with `uniqueSessionId`.
    pub told_by: Tellers,
    /// Start of every broadcast to its end, if that is known. Counted, but part of no document.
    pub broadcasts: BTreeMap<i64, Option<i64>>,
    /// Newest time among all facts of the session.
    pub newest: i64,
    /// Entities counted so far outside every known incarnation; more than there are once some are gone.
    pub alone: usize,
    /// Of the one incarnation, where events carry `uniqueSessionId`.
    pub phase: Phase,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
}

/// A known start of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The end that names this start.
    pub end: Option<End>,
    /// What the REST API says of the session.
    pub seen: Option<SeenSession>,
    /// When the REST API began to show it or to show it no more, and which of the two; the greatest counts.
    pub presence: Option<(i64, bool)>,
    /// Sources that have told of start or end.
    pub told_by: Tellers,
    /// Of the incarnation that begins here.
    pub phase: Phase,
}

/// What the REST API says of a session. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenSession {
    /// The id that the application chose; empty if none.
    pub custom_session_id: Option<Box<str>>,
    /// `ROUTED` or `RELAYED`.
    pub media_mode: Option<Box<str>>,
    /// `MANUAL` or `ALWAYS`.
    pub recording_mode: Option<Box<str>>,
    /// Where its media is.
    pub media_node_id: Option<Box<str>>,
}

/// What time and bounds have done to an incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Lane clock when the last fact came, milliseconds since 1970.
    pub touched: i64,
    /// Whether it has been silent for so long that what is known was written.
    pub silent: bool,
    /// Whether it was so once: what is told from then on is written at once.
    pub written: bool,
    /// Whether there were too many entities.
    pub truncated: bool,
    /// Entities that begin here or later are not kept: there were too many.
    pub cut_from: Option<i64>,
    /// Entities counted so far; more than there are once a later start has divided the incarnation.
    pub entities: usize,
}

/// What time has done to a connection or recording by itself. It counts while no start is known that it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// Lane clock when the last fact came, milliseconds since 1970.
    pub touched: i64,
    /// Whether it was written after a silence.
    pub written: bool,
}

/// A set of sources: bits for places in [`Head::sources`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tellers(u64);

impl Tellers {
    /// Adds the source at `place`; `false` if it is there already. All beyond the 63rd count as one.
    pub fn add(&mut self, place: usize) -> bool {
        let bit = 1 << place.min(63);
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }

    /// Whether the source at `place` is one of them.
    #[must_use]
    pub fn has(self, place: usize) -> bool {
        self.0 & (1 << place.min(63)) != 0
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.0.count_ones())
    }

    /// All of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known of one connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Facts about it.
    pub facts: Facts,
    /// Who and from where; absent while only telemetry or streams have told of it.
    pub joined: Option<Joined>,
    /// When and why it ended.
    pub end: Option<End>,
    /// The user that telemetry names.
    pub user: Option<Box<str>>,
    /// Worst network quality told, 0 to 5.
    pub quality: Option<i64>,
    /// Newest time among its facts.
    pub newest: i64,
    /// Whether a text was too long.
    pub truncated: bool,
    /// Sources that have told of it, where events carry no `uniqueSessionId`.
    pub told_by: Tellers,
    /// What time has done to it while it belongs to no known incarnation.
    pub alone: Alone,
    /// Its streams, in the order of (direction, id, start). Saved apart.
    #[serde(skip)]
    pub streams: Vec<Stream>,
    /// Its endpoints, in the order of their names. Saved apart.
    #[serde(skip)]
    pub endpoints: Vec<Endpoint>,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
}

/// What told the attributes of a connection. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Teller {
    /// The join.
    Join,
    /// The leave, which repeats it.
    Leave,
    /// The platform's REST API.
    Api,
}

/// Attributes of a connection, from one event. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Joined {
    /// What told it.
    pub by: Teller,
    /// Milliseconds since 1970.
    pub start: i64,
    /// Time of the event that told it.
    pub time: i64,
    /// JSON members `location`, `geoPoints`, `client`, which telemetry of the connection gets as well.
    pub place: Box<str>,
    /// JSON members `ip`, `platform`, `geo`.
    pub address: Box<str>,
    /// JSON members `clientData`, `serverData`.
    pub data: Box<str>,
    /// User that the application's own data names.
    pub user: Option<Box<str>>,
    /// Tenant that they name.
    pub tenant: Option<Box<str>>,
}

/// What is known of one stream of a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Whether the connection sends it.
    pub outbound: bool,
    /// The publisher's stream id; up to 2.8, which had none, [`NAMELESS`] and the sender's connection id.
    pub id: Box<str>,
    /// Milliseconds since 1970.
    pub start: i64,
    /// Facts about it.
    pub facts: Facts,
    /// Its attributes.
    pub attributes: Option<StreamAttributes>,
    /// When and why it ended.
    pub end: Option<End>,
    /// Newest time among its facts.
    pub newest: i64,
    /// Whether a text was too long.
    pub truncated: bool,
    /// Sources that have told of it, where events carry no `uniqueSessionId`.
    pub told_by: Tellers,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
}

/// Begins the id of a stream that OpenVidu gave none.
pub const NAMELESS: char = '\0';

impl Stream {
    /// What its connection keeps it in the order of.
    #[must_use]
    pub fn place(&self) -> (bool, &str, i64) {
        (self.outbound, &self.id, self.start)
    }

    /// The stream id as OpenVidu sent it.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        Some(&*self.id).filter(|id| !id.is_empty() && !id.starts_with(NAMELESS))
    }
}

/// Attributes of a stream, from one event. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamAttributes {
    /// Told by the end, not the start.
    pub by_end: bool,
    /// Time of the event that told it.
    pub time: i64,
    /// JSON members as OpenVidu names them, such as `videoSource`.
    pub members: Box<str>,
}

/// Which recording.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordingKey {
    /// OpenVidu's id, which may be used again once the recording is deleted.
    pub id: Box<str>,
    /// Milliseconds since 1970.
    pub start: i64,
}

/// What is known of one recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Facts about it.
    pub facts: Facts,
    /// When and why it stopped.
    pub stop: Option<Stop>,
    /// What the stop said of its size.
    pub stop_values: Option<Values>,
    /// Whether `recordingStopped`, the name up to 2.20, was among the events.
    pub old_stop: bool,
    /// How it ended.
    pub last: Option<Final>,
    /// The same as the REST API shows it, where no event has told of it.
    pub seen: Option<Final>,
    /// Earliest mention of the media node.
    pub media_node: Option<(i64, Box<str>)>,
    /// Newest time among its facts.
    pub newest: i64,
    /// Whether a text was too long.
    pub truncated: bool,
    /// Sources that have told of it, where events carry no `uniqueSessionId`.
    pub told_by: Tellers,
    /// What time has done to it while it belongs to no known incarnation.
    pub alone: Alone,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
}

/// The stop of a recording. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stop {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Told as `recordingStopped`.
    pub old_name: bool,
    /// Absent if the platform gave none.
    pub reason: Option<Box<str>>,
    /// JSON members that do not change, such as `name`.
    pub members: Box<str>,
}

/// How a recording ended. Its order is the rule: the greatest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Final {
    /// Milliseconds since 1970.
    pub time: i64,
    /// `ready`, not `failed`.
    pub ready: bool,
    /// What it said of its size.
    pub values: Values,
}

/// Size and form of a recording, from one event. Its order is the rule: the greatest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Values {
    /// Bytes.
    pub size: i64,
    /// How long it is.
    pub duration: Seconds,
    /// JSON members that processing may correct, such as `resolution`.
    pub members: Box<str>,
}

/// A span in seconds, not negative, with a total order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seconds(u64);

impl Seconds {
    /// Negative and non-finite numbers count as 0.
    #[must_use]
    pub fn new(seconds: f64) -> Self {
        // Bits of doubles that are not negative have the order of their values.
        Self(if seconds.is_finite() && seconds > 0.0 { seconds.to_bits() } else { 0 })
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// The same in milliseconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is too long ends at the greatest number"
    )]
    pub fn millis(self) -> i64 {
        (self.get() * 1000.0).round() as i64
    }
}

/// Keeps the smaller of two.
pub fn keep_smaller<T: Ord>(slot: &mut Option<T>, value: T) {
    if slot.as_ref().is_none_or(|known| value < *known) {
        *slot = Some(value);
    }
}

/// Keeps the greater of two.
pub fn keep_greater<T: Ord>(slot: &mut Option<T>, value: T) {
    if slot.as_ref().is_none_or(|known| value > *known) {
        *slot = Some(value);
    }
}

impl Connection {
    /// Its user, if anybody has told; and where the name comes from: `event` or `data`.
    #[must_use]
    pub fn named(&self) -> Option<(&str, &'static str)> {
        let by_event = self.user.as_deref().map(|user| (user, "event"));
        by_event.or_else(|| Some((self.joined.as_ref()?.user.as_deref()?, "data")))
    }

    /// Its user, else its own `id`; and where the name comes from: `event`, `data` or `connection`.
    #[must_use]
    pub fn user_or<'s>(&'s self, id: &'s str) -> (&'s str, &'static str) {
        self.named().unwrap_or((id, "connection"))
    }

    /// When it began: its join, else its first stream. `None` while only telemetry has told of it.
    #[must_use]
    pub fn start(&self) -> Option<i64> {
        let joined = self.joined.as_ref().map(|joined| joined.start);
        joined.or_else(|| self.streams.iter().map(|stream| stream.start).min())
    }

    /// The stream at that place.
    #[must_use]
    pub fn stream(&self, place: (bool, &str, i64)) -> Option<&Stream> {
        self.streams.get(self.find(place).ok()?)
    }

    fn find(&self, place: (bool, &str, i64)) -> Result<usize, usize> {
        self.streams.binary_search_by(|stream| stream.place().cmp(&place))
    }

    /// The endpoint of this name.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.get(self.find_endpoint(name).ok()?)
    }

    /// How many endpoints have a name that begins so.
    #[must_use]
    pub fn endpoints_below(&self, prefix: &str) -> usize {
        let from = self.endpoints.partition_point(|known| known.name.as_ref() < prefix);
        let rest = self.endpoints.get(from..).unwrap_or_default();
        rest.partition_point(|known| known.name.starts_with(prefix))
    }

    /// How many browsers told of from the address of the one that told of `name`; 0 where that is not known.
    #[must_use]
    pub fn reported_from_where(&self, name: &str) -> usize {
        let there = Reporter::read(name).and_then(|reporter| reporter.from_there());
        there.iter().flatten().map(|prefix| self.endpoints_below(prefix)).sum()
    }

    /// The same, begun if there is none.
    pub fn endpoint_mut(&mut self, name: &str) -> &mut Endpoint {
        let at = self.find_endpoint(name).unwrap_or_else(|at| {
            self.endpoints.insert(at, Endpoint { name: name.into(), ..Endpoint::default() });
            at
        });
        #[expect(clippy::indexing_slicing, reason = "found or put there a moment ago")]
        &mut self.endpoints[at]
    }

    fn find_endpoint(&self, name: &str) -> Result<usize, usize> {
        self.endpoints.binary_search_by(|known| known.name.as_ref().cmp(name))
    }
}

impl Recording {
    /// `ready`, `failed` or `none`.
    #[must_use]
    pub fn final_status(&self) -> &'static str {
        match self.known_end() {
            Some(last) if last.ready => RecordingStatus::Ready.name(),
            Some(_) => RecordingStatus::Failed.name(),
            None => "none",
        }
    }

    /// When it stopped, of one that began at `start`: as it was told, else, where the REST API shows that it is ready, as long after the
    /// start as it is long. One of which events tell the end alone was never stopped.
    #[must_use]
    pub fn stopped_at(&self, start: i64) -> Option<i64> {
        let told = self.stop.as_ref().map(|stop| stop.time);
        told.or_else(|| {
            let ready = self.seen.as_ref().filter(|last| last.ready)?;
            Some(start.saturating_add(ready.values.duration.millis()))
        })
    }

    /// Size and form: from the final event if any came, else from the stop.
    #[must_use]
    pub fn values(&self) -> Option<&Values> {
        self.known_end().map(|last| &last.values).or(self.stop_values.as_ref())
    }

    /// How it ended: as an event told it, else as the REST API shows it.
    #[must_use]
    pub fn known_end(&self) -> Option<&Final> {
        self.last.as_ref().or(self.seen.as_ref())
    }
}

/// Which session: the unit that is opened, kept and forgotten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// Empty if none is known.
    pub cluster_id: Box<str>,
    /// `uniqueSessionId`, or `sessionId` where events carry no other (before 2.17).
    pub id: Box<str>,
    /// Whether `id` is a `uniqueSessionId`.
    pub unique: bool,
}

/// A [`SessionKey`] that borrows: looking a session up costs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionName<'a> {
    /// Empty if none is known.
    pub cluster_id: &'a str,
    /// `uniqueSessionId`, or `sessionId` where events carry no other (before 2.17).
    pub id: &'a str,
    /// Whether `id` is a `uniqueSessionId`.
    pub unique: bool,
}

impl SessionName<'_> {
    /// The same wherever it is computed.
    #[must_use]
    pub fn hash64(self) -> u64 {
        let mut hasher = Hasher::new("name");
        hasher.text(self.cluster_id);
        hasher.text(self.id);
        hasher.integer(i64::from(self.unique));
        hasher.digest()
    }
}

impl hashbrown::Equivalent<SessionKey> for SessionName<'_> {
    fn equivalent(&self, key: &SessionKey) -> bool {
        *self == key.name()
    }
}

impl From<&SessionName<'_>> for SessionKey {
    fn from(name: &SessionName<'_>) -> Self {
        Self { cluster_id: name.cluster_id.into(), id: name.id.into(), unique: name.unique }
    }
}

impl SessionKey {
    /// The same, borrowed.
    #[must_use]
    pub fn name(&self) -> SessionName<'_> {
        SessionName { cluster_id: &self.cluster_id, id: &self.id, unique: self.unique }
    }
}

/// One entity of a session, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKey {
    /// The session itself.
    Head,
    /// A connection.
    Connection(Box<str>),
    /// A stream: connection id, whether it is sent, its id, its start.
    Stream(Box<str>, bool, Box<str>, i64),
    /// An endpoint: connection id, its name.
    Endpoint(Box<str>, Box<str>),
    /// A recording.
    Recording(RecordingKey),
    /// What remains of incarnations that are kept no more.
    Closed,
}

/// What remains of incarnations that are kept no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// In no order.
    pub spans: Vec<Span>,
    /// Ends that were known of them: versions must not fall.
    pub ends: u64,
    /// Facts that were known of them.
    pub facts: u64,
    /// Changed since it was saved last.
    #[serde(skip)]
    pub unsaved: bool,
    /// Lane clock at which it is looked at next.
    #[serde(skip)]
    pub wakes_at: Option<i64>,
}

/// A marker: events of this time meet a session that is kept no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Milliseconds since 1970.
    pub start: i64,
    /// Milliseconds since 1970, included.
    pub end: i64,
    /// Lane clock after which it is forgotten altogether.
    pub until: i64,
}

impl Closed {
    /// Whether something of this time belongs to one of them.
    #[must_use]
    pub fn covers(&self, time: i64) -> bool {
        self.spans.iter().any(|span| (span.start..=span.end).contains(&time))
    }

    /// Forgets markers that were remembered long enough.
    pub fn expire(&mut self, clock: i64) {
        let before = self.spans.len();
        self.spans.retain(|span| clock < span.until);
        self.unsaved |= self.spans.len() != before;
    }

    /// The next moment at which a marker will have been remembered long enough.
    #[must_use]
    pub fn next(&self) -> Option<i64> {
        self.spans.iter().map(|span| span.until).min()
    }
}

/// A session with everything in it.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// The session itself.
    pub head: Head,
    /// By connection id.
    pub connections: BTreeMap<Box<str>, Box<Connection>>,
    /// By id and start.
    pub recordings: BTreeMap<RecordingKey, Recording>,
    /// Earlier incarnations.
    pub closed: Closed,
    /// Connections, streams and recordings.
    pub entities: usize,
    /// Entities taken away since it was saved last.
    pub removed: Vec<EntityKey>,
    /// Whether its documents are to be written.
    pub is_due: bool,
    /// Whether it is among those with changes to be saved.
    pub is_unsaved: bool,
    /// Lane clock at which it is looked at next.
    pub wakes_at: Option<i64>,
    /// How it is shown while it is open, once that was asked for. What is merged into it takes that away.
    pub picture: OnceLock<Arc<LiveSession>>,
}

impl Session {
    /// The known start of the incarnation that something which began at `time` belongs to; `None`: that start is guessed. Only
    /// where events carry no `uniqueSessionId`.
    #[must_use]
    pub fn start_at(&self, time: i64) -> Option<i64> {
        let (start, known) = self.head.starts.range(..=time).next_back()?;
        let mut between = self.closed.spans.iter();
        let is_cut_off = between.any(|span| *start < span.start && span.start <= time);
        let is_over = known.end.as_ref().is_some_and(|end| end.time < time);
        (!is_cut_off && !is_over).then_some(*start)
    }

    /// The media node that carries it at `time`, as far as its recordings or the REST API have told.
    #[must_use]
    pub fn media_node_at(&self, time: i64) -> Option<&str> {
        let recorded = self.recordings.values().filter_map(|known| known.media_node.as_ref());
        let recorded = recorded.min().map(|(_, id)| id.as_ref());
        let shown = || {
            let (_, start) = self.head.starts.range(..=time).next_back()?;
            start.seen.as_ref()?.media_node_id.as_deref()
        };
        recorded.or_else(shown)
    }

    /// The phase of the incarnation that something which began at `time` belongs to; `None`: that start is guessed.
    pub fn phase_at(&mut self, time: i64, unique: bool) -> Option<&mut Phase> {
        if unique {
            return Some(&mut self.head.phase);
        }
        let start = self.start_at(time)?;
        self.head.starts.get_mut(&start).map(|known| &mut known.phase)
    }

    /// The known end of the incarnation that something which began at `time` belongs to.
    #[must_use]
    pub fn end_at(&self, time: i64, unique: bool) -> Option<&End> {
        if unique {
            return self.head.starts.values().find_map(|known| known.end.as_ref());
        }
        self.head.starts.get(&self.start_at(time)?)?.end.as_ref()
    }

    /// Whether documents of any of its incarnations were written.
    #[must_use]
    pub fn has_written(&self) -> bool {
        let mut starts = self.head.starts.values();
        starts.any(|start| start.end.is_some() || start.phase.written)
            || self.connections.values().any(|known| known.alone.written)
            || self.recordings.values().any(|known| known.alone.written)
    }

    /// Takes all of it for silent.
    pub fn fall_silent(&mut self) {
        let starts = self.head.starts.values_mut().map(|start| &mut start.phase);
        for phase in starts.chain([&mut self.head.phase]) {
            (phase.silent, phase.written) = (true, true);
        }
        let connections = self.connections.values_mut().map(|known| &mut known.alone);
        let recordings = self.recordings.values_mut().map(|known| &mut known.alone);
        connections.chain(recordings).for_each(|alone| alone.written = true);
    }

    /// The connection with this id, begun if there is none.
    #[expect(clippy::missing_panics_doc, reason = "it was put there a moment ago")]
    pub fn connection(&mut self, id: &str) -> &mut Connection {
        if !self.connections.contains_key(id) {
            self.entities += 1;
            self.connections.insert(id.into(), Box::default());
        }
        self.connections.get_mut(id).expect("put there a moment ago")
    }

    /// The stream of a connection, begun if there is none.
    pub fn stream(&mut self, connection: &str, place: (bool, &str, i64)) -> &mut Stream {
        let before = self.connections.get(connection).map_or(0, |known| known.streams.len());
        let known = self.connection(connection);
        let at = known.find(place).unwrap_or_else(|at| {
            let (outbound, id, start) = place;
            known
                .streams
                .insert(at, Stream { outbound, id: id.into(), start, ..Stream::default() });
            at
        });
        let grown = known.streams.len() - before;
        self.entities += grown;
        #[expect(clippy::indexing_slicing, reason = "found or put there a moment ago")]
        &mut self.connection(connection).streams[at]
    }

    /// The recording, begun if there is none.
    pub fn recording(&mut self, key: &RecordingKey) -> &mut Recording {
        self.entities += usize::from(!self.recordings.contains_key(key));
        self.recordings.entry(key.clone()).or_default()
    }

    /// How many ends are known.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.head.starts.values().filter(|start| start.end.is_some()).count() as u64
    }

    /// How many facts are known, cut ones too.
    #[must_use]
    pub fn facts(&self) -> u64 {
        let head =
            self.head.facts.count() + self.head.cut_facts.count() + self.head.told_by.count();
        let starts: u64 = self.head.starts.values().map(|start| start.told_by.count()).sum();
        let connections: u64 = self.connections.values().map(|known| known.all_facts()).sum();
        let recordings: u64 = self.recordings.values().map(Recording::all_facts).sum();
        head + starts + connections + recordings
    }

    /// Takes an entity away, a connection with its streams and endpoints. All their facts, if it was there.
    pub fn remove(&mut self, entity: EntityKey) -> Option<Facts> {
        let facts = match &entity {
            EntityKey::Connection(id) => {
                let Connection { mut facts, streams, endpoints, .. } =
                    *self.connections.remove(id)?;
                self.entities -= streams.len();
                for endpoint in endpoints {
                    facts.extend(&endpoint.facts);
                    self.removed.push(EntityKey::Endpoint(id.clone(), endpoint.name));
                }
                for stream in streams {
                    facts.extend(&stream.facts);
                    self.removed.push(EntityKey::Stream(
                        id.clone(),
                        stream.outbound,
                        stream.id,
                        stream.start,
                    ));
                }
                facts
            }
            EntityKey::Stream(connection, outbound, id, start) => {
                let connection = self.connections.get_mut(connection)?;
                let at = connection.find((*outbound, id, *start)).ok()?;
                connection.streams.remove(at).facts
            }
            EntityKey::Recording(key) => self.recordings.remove(key)?.facts,
            EntityKey::Endpoint(..) | EntityKey::Head | EntityKey::Closed => return None,
        };
        self.entities -= 1;
        self.removed.push(entity);
        Some(facts)
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.entities == 0 && self.head.starts.is_empty()
    }

    /// Whether more is known than that it was created.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.head.starts.values().any(|start| start.end.is_some())
            || self.closed.ends > 0
            || !self.recordings.is_empty()
            || self.connections.values().any(|known| known.end.is_some() || known.start().is_some())
    }
}

impl Connection {
    fn all_facts(&self) -> u64 {
        let streams =
            self.streams.iter().map(|stream| stream.facts.count() + stream.told_by.count());
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.facts.count());
        self.facts.count() + self.told_by.count() + streams.sum::<u64>() + endpoints.sum::<u64>()
    }
}

impl Recording {
    fn all_facts(&self) -> u64 {
        self.facts.count() + self.told_by.count()
    }
}
