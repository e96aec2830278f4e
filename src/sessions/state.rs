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
//! | master node | that of the smallest source name |
//! | media node | smallest (time, text) |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::event::{Aspect, RecordingStatus};

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
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is known.
    #[must_use]
    pub fn has(&self, fact: u64) -> bool {
        self.0.binary_search(&fact).is_ok()
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
    /// Whether there were too many, or a text was too long.
    pub truncated: bool,
    /// `sessionId`.
    pub session_id: Box<str>,
    /// Every known start. Only a session without `uniqueSessionId` has several.
    pub starts: BTreeMap<i64, Start>,
    /// Source name to the master node it reports.
    pub sources: BTreeMap<Box<str>, Box<str>>,
    /// Earliest mention of a media node.
    pub media_node: Option<(i64, Box<str>)>,
    /// Newest time among all facts of the session.
    pub newest: i64,
    /// Lane clock when the last fact came.
    pub touched: i64,
    /// Whether it was silent for so long that what is known was written.
    pub silent: bool,
    /// Ends and facts of incarnations that are kept no more.
    pub forgotten: (u64, u64),
}

/// A known start of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The end that names this start.
    pub end: Option<End>,
    /// Lane clock when the last fact of this incarnation came.
    pub touched: i64,
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
    /// States of its endpoints.
    pub endpoints: BTreeMap<EndpointKey, EndpointState>,
    /// Worst network quality told, 0 to 5.
    pub quality: Option<i64>,
    /// Newest time among its facts.
    pub newest: i64,
}

/// Attributes of a connection, from one event. Its order is the rule: the smallest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Joined {
    /// Told by the leave, not the join.
    pub by_leave: bool,
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

/// Which endpoint, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The media server's name for it.
    pub endpoint: Box<str>,
    /// ICE or a direction of media.
    pub aspect: Aspect,
    /// Media type or ICE component.
    pub part: Box<str>,
}

/// What an endpoint went through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Greatest (time, state): where it stands.
    pub last: Option<(i64, Box<str>)>,
    /// First and last time that media flowed.
    pub flowing: Option<(i64, i64)>,
    /// First and last time that it stopped flowing.
    pub not_flowing: Option<(i64, i64)>,
}

/// Which stream of which connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamKey {
    /// The connection that sends or receives it.
    pub connection: Box<str>,
    /// Whether it sends.
    pub outbound: bool,
    /// The publisher's stream id; with `from:` and the sender's connection id up to 2.8, which had none.
    pub stream: Box<str>,
    /// Milliseconds since 1970.
    pub start: i64,
}

/// What is known of one stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Facts about it.
    pub facts: Facts,
    /// Its attributes.
    pub attributes: Option<StreamAttributes>,
    /// When and why it ended.
    pub end: Option<End>,
    /// Newest time among its facts.
    pub newest: i64,
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
    /// Newest time among its facts.
    pub newest: i64,
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

impl EndpointState {
    /// Merges one state.
    pub fn merge(&mut self, time: i64, state: &str) {
        if self.last.as_ref().is_none_or(|(at, known)| (time, state) > (*at, known.as_ref())) {
            self.last = Some((time, state.into()));
        }
        let span = match state {
            "FLOWING" => &mut self.flowing,
            "NOT_FLOWING" => &mut self.not_flowing,
            _ => return,
        };
        let (first, last) = span.unwrap_or((time, time));
        *span = Some((first.min(time), last.max(time)));
    }

    /// Whether media stopped and came back: a stop lies between two times of flow.
    #[must_use]
    pub fn had_gap(&self) -> bool {
        let (Some(flowing), Some(not_flowing)) = (self.flowing, self.not_flowing) else {
            return false;
        };
        [not_flowing.0, not_flowing.1].iter().any(|time| flowing.0 < *time && *time < flowing.1)
    }
}

impl Connection {
    /// Whether a `cdr` event has told of it, not only telemetry.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.joined.is_some() || self.end.is_some()
    }
}

impl Recording {
    /// `ready`, `failed` or `none`.
    #[must_use]
    pub fn final_status(&self) -> &'static str {
        match &self.last {
            Some(last) if last.ready => RecordingStatus::Ready.name(),
            Some(_) => RecordingStatus::Failed.name(),
            None => "none",
        }
    }

    /// Size and form: from the final event if any came, else from the stop.
    #[must_use]
    pub fn values(&self) -> Option<&Values> {
        self.last.as_ref().map(|last| &last.values).or(self.stop_values.as_ref())
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

/// One entity of a session, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKey {
    /// The session itself.
    Head,
    /// A connection.
    Connection(Box<str>),
    /// A stream.
    Stream(StreamKey),
    /// A recording.
    Recording(RecordingKey),
    /// What remains of a session that is kept no more.
    Closed,
}

/// A session with everything in it.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// The session itself.
    pub head: Head,
    /// By connection id.
    pub connections: BTreeMap<Box<str>, Connection>,
    /// By connection, direction, stream and start.
    pub streams: BTreeMap<StreamKey, Stream>,
    /// By id and start.
    pub recordings: BTreeMap<RecordingKey, Recording>,
    /// What has changed since it was saved last.
    pub changed: BTreeSet<EntityKey>,
}

impl Session {
    /// How many connections, streams and recordings.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.connections.len() + self.streams.len() + self.recordings.len()
    }

    /// How many ends are known.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.head.starts.values().filter(|start| start.end.is_some()).count() as u64
    }

    /// How many facts are known, cut ones too.
    #[must_use]
    pub fn facts(&self) -> u64 {
        let connections: u64 =
            self.connections.values().map(|connection| connection.facts.len()).sum();
        let streams: u64 = self.streams.values().map(|stream| stream.facts.len()).sum();
        let recordings: u64 = self.recordings.values().map(|recording| recording.facts.len()).sum();
        self.head.facts.len() + self.head.cut_facts.len() + connections + streams + recordings
    }

    /// Takes an entity away; its facts, if it was there.
    pub fn remove(&mut self, entity: &EntityKey) -> Option<Facts> {
        self.changed.insert(entity.clone());
        match entity {
            EntityKey::Connection(id) => {
                self.connections.remove(id).map(|connection| connection.facts)
            }
            EntityKey::Stream(key) => self.streams.remove(key).map(|stream| stream.facts),
            EntityKey::Recording(key) => {
                self.recordings.remove(key).map(|recording| recording.facts)
            }
            EntityKey::Head | EntityKey::Closed => None,
        }
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.entities() == 0 && self.head.starts.is_empty()
    }

    /// Whether more is known than that it was created.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.ends() > 0
            || self.head.forgotten.0 > 0
            || !self.streams.is_empty()
            || !self.recordings.is_empty()
            || self.connections.values().any(Connection::is_real)
    }
}
