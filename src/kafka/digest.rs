//! Digests: what every lane has open, for all instances to see.
//!
//! A compacted topic of one partition, keyed by lane, so that whoever owns a lane overwrites what its owner before has told.
//! An instance reads all of it and adds its own lanes as they are now: so the page shows the whole group. Digests also carry
//! the counts of the last ticks; the owner of lane 0 adds them up and writes `platformStats`. A tick of which a lane tells
//! nothing is left out: a gap, never a low value.
//!
//! They are observations: lost or late, they harm no session.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::Offset;
use serde::{Deserialize, Serialize};

use super::deliveries::{Deliveries, Placed, Refusal};
use super::seen::Seen;
use super::standing::{Board, Part};
use super::{KafkaError, Reader, client, reader, unusable};
use crate::config::KafkaConfig;
use crate::document::Document;
use crate::lane::stats::{self, Counted};
use crate::live::{AwaitedRecording, Live, LiveSession, OpenSession, Share, Totals};
use crate::sessions::Name;

/// How often a lane's digest is told anew at most.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Largest digest: what brokers take by default is 1 MB.
const BYTES_MAX: usize = 700_000;
/// Ticks that a digest goes back.
pub(super) const TICKS_MAX: i64 = 60;

/// What a lane has open.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Its owner.
    instance: String,
    /// Clock of the lane, milliseconds since 1970.
    at: i64,
    totals: Totals,
    shares: Vec<Share>,
    #[serde(default)]
    troubled: u64,
    /// Those that are listed where none is looked for.
    sessions: Vec<Shown>,
    /// All that were here of late, to see whether any is in another lane too. Named only by who owns the lane.
    #[serde(default, with = "packed")]
    names: Vec<Name>,
    /// Every open session.
    #[serde(default, with = "packed_open")]
    open: Vec<OpenSession>,
    #[serde(default)]
    awaited: Vec<AwaitedRecording>,
    /// The first and last tick that it tells of; what is not among `ticks` had nothing open. `None`: nothing was ever open.
    told: Option<(i64, i64)>,
    ticks: BTreeMap<i64, Counted>,
}

/// A hash with a time, as they travel: 16 bytes.
mod pairs {
    pub(super) fn put(bytes: &mut Vec<u8>, hash: u64, time: i64) {
        bytes.extend(hash.to_le_bytes());
        bytes.extend(time.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8]) -> impl Iterator<Item = (u64, i64)> {
        let pairs = bytes.as_chunks().0.as_chunks().0.iter();
        pairs.map(|[hash, time]| (u64::from_le_bytes(*hash), i64::from_le_bytes(*time)))
    }
}

/// Names as they travel: 8 bytes for each that is named once, 16 for any other, as base64.
mod packed {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::pairs;
    use crate::sessions::Name;

    pub(super) fn serialize<S: Serializer>(names: &[Name], to: S) -> Result<S::Ok, S::Error> {
        let (mut once, mut again) = (Vec::new(), Vec::new());
        for name in names {
            match name.since {
                None => once.extend(name.hash.to_le_bytes()),
                Some(since) => pairs::put(&mut again, name.hash, since),
            }
        }
        [STANDARD.encode(once), STANDARD.encode(again)].serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Name>, D::Error> {
        let [once, again] = <[String; 2]>::deserialize(from)?;
        let bytes = |text: String| STANDARD.decode(text).map_err(serde::de::Error::custom);
        let (once, again) = (bytes(once)?, bytes(again)?);
        let name = |hash, since| Name { hash, since, session_id: Box::default() };
        let once = once.as_chunks().0.iter().map(|hash| name(u64::from_le_bytes(*hash), None));
        let again = pairs::read(&again).map(|(hash, since)| name(hash, Some(since)));
        Ok(once.chain(again).collect())
    }
}

/// Open sessions as they travel: 16 bytes for each, as base64.
mod packed_open {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::pairs;
    use crate::live::OpenSession;

