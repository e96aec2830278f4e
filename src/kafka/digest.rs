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
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::topic_partition_list::Offset;
use serde::{Deserialize, Serialize};

use super::{KafkaError, Quiet, Reader, client, reader, unusable};
use crate::config::KafkaConfig;
use crate::document::Document;
use crate::lane::stats::{self, Counted};
use crate::live::{Live, LiveSession, Open, Share, Totals};
use crate::sessions::state::SessionName;

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
    sessions: Vec<Shown>,
    /// All that are open, in the order of their hashes, for comparing lanes. Named only by who owns the lane.
    #[serde(default, with = "packed")]
    open: Vec<Open>,
    /// The first and last tick that it tells of; what is not among `ticks` had nothing open. `None`: nothing was ever open.
    told: Option<(i64, i64)>,
    ticks: BTreeMap<i64, Counted>,
}

/// Open sessions as they travel: 8 bytes for each that is named once, 16 for any other, as base64.
mod packed {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::live::Open;

    pub(super) fn serialize<S: Serializer>(open: &[Open], to: S) -> Result<S::Ok, S::Error> {
        let (mut once, mut again) = (Vec::new(), Vec::new());
        for session in open {
            match session.since {
                None => once.extend(session.hash.to_le_bytes()),
                Some(since) => {
                    again.extend(session.hash.to_le_bytes());
                    again.extend(since.to_le_bytes());
                }
            }
        }
        [STANDARD.encode(once), STANDARD.encode(again)].serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Open>, D::Error> {
        let [once, again] = <[String; 2]>::deserialize(from)?;
        let bytes = |text: String| STANDARD.decode(text).map_err(serde::de::Error::custom);
        let (once, again) = (bytes(once)?, bytes(again)?);
        let open = |hash: &[u8; 8], since: Option<i64>| Open {
            hash: u64::from_le_bytes(*hash),
            since,
            session_id: Box::default(),
        };
        let once = once.as_chunks().0.iter().map(|hash| open(hash, None));
        let pairs = again.as_chunks().0.as_chunks().0.iter();
        let again = pairs.map(|[hash, since]| open(hash, Some(i64::from_le_bytes(*since))));
        let mut all: Vec<Open> = once.chain(again).collect();
        all.sort_by_key(|session| session.hash);
        Ok(all)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shown {
    #[serde(flatten)]
    session: LiveSession,
    people: Vec<String>,
}

impl Digest {
    /// Of a lane's picture. `before`: what it told last.
    fn of(instance: &str, live: &Live, before: Option<&Self>, ticks: &Ticks) -> Self {
        let shown = |session: &LiveSession| Shown {
            session: session.clone(),
            people: session.people.clone(),
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
        let mut open = live.open.clone();
        open.sort_by_key(|session| session.hash);
        Self {
            open,
            instance: instance.to_owned(),
            at: live.at,
            totals: live.totals,
            shares: live.shares.clone(),
            sessions: live.sessions.iter().map(shown).collect(),
            told,
            ticks: known,
        }
    }

    fn live(&self) -> Live {
        let session =
            |shown: &Shown| LiveSession { people: shown.people.clone(), ..shown.session.clone() };
        Live {
            at: self.at,
            totals: self.totals,
            sessions: self.sessions.iter().map(session).collect(),
            shares: self.shares.clone(),
            open: Vec::new(),
        }
    }

    /// As it is sent: with fewer sessions to show where it is too large, and as the last resort with nothing to compare.
    fn encoded(&mut self) -> serde_json::Result<(Vec<u8>, Sent)> {
        loop {
            let json = serde_json::to_vec(self)?;
            if json.len() <= BYTES_MAX || self.sessions.is_empty() && self.open.is_empty() {
                return Ok((json, Sent::Whole));
            }
            if self.sessions.is_empty() {
                let open = std::mem::take(&mut self.open);
                let json = serde_json::to_vec(self);
                self.open = open;
                return Ok((json?, Sent::WithoutOpen));
            }
            self.sessions.truncate(self.sessions.len() / 2);
        }
    }

    /// `sessionId` of an open session.
    fn session_id(&self, hash: u64) -> Option<&str> {
        let own = self.open.iter().find(|open| open.hash == hash && !open.session_id.is_empty());
        let is_shown = |shown: &&Shown| {
            let session = &shown.session;
            let names = [(&session.unique_session_id, true), (&session.session_id, false)];
            let cluster_id = &session.cluster_id;
            names.iter().any(|(id, unique)| {
                SessionName { cluster_id, id, unique: *unique }.hash64() == hash
            })
        };
        own.map(|open| &*open.session_id).or_else(|| {
            self.sessions.iter().find(is_shown).map(|shown| shown.session.session_id.as_str())
        })
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
    /// There are too many open sessions for one record.
    WithoutOpen,
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
    producer: BaseProducer<Quiet>,
    reader: Reader,
    known: BTreeMap<i32, Digest>,
    told: HashMap<i32, Instant>,
    /// The last tick of which documents were made.
    written: i64,
    /// Lanes of which the others are not told all that is open.
    untold: BTreeSet<i32>,
    doubled: Doubled,
}

/// What was found when lanes were compared last.
struct Doubled {
    found: Option<String>,
    at: Instant,
    /// Whether something else is open since.
    is_over: bool,
}

impl Digests {
    /// Nothing is known yet.
    ///
    /// # Errors
    ///
    /// If the settings do not make a client.
    pub(super) fn new(
        config: &KafkaConfig,
        instance: &str,
        partitions: i32,
    ) -> Result<Self, KafkaError> {
        let topic = config.digests_topic();
        let producer = client(config)
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.timeout.ms", "10000")
            .create_with_context(Quiet::default())
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
            doubled: Doubled { found: None, at: Instant::now(), is_over: false },
        })
    }

    /// Tells what a lane of this instance has open, and keeps it for [`merged`](Self::merged).
    pub(super) fn tell(&mut self, lane: i32, live: &Live, ticks: &Ticks) {
        let mut digest = Digest::of(&self.instance, live, self.known.get(&lane), ticks);
        let is_due = self.told.get(&lane).is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            self.told.insert(lane, Instant::now());
            self.send(lane, &mut digest);
        }
        self.keep(lane, digest);
    }

    fn keep(&mut self, lane: i32, digest: Digest) {
        let known = self.known.get(&lane);
        // Names that are used again are compared by the clocks as well.
        self.doubled.is_over |= known.is_none_or(|known| known.open != digest.open)
            || digest.open.iter().any(|session| session.since.is_some());
        self.known.insert(lane, digest);
    }

    fn send(&mut self, lane: i32, digest: &mut Digest) {
        let Ok((json, sent)) = digest.encoded() else { return };
        match sent {
            Sent::Whole => _ = self.untold.remove(&lane),
            Sent::WithoutOpen if self.untold.insert(lane) => tracing::warn!(
                lane,
                sessions = digest.open.len(),
                "too many sessions are open in this partition to tell the other instances of: one that is open in another partition \
                 as well may go unnoticed; see that all producers key records by sessionId"
            ),
            Sent::WithoutOpen => {}
        }
        let key = lane.to_string();
        // One that is lost is told anew before long.
        let record = BaseRecord::<str, [u8]>::to(&self.topic).key(&key).payload(&json);
        if let Err((error, _)) = self.producer.send(record) {
            tracing::debug!(error = %error, lane, "digest not sent");
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Forgets lanes that this instance has no more.
    pub(super) fn forget(&mut self) {
        self.told.clear();
    }

    /// Takes in what others have told; `own`: lanes of this instance, of which it knows better.
    pub(super) fn read(&mut self, own: impl Fn(i32) -> bool) {
        while let Some(polled) = self.reader.poll(Duration::ZERO) {
            let Ok(message) = polled else { continue };
            let lane = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            let digest = message.payload().and_then(|json| serde_json::from_slice(json).ok());
            if let (Some(lane), Some(digest)) = (lane, digest)
                && !own(lane)
                && lane < self.partitions
            {
                self.keep(lane, digest);
            }
        }
    }

    /// All lanes as they are known.
    pub(super) fn merged(&self) -> Live {
        Live::merged(self.known.values().map(Digest::live))
    }

    /// A session that is open in two lanes, and which: its records are not keyed by session.
    pub(super) fn doubled(&mut self) -> Option<String> {
        if self.doubled.is_over && self.doubled.at.elapsed() >= TELL_EVERY {
            self.doubled =
                Doubled { found: doubled(&self.known), at: Instant::now(), is_over: false };
        }
        self.doubled.found.clone()
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

/// A session that is open in two of these lanes, for people. A name that is used again may have been open in one of them and be
/// open in the other by now: it counts where both have reached the time at which both were open.
fn doubled(lanes: &BTreeMap<i32, Digest>) -> Option<String> {
    let mut all: Vec<(u64, i32, i64, Option<i64>)> = Vec::new();
    for (lane, digest) in lanes {
        all.extend(digest.open.iter().map(|open| (open.hash, *lane, digest.at, open.since)));
    }
    all.sort_unstable();
    let overlap =
        |(_, lane, at, since): &(u64, i32, i64, Option<i64>),
         (_, other, other_at, other_since): &(u64, i32, i64, Option<i64>)| {
            let has_reached =
                |at: &i64, since: &Option<i64>| since.is_none_or(|since| since <= *at);
            lane != other && has_reached(at, other_since) && has_reached(other_at, since)
        };
    let same = all.chunk_by(|(left, ..), (right, ..)| left == right);
    let (hash, first, second) = same.filter(|same| same.len() > 1).find_map(|same| {
        same.iter().enumerate().find_map(|(place, one)| {
            let others = same.get(place + 1..).unwrap_or_default();
            let other = others.iter().find(|other| overlap(one, other))?;
            Some((one.0, one.1, other.1))
        })
    })?;
    let name = [first, second]
        .iter()
        .find_map(|lane| lanes.get(lane)?.session_id(hash))
        .map_or_else(|| format!("with hash {hash:016x}"), str::to_owned);
    Some(format!(
        "session {name} is in partitions {first} and {second}: records are not keyed by sessionId, and its documents are wrong; see \
         kafka.rekey_from"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(at: i64, open: impl IntoIterator<Item = (String, Option<i64>)>) -> Digest {
        let open = open.into_iter().map(|(id, since)| Open {
            hash: SessionName { cluster_id: "", id: &id, unique: since.is_none() }.hash64(),
            since,
            session_id: id.into(),
        });
        let live = Live { at, open: open.collect(), ..Live::default() };
        Digest::of("a", &live, None, &Ticks::default())
    }

    /// As another instance reads it.
    fn read(mut digest: Digest) -> Digest {
        let (json, sent) = digest.encoded().unwrap();
        assert_eq!(sent, Sent::Whole);
        assert!(json.len() <= BYTES_MAX);
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn a_session_that_is_open_in_two_lanes_is_found_among_all_that_are_open() {
        let many = |lane: i32| (0..20_000).map(move |number| (format!("s{lane}_{number}"), None));
        let last = || [("daily".to_owned(), None)];
        let (own, other) = (digest(1, many(0).chain(last())), read(digest(1, many(3))));
        let mut lanes = BTreeMap::from([(0, own), (3, other)]);
        assert_eq!(doubled(&lanes), None);
        lanes.insert(3, read(digest(1, many(3).chain(last()))));
        let told = doubled(&lanes).unwrap();
        assert!(told.starts_with("session daily is in partitions 0 and 3: "), "{told}");
        // Where it is shown it is known by name, wherever it is open.
        let mut shown = lanes[&0].clone();
        shown.sessions = vec![Shown {
            session: LiveSession {
                session_id: "daily".to_owned(),
                unique_session_id: "daily".to_owned(),
                ..LiveSession::default()
            },
            people: Vec::new(),
        }];
        lanes.insert(0, read(shown));
        assert_eq!(doubled(&lanes), Some(told));
    }

    #[test]
    fn a_name_that_is_used_again_is_open_in_two_lanes_at_once() {
        let room = |since| [("room".to_owned(), Some(since))];
        for (at, since, expected) in [(100, 50, true), (100, 150, false)] {
            let lanes =
                BTreeMap::from([(1, digest(at, room(10))), (2, read(digest(200, room(since))))]);
            assert_eq!(doubled(&lanes).is_some(), expected, "{at} {since}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told_of() {
        let all: Vec<_> = (0..100_000).map(|number| (number.to_string(), None)).collect();
        let mut large = digest(1, all);
        let (json, sent) = large.encoded().unwrap();
        assert_eq!((sent, large.open.len()), (Sent::WithoutOpen, 100_000));
        assert!(json.len() <= BYTES_MAX);
        let read: Digest = serde_json::from_slice(&json).unwrap();
        assert!(read.open.is_empty());
        // One of a version that told of none.
        let older = r#"{"instance":"b","at":1,"totals":{"sessions":0,"connections":0,"publishers":0,"subscribers":0,"recordings":0},"shares":[],"sessions":[],"told":null,"ticks":{}}"#;
        assert!(serde_json::from_str::<Digest>(older).unwrap().open.is_empty());
    }
}
