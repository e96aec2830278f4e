//! Digests: what every lane has open, for all instances to see.
//!
//! A compacted topic of one partition, keyed by lane, so that whoever owns a lane overwrites what its owner before has told.
//! An instance reads all of it and adds its own lanes as they are now: so the page shows the whole group. Digests also carry
//! the counts of the last ticks; the owner of lane 0 adds them up and writes `platformStats`. A tick of which a lane tells
//! nothing is left out: a gap, never a low value.
//!
//! They are observations: lost or late, they harm no session.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
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
use crate::live::{Live, LiveSession, Share, Totals};

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
    /// The first and last tick that it tells of; what is not among `ticks` had nothing open. `None`: nothing was ever open.
    told: Option<(i64, i64)>,
    ticks: BTreeMap<i64, Counted>,
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
        Self {
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
        self.known.insert(lane, digest);
    }

    fn send(&self, lane: i32, digest: &mut Digest) {
        let key = lane.to_string();
        loop {
            let Ok(json) = serde_json::to_vec(digest) else { return };
            if json.len() > BYTES_MAX && !digest.sessions.is_empty() {
                digest.sessions.truncate(digest.sessions.len() / 2);
                continue;
            }
            // One that is lost is told anew before long.
            let record = BaseRecord::<str, [u8]>::to(&self.topic).key(&key).payload(&json);
            if let Err((error, _)) = self.producer.send(record) {
                tracing::debug!(error = %error, lane, "digest not sent");
            }
            self.producer.poll(Duration::ZERO);
            return;
        }
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
                self.known.insert(lane, digest);
            }
        }
    }

    /// All lanes as they are known.
    pub(super) fn merged(&self) -> Live {
        Live::merged(self.known.values().map(Digest::live))
    }

    /// A session that is open in two lanes, and which: its records are not keyed by session.
    pub(super) fn doubled(&self) -> Option<String> {
        let mut seen: HashMap<(&str, &str), i32> = HashMap::new();
        for (lane, digest) in &self.known {
            for Shown { session, .. } in &digest.sessions {
                let name = (session.cluster_id.as_str(), session.unique_session_id.as_str());
                if name.1.is_empty() {
                    continue;
                }
                if let Some(other) = seen.insert(name, *lane) {
                    return Some(format!(
                        "session {} is in partitions {other} and {lane}: records are not keyed by sessionId, and its documents are \
                         wrong; see kafka.rekey_from",
                        session.session_id
                    ));
                }
            }
        }
        None
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