    pub(super) fn serialize<S: Serializer>(open: &[OpenSession], to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(16 * open.len());
        for OpenSession { id, start } in open {
            pairs::put(&mut bytes, *id, *start);
        }
        STANDARD.encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<OpenSession>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(pairs::read(&bytes).map(|(id, start)| OpenSession { id, start }).collect())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shown {
    #[serde(flatten)]
    session: LiveSession,
    people: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    problem_details: String,
}

impl Digest {
    /// Of a lane's picture. `before`: what it told last.
    fn of(instance: &str, live: &Live, before: Option<&Self>, ticks: &Ticks) -> Self {
        let shown = |session: &Arc<LiveSession>| Shown {
            session: LiveSession::clone(session),
            people: session.people.clone(),
            problem_details: session.problem_details.clone(),
        };
        let is_own = |known: &&Self| known.instance == instance;
        let mut known = before.filter(is_own).map(|known| known.ticks.clone()).unwrap_or_default();
        known.extend(ticks.counted.clone());
        let first = before.filter(is_own).and_then(|known| known.told).map(|(first, _)| first);
        let told = ticks.told.map(|(from, to)| {
            let first = first.unwrap_or(from);
            let oldest = to.saturating_sub(ticks.every.saturating_mul(TICKS_MAX - 1));
            known.retain(|tick, _| *tick >= oldest);
            (first.max(oldest), to)
        });
        Self {
            names: Vec::new(),
            instance: instance.to_owned(),
            at: live.at,
            totals: live.totals,
            shares: live.shares.clone(),
            troubled: live.troubled,
            sessions: live.listed().iter().map(shown).collect(),
            open: live.open.clone(),
            awaited: live.awaited.clone(),
            told,
            ticks: known,
        }
    }

    fn live(&self) -> Live {
        let session = |shown: &Shown| {
            Arc::new(LiveSession {
                people: shown.people.clone(),
                problem_details: shown.problem_details.clone(),
                ..shown.session.clone()
            })
        };
        Live {
            at: self.at,
            made_at: 0,
            is_current: false,
            totals: self.totals,
            troubled: self.troubled,
            sessions: self.sessions.iter().map(session).collect(),
            open: self.open.clone(),
            awaited: self.awaited.clone(),
            shares: self.shares.clone(),
        }
    }

    /// As it is sent: where it is too large without what has gone wrong in sentences, then with fewer sessions to show, and as the
    /// last resort with nothing to compare.
    fn encoded(&mut self) -> serde_json::Result<(Vec<u8>, Sent)> {
        loop {
            let json = serde_json::to_vec(self)?;
            if json.len() <= BYTES_MAX || self.sessions.is_empty() && self.names.is_empty() {
                return Ok((json, Sent::Whole));
            }
            if self.sessions.is_empty() {
                self.names.clear();
                self.open.truncate(BYTES_MAX / 32);
                return Ok((serde_json::to_vec(self)?, Sent::WithoutNames));
            }
            let told =
                self.sessions.iter_mut().map(|shown| std::mem::take(&mut shown.problem_details));
            if told.filter(|details| !details.is_empty()).count() == 0 {
                self.sessions.truncate(self.sessions.len() / 2);
            }
        }
    }

    /// What was open at `tick`; `None`: it is not told.
    fn at(&self, tick: i64) -> Option<Cow<'_, Counted>> {
        let Some((first, last)) = self.told else { return Some(Cow::Owned(Counted::new())) };
        if tick < first || tick > last {
            return None;
        }
        Some(self.ticks.get(&tick).map_or_else(|| Cow::Owned(Counted::new()), Cow::Borrowed))
    }
}

/// What of a digest is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// There are too many sessions for one record.
    WithoutNames,
}

/// Counts of a lane since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    /// First and last tick, the first being the later one where there was none; `None`: the lane has never had a clock.
    pub(super) told: Option<(i64, i64)>,
    pub(super) counted: BTreeMap<i64, Counted>,
    /// Milliseconds between two.
    pub(super) every: i64,
}

/// The digests of all lanes.
pub(super) struct Digests {
    topic: String,
    instance: String,
    partitions: i32,
    producer: BaseProducer<Deliveries>,
    /// Whether something was sent since a delivery has failed last.
    has_sent: bool,
    is_gone: bool,
    board: Board,
    reader: Reader,
    known: BTreeMap<i32, Digest>,
    told: HashMap<i32, Instant>,
    /// The last tick of which documents were made.
    written: i64,
    /// Lanes of which the others are not told all that is here.
    untold: BTreeSet<i32>,
    seen: Seen,
}

impl Digests {
    /// Nothing is known yet. `board` is told why the others cannot be told.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub(super) fn new(
        config: &KafkaConfig,
        instance: &str,
        partitions: i32,
        board: Board,
    ) -> Result<Self, KafkaError> {
        let topic = config.digests_topic();
        let producer = client(config)
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.timeout.ms", "10000")
            .create_with_context(Deliveries::default())
            .map_err(|error| unusable(&error))?;
        let reader = reader(config, "read_committed")?;
        let mut all = TopicPartitionList::new();
        let assigned = all
            .add_partition_offset(&topic, 0, Offset::Beginning)
            .and_then(|()| reader.assign(&all));
        assigned.map_err(|error| KafkaError::away(format!("topic {topic}: {error}")))?;
        Ok(Self {
            topic,
            instance: instance.to_owned(),
            partitions,
            producer,
            reader,
            known: BTreeMap::new(),
            told: HashMap::new(),
            written: 0,
            untold: BTreeSet::new(),
            seen: Seen::new(board.metrics.kafka.split.clone()),
            has_sent: false,
            is_gone: false,
            board,
        })
    }

    /// Tells what a lane of this instance has open, and keeps it for [`merged`](Self::merged). `names` gives those that were here
    /// since it was asked last.
    pub(super) fn tell(
        &mut self,
        lane: i32,
        live: &Live,
        names: impl FnOnce() -> Vec<Name>,
        ticks: &Ticks,
    ) {
        self.look_at_deliveries();
        let mut digest = Digest::of(&self.instance, live, self.known.get(&lane), ticks);
        let is_due = self.told.get(&lane).is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            digest.names = names();
            digest.names.iter().for_each(|name| self.seen.note(name, lane, digest.at));
            digest.names.sort_unstable_by_key(|name| (name.hash, name.since));
            digest.names.dedup_by_key(|name| (name.hash, name.since));
            self.told.insert(lane, Instant::now());
            self.send(lane, &mut digest);
            digest.names.clear();
        }
        self.known.insert(lane, digest);
    }

    fn send(&mut self, lane: i32, digest: &mut Digest) {
        let Ok((json, sent)) = digest.encoded() else { return };
        match sent {
            Sent::Whole => _ = self.untold.remove(&lane),
            Sent::WithoutNames if self.untold.insert(lane) => tracing::warn!(
                lane,
                "too many sessions are in this partition to tell the other instances of: one that is in another partition as well \
                 may go unnoticed; see that all producers key records by sessionId"
            ),
            Sent::WithoutNames => {}
        }
        let key = lane.to_string();
        // One that is lost is told anew before long, but for the names of what has ended since.
        let record = Placed::with_opaque_to(&self.topic, 0).key(key.as_bytes()).payload(&json);
        if let Err((error, _)) = self.producer.send(record) {
            self.is_gone |= Refusal::of(&error) == Some(Refusal::Gone);
            tracing::debug!(error = %error, lane, "digest not sent");
        }
        self.has_sent = true;
    }

    /// Whether its topic is there no more: whoever joins anew makes it.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Tells whether the others hear what is told.
    fn look_at_deliveries(&mut self) {
        self.producer.poll(Duration::ZERO);
        if let Some(failed) = self.producer.context().take().into_iter().next() {
            self.has_sent = false;
            self.is_gone |= Refusal::of(&failed.error) == Some(Refusal::Gone);
            let topic = &self.topic;
            self.board.trouble(
                Part::Telling,
                Some(format!(
                    "the other instances cannot be told what is open here: {}; see that topic {topic} is there, and that the account has \
                     Write on it",
                    failed.error
                )),
            );
        } else if self.has_sent && self.producer.in_flight_count() == 0 {
            self.board.trouble(Part::Telling, None);
        }
    }

    /// Forgets lanes that this instance has no more. Who has none tells nothing, and has no trouble with it.
    pub(super) fn forget(&mut self) {
        self.told.clear();
        self.board.trouble(Part::Telling, None);
    }

    /// Takes in what others have told; `own`: lanes of this instance, of which it knows better.
    pub(super) fn read(&mut self, own: impl Fn(i32) -> bool) {
        while let Some(polled) = self.reader.poll(Duration::ZERO) {
            let Ok(message) = polled else { continue };
            let lane = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            let digest: Option<Digest> =
                message.payload().and_then(|json| serde_json::from_slice(json).ok());
            if let (Some(lane), Some(mut digest)) = (lane, digest)
                && !own(lane)
                && lane < self.partitions
            {
                for name in std::mem::take(&mut digest.names) {
                    self.seen.note(&name, lane, digest.at);
                }
                self.known.insert(lane, digest);
            }
        }
    }

    /// All lanes as they are known.
    pub(super) fn merged(&self) -> Live {
        Live::merged(self.known.values().map(Digest::live))
    }

    /// A session that was seen in two lanes of late, and which: its records are not keyed by session.
    pub(super) fn split(&self) -> Option<String> {
        self.seen.split().map(str::to_owned)
    }

    /// `platformStats` of ticks that every lane has told of and that were not made before.
    pub(super) fn due(&mut self) -> Vec<Document> {
        let mut documents = Vec::new();
        let ticks: std::collections::BTreeSet<i64> =
            self.known.values().flat_map(|digest| digest.ticks.keys().copied()).collect();
        let lanes = || 0..self.partitions;
        let newest = |lane: i32| match self.known.get(&lane).map(|digest| digest.told) {
            None => Some(i64::MIN),
            Some(told) => told.map(|(_, last)| last),
        };
        // Beyond this some lane has not counted yet.
        let settled = lanes().filter_map(newest).min().unwrap_or(i64::MIN);
        for tick in ticks.into_iter().filter(|tick| *tick > self.written && *tick <= settled) {
            let parts: Option<Vec<_>> = lanes()
                .map(|lane| self.known.get(&lane).and_then(|known| known.at(tick)))
                .collect();
            if let Some(parts) = parts {
                documents.extend(stats::summed(tick, parts.iter().map(AsRef::as_ref)));
            }
        }
        self.written = self.written.max(settled);
        documents
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;

    #[test]
    fn who_has_nothing_left_to_tell_has_no_trouble_with_it() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        let mut config = Config::load(None, std::iter::empty()).unwrap().config.kafka;
        config.brokers = vec![cluster.bootstrap_servers()];
        cluster.create_topic(&config.digests_topic(), 1, 1).unwrap();
        let board = Board::new(Arc::new(Metrics::new()));
        let mut digests = Digests::new(&config, "a", 1, board.clone()).unwrap();
        let is_told = || board.subscribe().borrow().reasons().join("\n").contains("cannot be told");
        cluster
            .request_errors(Api::Produce, &[Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
        let begun = Instant::now();
        while !is_told() {
            digests.tell(0, &Live::default(), Vec::new, &Ticks::default());
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody told");
            std::thread::yield_now();
        }
        digests.forget();
        assert!(!is_told());
    }

    fn digest(names: impl IntoIterator<Item = Name>) -> Digest {
        let digest = Digest::of("a", &Live::default(), None, &Ticks::default());
        Digest { names: names.into_iter().collect(), ..digest }
    }

    #[test]
    fn names_travel_by_their_hash() {
        let name = |hash, since| Name { hash, since, session_id: "x".into() };
        let mut sent = digest([name(7, Some(3)), name(8, None), name(9, None)]);
        let read: Digest = serde_json::from_slice(&sent.encoded().unwrap().0).unwrap();
        let nameless = |hash, since| Name { session_id: "".into(), ..name(hash, since) };
        assert_eq!(read.names, [nameless(8, None), nameless(9, None), nameless(7, Some(3))]);
    }

    #[test]
    fn open_sessions_travel_whole() {
        let session = |id, start| OpenSession { id, start };
        let open = vec![session(7, 3), session(u64::MAX, -1), session(0, 0)];
        let mut sent = Digest { open: open.clone(), ..digest([]) };
        let read: Digest = serde_json::from_slice(&sent.encoded().unwrap().0).unwrap();
        assert_eq!(read.open, open);
    }

    #[test]
    fn where_room_is_short_sentences_go_before_sessions() {
        let shown = |problem_details: String| Shown {
            session: LiveSession::default(),
            people: Vec::new(),
            problem_details,
        };
        let told = |bytes: usize| {
            let sessions = vec![shown("x".repeat(bytes)), shown(String::new())];
            let json = Digest { sessions, ..digest([]) }.encoded().unwrap().0;
            let read = serde_json::from_slice::<Digest>(&json).unwrap().live();
            read.sessions.iter().map(|session| session.problem_details.len()).collect::<Vec<_>>()
        };
        assert_eq!(told(7), [7, 0]);
        assert_eq!(told(BYTES_MAX), [0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told_of() {
        let name = |hash| Name { hash, since: None, session_id: Box::default() };
        let (json, sent) = digest((0..100_000).map(name)).encoded().unwrap();
        assert_eq!(sent, Sent::WithoutNames);
        assert!(json.len() <= BYTES_MAX);
        let read: Digest = serde_json::from_slice(&json).unwrap();
        assert!(read.names.is_empty());
        // One of a version that told of none.
        let older = r#"{"instance":"b","at":1,"totals":{"sessions":0,"connections":0,"publishers":0,"subscribers":0,"recordings":0},"shares":[],"sessions":[],"told":null,"ticks":{}}"#;
        assert!(serde_json::from_str::<Digest>(older).unwrap().names.is_empty());
        let session = r#""sessions":[{"sessionId":"s","uniqueSessionId":"s_7","clusterId":"","createdAt":7,"lastEventAt":8,"users":0,"sessions":1,"connections":0,"publishers":0,"subscribers":0,"recordings":0,"problems":[],"people":[]}]"#;
        let older = older.replace(r#""sessions":[]"#, session);
        assert_eq!(serde_json::from_str::<Digest>(&older).unwrap().live().sessions.len(), 1);
    }
}
